"""A gallery in a PostgreSQL server with pgvector."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from regraft.errors import StoreError
from regraft.retrieval.store.checks import (
    all_of,
    check_batch_rows,
    check_closable,
    check_complete,
    check_layout,
    check_opens,
    check_servable,
    check_tidied,
    checked_fill,
    checked_queries,
    checked_records,
    unchanged,
)
from regraft.retrieval.store.cosine import best, cosines
from regraft.retrieval.store.pgvector_rows import array_of, records_from
from regraft.retrieval.store.pgvector_search import candidates, select_rows
from regraft.retrieval.store.pgvector_server import Address, Connection, Server, code_of
from regraft.retrieval.store.pgvector_tables import IS_NO_TABLE, Space, Tables
from regraft.retrieval.store.pgvector_upkeep import clean
from regraft.retrieval.store.pgvector_writes import lock, replace, send, set_present
from regraft.retrieval.store.protocol import Capabilities, Hits, Layout, Origin, Records

Answer = TypeVar("Answer")

WRITE = "BEGIN ISOLATION LEVEL READ COMMITTED"
READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


class PgVectorStore:
    """A `VectorStore` in a schema of its own, with any number of readers and writers.

    Each call is one transaction: after a crash of the client or of the server it is there whole or not at
    all. Writers of the same rows wait for one another; `serve`, `open_space` and `close_space` wait for the
    writers under way, and no reader waits for anyone. A scan keeps a connection and its snapshot of the
    gallery until it is exhausted or forgotten.

    Without an index a search is exact and reads every vector; see `index`.

    Every call raises StoreError where the server cannot be reached or refuses what it was asked.

    Args:
        url: `postgresql://USER@HOST:PORT/DATABASE?gallery=NAME`; see `Address.parse`. Nothing is asked of the
            server until the first call.

    Raises:
        StoreError: The URL is not of this form.
    """

    capabilities = Capabilities(
        atomic_fill=True, several_writers=True, opens_online=True, rollback="serve the space before"
    )

    def __init__(self, url: str) -> None:
        self.address = Address.parse(url)
        self._server = Server(self.address)
        self._tables = Tables(self.address)

    def close(self) -> None:
        """Close the connections that are not in use; a later call opens another."""
        self._server.close()

    @property
    def layout(self) -> Layout | None:
        """The space that is served; `None` before the first `put`."""
        return next(iter(self.spaces), None)

    @property
    def spaces(self) -> tuple[Layout, ...]:
        """Every open space, the served one first."""
        return self._read(lambda link, spaces: tuple(space.layout for space in spaces))

    def put(
        self,
        ids: Sequence[str],
        vectors: Float[np.ndarray, "n d"],
        *,
        space: str,
        origin: Origin = "native",
        sources: Sequence[str | None] | None = None,
    ) -> int:
        """Write rows, replacing those whose id is present; see `VectorStore.put`."""
        records = checked_records(
            ids, vectors, space=space, origin=origin, sources=sources, layout=self.layout
        )
        if len(records) == 0:
            return 0
        layout = Layout(space, records.vectors.shape[1])
        with self._server.transaction(WRITE, done="written") as link:
            spaces = self._tables.locked(link, "SHARE") or self._tables.create(link, layout)
            # Another writer may have made the gallery since the first look, or served another space.
            check_layout(space, layout.dimension, spaces[0].layout)
            send(link, layout, records.ids, records.vectors, records.sources)
            replace(link, self._tables, spaces, origin)
        return len(records)

    def fill(
        self,
        ids: Sequence[str],
        vectors: Float[np.ndarray, "n d"],
        *,
        space: str,
        origin: Origin,
        seen: Records | None = None,
    ) -> int:
        """Set the vectors of rows that are present in one open space; see `VectorStore.fill`."""
        with self._server.transaction(WRITE, done="written") as link:
            spaces = self._tables.locked(link, "SHARE")
            opened = [each.layout for each in spaces]
            layout, stored = checked_fill(ids, vectors, space=space, origin=origin, spaces=opened, seen=seen)
            target = next(each for each in spaces if each.layout == layout)
            chosen = list(ids) if seen is None else self._unchanged(link, spaces, seen, target)
            place = {name: row for row, name in enumerate(ids)}
            send(link, layout, chosen, stored[[place[name] for name in chosen]], [None] * len(chosen))
            return set_present(link, self._tables, target, origin)

    def get(self, ids: Sequence[str], *, space: str | None = None) -> Records:
        """Read rows by id, in the order asked; see `VectorStore.get`."""
        return all_of(ids, self.find(list(dict.fromkeys(ids)), space=space))

    def find(self, ids: Sequence[str], *, space: str | None = None) -> Records:
        """Read those of some rows that are present and have a vector in a space; see `VectorStore.find`."""

        def read(link: Connection, spaces: tuple[Space, ...]) -> Records:
            chosen = _named(space, spaces)
            return Records.empty(0) if chosen is None else self._found(link, ids, chosen)

        return self._read(read)

    def search(self, queries: Float[np.ndarray, "q d"], k: int, *, space: str) -> Hits:
        """Find the `k` rows of highest cosine for each query; see `VectorStore.search`.

        With an index the rows found are almost always the best ones; their scores are exact either way.
        """

        def read(link: Connection, spaces: tuple[Space, ...]) -> Hits:
            layout = spaces[0].layout if spaces else None
            checked = checked_queries(queries, k, space=space, layout=layout)
            if not spaces:
                return Hits.empty(len(checked))
            proposed = candidates(link, self._tables, spaces[0], checked, k)
            answers = [
                best(found.ids, cosines(query[None], found.vectors)[0], k)
                for query, found in zip(checked, proposed, strict=True)
            ]
            return Hits([ids for ids, _ in answers], [scores for _, scores in answers])

        return self._read(read)

    def scan(
        self,
        *,
        space: str | None = None,
        origin: Origin | None = None,
        lacking: str | None = None,
        batch_rows: int = 4096,
    ) -> Iterator[Records]:
        """Stream the rows that are present now; see `VectorStore.scan`. Holds one batch in memory."""
        check_batch_rows(batch_rows)
        batches = self._walk(space, origin, lacking, batch_rows)
        next(batches)  # runs up to the snapshot, so that it is of now and not of the first batch's time
        return batches

    def count(
        self, *, space: str | None = None, origin: Origin | None = None, lacking: str | None = None
    ) -> int:
        """Count the rows that `scan` would yield."""

        def read(link: Connection, spaces: tuple[Space, ...]) -> int:
            chosen = _named(space, spaces)
            if chosen is None:
                return 0
            rows = link.run(
                f"SELECT count(*) FROM {chosen.table} v {_kept_by(origin, lacking, spaces)}", **_terms(origin)
            )
            return rows[0][0] if rows else 0

        return self._read(read)

    def drop(self, ids: Sequence[str]) -> int:
        """Remove rows; see `VectorStore.drop`."""
        with self._server.transaction(WRITE, done="written") as link:
            spaces = self._tables.locked(link, "SHARE")
            if not spaces:
                return 0
            items = lock(link, self._tables, ids)
            for table in (*(each.table for each in spaces), self._tables.items):
                link.run(f"DELETE FROM {table} WHERE item = ANY(CAST(:items AS bigint[]))", items=items)
        return len(items)

    def open_space(self, layout: Layout) -> None:
        """Make room for the vectors of another space; see `VectorStore.open_space`."""
        with self._server.transaction(WRITE, done="written") as link:
            spaces = self._tables.locked(link, "EXCLUSIVE")
            if check_opens(layout, [each.layout for each in spaces]):
                self._tables.add(link, layout)
        self._sweep()

    def serve(self, space: str) -> None:
        """Answer in `space` from now on; see `VectorStore.serve`."""
        with self._server.transaction(WRITE, done="written") as link:
            spaces = self._tables.locked(link, "EXCLUSIVE")
            check_servable(space, [each.layout for each in spaces])
            chosen = next(each for each in spaces if each.layout.space == space)
            lacking = link.run(
                f"SELECT id FROM {self._tables.items} i "
                f"WHERE NOT EXISTS (SELECT FROM {chosen.table} v WHERE v.item = i.item) ORDER BY item"
            )
            check_complete(space, [name.decode() for (name,) in lacking or []])
            link.run(f"UPDATE {self._tables.spaces} SET served = (number = :number)", number=chosen.number)

    def close_space(self, space: str) -> None:
        """Forget every vector of a space that is not served; see `VectorStore.close_space`.

        The room on the server's disk is free once no scan that began before is under way.
        """
        with self._server.transaction(WRITE, done="written") as link:
            spaces = self._tables.locked(link, "EXCLUSIVE")
            if not spaces:
                return
            check_closable(space, spaces[0].layout)
            link.run(f"DELETE FROM {self._tables.spaces} WHERE space = :space", space=space.encode())
        self._sweep()

    def index(
        self,
        *,
        space: str | None = None,
        neighbours: int = 16,
        build_candidates: int = 64,
        memory_mb: int | None = None,
    ) -> None:
        """Build the HNSW index of a space, or build it anew, so that a search no longer reads every vector.

        Rows put or filled later enter it at once. Writers wait while it is built, and readers where it is in
        the place of another.

        Args:
            space: Whose vectors to index; `None` for the served space. An index built before `serve` is there
                from the first query.
            neighbours: Edges a row in the graph, pgvector's `m`.
            build_candidates: Rows in sight while a row finds its edges, pgvector's `ef_construction`.
            memory_mb: What the server may use to build it; `None` for its `maintenance_work_mem`. A graph
                that does not fit is built many times more slowly.

        Raises:
            SpaceMismatch: The space is not open, or is packed.
            StoreError: The gallery is empty, or has more dimensions than pgvector can index.
        """
        with self._server.transaction(WRITE, done="indexed") as link:
            spaces = self._tables.locked(link, "EXCLUSIVE")
            if not spaces:
                raise StoreError(f"Gallery {self.address} holds nothing yet; expected rows to index.")
            name = spaces[0].layout.space if space is None else space
            layout = check_servable(name, [each.layout for each in spaces])
            chosen = next(each for each in spaces if each.layout == layout)
            options = f"m = {neighbours:d}, ef_construction = {build_candidates:d}"
            self._tables.index(link, chosen, options, memory_mb)

    def tidy(self, *, space: str | None = None) -> None:
        """Index a space like one that is indexed, and remove what many writes left; see `VectorStore.tidy`.

        The server does the latter by itself too, some time later, unless its `autovacuum` is off. A space of
        too many dimensions for an index is left without.
        """
        if check_tidied(space, self.spaces) is None:
            return
        self._index_like(space)
        _twice(self._clean)

    def _clean(self) -> None:
        with self._server.no_transaction(done="tidied") as link:
            clean(link, self._tables, self._tables.listed(link))

    def _index_like(self, space: str | None) -> None:
        """Build an index of a space with the options of another space's, where only the other has one."""
        with self._server.transaction(WRITE, done="indexed") as link:
            spaces = self._tables.locked(link, "EXCLUSIVE")
            layout = check_tidied(space, [each.layout for each in spaces])
            chosen = next(each for each in spaces if each.layout == layout)
            indexed = [each for each in spaces if each.indexed]
            if indexed and not chosen.indexed and chosen.is_indexable:
                self._tables.index(link, chosen, self._tables.index_options(link, indexed[0]))

    def _read(self, work: Callable[[Connection, tuple[Space, ...]], Answer]) -> Answer:
        """Run `work` on one state of the gallery."""
        return _twice(lambda: self._read_once(work))

    def _read_once(self, work: Callable[[Connection, tuple[Space, ...]], Answer]) -> Answer:
        with self._server.transaction(READ, done="read") as link:
            return work(link, self._tables.listed(link))

    def _found(self, link: Connection, ids: Sequence[str], space: Space) -> Records:
        sql = f"{select_rows(self._tables, space)} WHERE i.id = ANY(CAST(:ids AS bytea[]))"
        found = records_from(link.run(sql, ids=array_of(ids)) or [], space.layout)
        return found.named(ids)

    def _unchanged(
        self, link: Connection, spaces: Sequence[Space], seen: Records, target: Space
    ) -> list[str]:
        """The rows that are still as they were seen, and stay so until the transaction ends."""
        before = _named(seen.spaces[0], spaces) if len(seen) else None
        if before is None:
            return []
        lock(link, self._tables, seen.ids)
        return unchanged(seen, self._found(link, seen.ids, before), self._found(link, seen.ids, target))

    def _walk(
        self, space: str | None, origin: Origin | None, lacking: str | None, batch_rows: int
    ) -> Iterator[Records]:
        """Yield no rows once the snapshot is taken, then the batches."""
        with self._server.transaction(READ, done="read") as link:
            spaces = self._tables.listed(link)
            chosen = _named(space, spaces)
            if chosen is None:
                yield Records.empty(0)
                return
            # From one row to the next in the order of the table, instead of sorting all of them first.
            link.run(
                f"DECLARE walk NO SCROLL CURSOR FOR {select_rows(self._tables, chosen)} "
                f"{_kept_by(origin, lacking, spaces)} ORDER BY v.item",
                **_terms(origin),
            )
            yield Records.empty(chosen.layout.dimension)
            while rows := link.run(f"FETCH {batch_rows} FROM walk"):
                yield records_from(rows, chosen.layout)

    def _sweep(self) -> None:
        with self._server.transaction(WRITE, done="written") as link:
            self._tables.sweep(link)


def _twice(work: Callable[[], Answer]) -> Answer:
    """Do some work, once more if a space was closed under its eyes."""
    try:
        return work()
    except StoreError as error:
        if code_of(error.__cause__) != IS_NO_TABLE:
            raise
        return work()


def _named(space: str | None, spaces: Sequence[Space]) -> Space | None:
    """A space by its name, the served one without; `None` if it is not open."""
    if space is None:
        return spaces[0] if spaces else None
    return next((each for each in spaces if each.layout.space == space), None)


def _kept_by(origin: Origin | None, lacking: str | None, spaces: Sequence[Space]) -> str:
    """The filter for the rows of an origin, and without a vector in a space, each only if named."""
    without = None if lacking is None else _named(lacking, spaces)
    terms = [] if origin is None else ["v.origin = :origin"]
    if without is not None:
        terms.append(f"NOT EXISTS (SELECT FROM {without.table} w WHERE w.item = v.item)")
    return f"WHERE {' AND '.join(terms)}" if terms else ""


def _terms(origin: Origin | None) -> dict[str, str]:
    return {} if origin is None else {"origin": origin}
