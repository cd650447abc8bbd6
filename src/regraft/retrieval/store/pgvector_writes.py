"""Many rows written to PostgreSQL at once: sent to a table of the connection's own, and merged from there."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from regraft.retrieval.store.pgvector_rows import array_of, copied, encoded
from regraft.retrieval.store.pgvector_server import Connection
from regraft.retrieval.store.pgvector_tables import Space, Tables
from regraft.retrieval.store.protocol import Layout, Origin

INCOMING = "pg_temp.regraft_incoming"


def send(
    link: Connection,
    layout: Layout,
    ids: Sequence[str],
    vectors: Float32[np.ndarray, "n d"],
    sources: Sequence[str | None],
) -> None:
    """Bring rows to the server, where they last until the transaction ends."""
    link.run(
        "CREATE TEMPORARY TABLE IF NOT EXISTS regraft_incoming "
        "(id bytea NOT NULL, source bytea, vector vector, packed bytea) ON COMMIT DELETE ROWS"
    )
    link.run(
        f"COPY {INCOMING} (id, source, {_value(layout)}) FROM STDIN BINARY",
        stream=copied(
            [name.encode() for name in ids],
            [None if source is None else source.encode() for source in sources],
            encoded(layout, vectors),
        ),
    )


def replace(link: Connection, tables: Tables, spaces: Sequence[Space], origin: Origin) -> None:
    """Put the rows that were sent in the place of those with their ids, with a vector in the first space.

    Every writer takes rows in the order of their ids, so that two never wait for each other.
    """
    link.run(
        f"WITH present AS (INSERT INTO {tables.items} AS i (id, source) "
        f"SELECT id, source FROM {INCOMING} ORDER BY id "
        "ON CONFLICT (id) DO UPDATE SET source = excluded.source RETURNING i.item, i.id), "
        f"written AS (SELECT item, vector, packed FROM present JOIN {INCOMING} USING (id)) "
        f"{_upsert(spaces[0], 'written')}",
        origin=origin,
    )
    for other in spaces[1:]:
        link.run(
            f"DELETE FROM {other.table} "
            f"WHERE item IN (SELECT item FROM {tables.items} JOIN {INCOMING} USING (id))"
        )


def lock(link: Connection, tables: Tables, ids: Sequence[str]) -> list[int]:
    """Keep other writers from some rows until the transaction ends; return the numbers of those present."""
    rows = link.run(
        f"SELECT item FROM {tables.items} WHERE id = ANY(CAST(:ids AS bytea[])) ORDER BY id FOR UPDATE",
        ids=array_of(ids),
    )
    return [item for (item,) in rows or []]


def set_present(link: Connection, tables: Tables, space: Space, origin: Origin) -> int:
    """Set the vectors that were sent of those rows that are present; return their number."""
    link.run(
        "WITH present AS MATERIALIZED (SELECT i.item, r.vector, r.packed "
        f"FROM {tables.items} i JOIN {INCOMING} r USING (id) ORDER BY i.id FOR NO KEY UPDATE OF i) "
        f"{_upsert(space, 'present')}",
        origin=origin,
    )
    return link.row_count or 0


def _value(layout: Layout) -> str:
    return "packed" if layout.packed else "vector"


def _upsert(space: Space, rows: str) -> str:
    return (
        f"INSERT INTO {space.table} (item, vector, origin) "
        f"SELECT item, {_value(space.layout)}, :origin FROM {rows} "
        "ON CONFLICT (item) DO UPDATE SET vector = excluded.vector, origin = excluded.origin"
    )
