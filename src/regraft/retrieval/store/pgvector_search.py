"""The rows that PostgreSQL proposes for a query; what they score is decided by `cosine.py`."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32

from regraft.retrieval.store.pgvector_rows import Row, records_from, selected, text_of
from regraft.retrieval.store.pgvector_server import Connection
from regraft.retrieval.store.pgvector_tables import Space, Tables
from regraft.retrieval.store.protocol import Records

# Candidates asked of the index beyond k, so that scores that tie at the edge are still settled by their ids.
NUM_SPARE = 32
# Rows that the index keeps in sight; pgvector takes at most the second number.
EF_SEARCH, MAX_EF_SEARCH = 100, 1000
# Replaced and removed rows stay in the graph until VACUUM, and take the places of others in sight: so it must
# look further until enough are found. In any order, for what they score is decided here: in strict order the
# index throws away what it meets late, and of 10 nearest found 8.5 instead of 9.95 where every row had been
# replaced four times.
LOOK_FURTHER = "SET LOCAL hnsw.iterative_scan = relaxed_order"


def candidates(
    link: Connection, tables: Tables, space: Space, queries: Float32[np.ndarray, "q d"], k: int
) -> Iterator[Records]:
    """Yield the rows that may be among the `k` best of each query: all of them, or those an index finds.

    Args:
        link: In a transaction.
        tables: The gallery's.
        space: The one to search.
        queries: Finite and not zero.
        k: Rows wanted, at least 1. More than an index can keep in sight are sought without it.
    """
    indexed = space.indexed and k + NUM_SPARE <= MAX_EF_SEARCH
    find = _indexed if indexed else _exact
    return (records_from(find(link, tables, space, text_of(query), k), space.layout) for query in queries)


def select_rows(tables: Tables, space: Space, source: str | None = None) -> str:
    """The SQL that reads whole rows as `records_from` takes them.

    Args:
        tables: The gallery's.
        space: Whose vectors to read.
        source: Which rows of the space's table, as SQL in brackets; `None` for all.
    """
    return (
        f"SELECT i.id, {selected(space.layout)}, v.origin, i.source "
        f"FROM {source or space.table} v JOIN {tables.items} i USING (item)"
    )


def _indexed(link: Connection, tables: Tables, space: Space, query: str, k: int) -> list[Row]:
    num_candidates = k + NUM_SPARE
    link.run(f"SET LOCAL hnsw.ef_search = {max(EF_SEARCH, num_candidates)}")
    link.run(LOOK_FURTHER)
    nearest = (
        f"(SELECT * FROM {space.table} "
        f"ORDER BY {space.indexed_value} <=> {space.indexed_query} LIMIT {num_candidates})"
    )
    found = link.run(select_rows(tables, space, nearest), query=query) or []
    # The graph can be cut in two by what was removed, and an index gives up after 20,000 rows it cannot use.
    return found if len(found) >= k else _exact(link, tables, space, query, k)


def _exact(link: Connection, tables: Tables, space: Space, query: str, k: int) -> list[Row]:
    """Every row at most as far as the k-th, as far as the server's rounding can tell.

    pgvector sums in float32: d products, each off by at most 2^-24 of itself, as is every sum; three such
    sums make a cosine.
    """
    rounding = 4 * space.layout.dimension * 2.0**-24
    near = link.run(
        "WITH scored AS MATERIALIZED "
        f"(SELECT item, vector <=> CAST(:query AS vector) AS distance FROM {space.table}), "
        f"edge AS (SELECT distance FROM scored ORDER BY distance OFFSET {k - 1} LIMIT 1) "
        f"SELECT item FROM scored WHERE distance <= coalesce((SELECT distance FROM edge), 3) + {rounding!r}",
        query=query,
    )
    # In two statements, for the server cannot foresee that so few are left, and would join whole tables.
    items = [item for (item,) in near or []]
    sql = f"{select_rows(tables, space)} WHERE v.item = ANY(CAST(:items AS bigint[]))"
    return link.run(sql, items=items) or []
