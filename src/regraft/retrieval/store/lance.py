"""A gallery in a folder, on embedded LanceDB. The default."""

# pyarrow has no type information, so its tables are unknown to pyright wherever they are passed.
# pyright: reportUnknownParameterType=false

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import cast

import lancedb
import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float32
from lancedb.index import IvfFlat
from lancedb.query import LanceVectorQueryBuilder
from lancedb.table import Table

from regraft.errors import StoreError
from regraft.retrieval.store import rows
from regraft.retrieval.store.checks import (
    check_batch_rows,
    check_layout,
    checked_queries,
    checked_records,
    unknown_ids,
)
from regraft.retrieval.store.cosine import best, cosines
from regraft.retrieval.store.lance_errors import translated
from regraft.retrieval.store.lease import WriterLease
from regraft.retrieval.store.protocol import Hits, Layout, Origin, Records

TABLE = "gallery"
MAX_IDS_A_QUERY = 10_000  # keeps the text of one SQL filter to about a megabyte
QUERIES_A_BLOCK = 256
EXACT_BATCH_ROWS = 8192

# Candidates asked of the index beyond k, so that scores that tie at the edge are still settled by their ids.
NUM_SPARE = 32


class LanceStore:
    """A `VectorStore` that survives its process, with any number of readers and one writer at a time.

    Every `put` is one commit: after a crash it is there whole or not at all. (The first commits an empty
    gallery of its space before the rows, so that data without any commit can only be damage.) Readers see the
    commits of other processes at their next call. Without an index a search is exact and reads every vector;
    see `index`.

    Every call raises StoreError where the gallery's files are missing, damaged or cannot be written.

    Each `put` leaves a file, and both reading and writing slow down with their number (`put` by about
    0.07 ms a file where it was measured): call `optimize` after a few hundred.

    Args:
        path: The gallery's folder; made by the first `put`.
        lease_wait_s: Seconds to wait for another writer.

    Raises:
        StoreError: `path` is a file.
    """

    def __init__(self, path: str | Path, *, lease_wait_s: float = 10.0) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise StoreError(f"{self.path} is a file; expected a gallery's folder.")
        self._lease = WriterLease(self.path, wait_s=lease_wait_s)
        self._cached: Table | None = None

    @property
    def layout(self) -> Layout | None:
        """The space and dimension of this gallery; `None` before the first `put`."""
        table = self._table()
        if table is None:
            return None
        with self._translated("read"):
            return rows.layout_of(table.schema, self.path)

    @property
    def num_indexed(self) -> int | None:
        """Rows that the index covers; `None` without an index, where a search reads every row."""
        table = self._table()
        if table is None:
            return None
        with self._translated("read"):
            name = _index_name(table)
            stats = None if name is None else table.index_stats(name)
        return None if stats is None else stats.num_indexed_rows

    def writing(self) -> AbstractContextManager[None]:
        """Keep other writers out for a whole block of calls; each call alone takes the lease for itself.

        Raises:
            StoreError: Another writer kept the lease for too long.
        """
        return self._lease.held()

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
        with self.writing(), self._translated("written"):
            # Another writer may have made the gallery since the first look.
            check_layout(space, records.vectors.shape[1], self.layout)
            table = self._table()
            num_written = _merge(self._create(records) if table is None else table, records)
        rows.confirm(num_written, expected=len(records))
        return num_written

    def get(self, ids: Sequence[str]) -> Records:
        """Read rows by id, in the order asked; see `VectorStore.get`."""
        table, layout = self._table(), self.layout
        if not ids:
            return Records.empty(0 if layout is None else layout.dimension)
        if table is None:
            raise unknown_ids(ids)
        wanted = list(dict.fromkeys(ids))
        with self._translated("read"):
            found = pa.concat_tables(
                table.search().where(rows.any_of(part)).select(rows.COLUMNS).to_arrow()
                for part in _parts(wanted)
            )
        place = {name: row for row, name in enumerate(found["id"].to_pylist())}
        missing = [name for name in wanted if name not in place]
        if missing:
            raise unknown_ids(missing)
        return rows.records_from(found.take(pa.array([place[name] for name in ids], pa.int64())))

    def search(self, queries: Float[np.ndarray, "q d"], k: int, *, space: str) -> Hits:
        """Find the `k` rows of highest cosine for each query; see `VectorStore.search`.

        With an index the rows found are almost always the best ones; their scores are exact either way.
        """
        checked = checked_queries(queries, k, space=space, layout=self.layout)
        table = self._table()
        if table is None:
            return Hits.empty(len(queries))
        with self._translated("searched"):
            return (
                self._exact_search(checked, k, space)
                if _index_name(table) is None
                else _indexed_search(table, checked, k, space)
            )

    def scan(
        self, *, space: str | None = None, origin: Origin | None = None, batch_rows: int = 4096
    ) -> Iterator[Records]:
        """Stream the rows that are present now; see `VectorStore.scan`.

        Holds one batch and eight bytes a row in memory.
        """
        check_batch_rows(batch_rows)
        batches = self._batches(rows.COLUMNS, rows.kept_by(space, origin), batch_rows)
        return (rows.records_from(batch) for batch in batches)

    def count(self, *, space: str | None = None, origin: Origin | None = None) -> int:
        """Count the rows, or those of one space or origin."""
        table = self._table()
        if table is None:
            return 0
        with self._translated("read"):
            return table.count_rows(rows.kept_by(space, origin))

    def drop(self, ids: Sequence[str]) -> int:
        """Remove rows; see `VectorStore.drop`."""
        if self._table() is None or not ids:
            return 0
        with self.writing(), self._translated("written"):
            table = self._present_table()
            num_before = table.count_rows()
            for part in _parts(list(ids)):
                table.delete(rows.any_of(part))
            return num_before - table.count_rows()

    def index(self, *, num_partitions: int | None = None) -> None:
        """Build the vector index, or build it anew, so that a search no longer reads every vector.

        Inverted lists of whole vectors: at 45,000 rows of 256 numbers they took a seventieth of the CPU time
        of a graph index (IVF_HNSW_SQ, 28 s) to build and 1.1 to 1.4 times the graph's to answer, and an
        upgrade, which replaces every row, must build them anew. The id has no index of its own: one made
        `put` six times slower after 200 of them, and reading by id no faster.

        Rows put later are found without it, more slowly; `optimize` takes them in.

        Args:
            num_partitions: Number of lists, of which LanceDB reads about 20 a query; `None` for lists of
                about 8,000 rows, so that a small gallery is still searched whole. More lists answer
                sooner and miss more, above all where the vectors do not cluster.

        Raises:
            StoreError: The gallery is empty, or another writer is at work.
        """
        with self.writing(), self._translated("indexed"):
            table = self._present_table()
            if table.count_rows() == 0:
                raise StoreError(f"{self.path} holds no rows; expected some to index.")
            table.create_index(
                "vector", config=IvfFlat(distance_type="cosine", num_partitions=num_partitions)
            )

    def optimize(self, *, keep_s: float = 86_400.0) -> None:
        """Merge the files that many `put`s leave, bring the index up to date, and delete old versions.

        Args:
            keep_s: Seconds for which replaced versions stay on disk, above 0. A scan that began before fails.

        Raises:
            StoreError: `keep_s` is not above 0, nothing was ever put, or another writer is at work.
        """
        if not keep_s > 0:
            raise StoreError(f"keep_s is {keep_s:g}; expected more than 0, or scans under way would fail.")
        with self.writing(), self._translated("optimized"):
            self._present_table().optimize(cleanup_older_than=timedelta(seconds=keep_s))

    def _table(self) -> Table | None:
        """The table at its latest version, or `None` if nothing was ever put."""
        if self._cached is None:
            self._cached = self._open()
        return self._cached

    def _present_table(self) -> Table:
        table = self._table()
        if table is None:
            raise StoreError(f"{self.path} holds no gallery yet; expected at least one put before.")
        return table

    def _open(self) -> Table | None:
        folder = self.path / f"{TABLE}.lance"
        with self._translated("read"):
            # In this order, for another process may be making the gallery: it commits before it writes data.
            has_data = _has_any(folder / "data", ".lance")
            if _has_any(folder / "_versions", ".manifest"):
                return self._database().open_table(TABLE)
        if has_data:
            raise StoreError(
                f"Gallery {self.path} is damaged: {folder / 'data'} holds rows, but no commit says which; "
                f"expected manifests in {folder / '_versions'}.",
                hint="Restore the folder from a copy, or fill another gallery.",
            )
        return None

    def _translated(self, done: str) -> AbstractContextManager[None]:
        return translated(self.path, done)

    def _database(self) -> lancedb.DBConnection:
        # No interval: look for the commits of other processes at every read.
        return lancedb.connect(self.path, read_consistency_interval=timedelta(0))

    def _create(self, records: Records) -> Table:
        """Commit an empty table for rows like these."""
        return self._database().create_table(TABLE, schema=rows.arrow_from(records).schema)

    def _batches(self, columns: list[str], where: str | None, batch_rows: int) -> Iterator[pa.Table]:
        """Stream some columns of the rows that are present now.

        The row numbers are read first, then the rows in their order: LanceDB's own stream reads ahead by
        up to a gigabyte, and a window by offset filters all the rows before it again.
        """
        if self._table() is None:
            return iter(())
        with self._translated("read"):
            snapshot = self._database().open_table(TABLE)
            snapshot.checkout(snapshot.version)
            query = snapshot.search().select(["id"]).with_row_id(True)
            chosen = query.where(where) if where is not None else query
            numbers = np.concatenate(
                [np.zeros(0, np.uint64), *(batch["_rowid"].to_numpy() for batch in chosen.to_batches())]
            )
        parts = (numbers[start : start + batch_rows] for start in range(0, len(numbers), batch_rows))
        return (self._rows_of(snapshot, part.tolist(), columns) for part in parts)

    def _rows_of(self, snapshot: Table, numbers: list[int], columns: list[str]) -> pa.Table:
        with self._translated("read"):
            return snapshot.take_row_ids(numbers).select(columns).to_arrow()

    def _exact_search(self, queries: Float32[np.ndarray, "q d"], k: int, space: str) -> Hits:
        hits = Hits.empty(len(queries))
        for batch in self._batches(["id", "vector"], rows.in_space(space), EXACT_BATCH_ROWS):
            ids, scores = batch["id"].to_pylist(), cosines(queries, rows.vectors_from(batch))
            merged = [
                best(old_ids + ids, np.concatenate([old_scores, new_scores]), k)
                for old_ids, old_scores, new_scores in zip(hits.ids, hits.scores, scores, strict=True)
            ]
            hits = Hits([ids for ids, _ in merged], [scores for _, scores in merged])
        return hits


def _merge(table: Table, records: Records) -> int:
    merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
    result = merge.execute(rows.arrow_from(records))
    return result.num_inserted_rows + result.num_updated_rows


def _has_any(folder: Path, suffix: str) -> bool:
    return folder.is_dir() and any(path.suffix == suffix for path in folder.iterdir())


def _index_name(table: Table) -> str | None:
    return next((index.name for index in table.list_indices() if "vector" in index.columns), None)


def _indexed_search(table: Table, queries: Float32[np.ndarray, "q d"], k: int, space: str) -> Hits:
    """Let the index propose candidates, and score them as the exact search does."""
    hits = Hits.empty(0)
    for start in range(0, len(queries), QUERIES_A_BLOCK):
        block = queries[start : start + QUERIES_A_BLOCK]
        candidates = _candidates(table, block, k + NUM_SPARE, space)
        for query, found in zip(block, candidates, strict=True):
            scores = cosines(query[None], rows.vectors_from(found))[0]
            best_ids, best_scores = best(found["id"].to_pylist(), scores, k)
            hits.ids.append(best_ids)
            hits.scores.append(best_scores)
    return hits


def _candidates(
    table: Table, queries: Float32[np.ndarray, "q d"], num_candidates: int, space: str
) -> list[pa.Table]:
    """One table of ids and vectors for each query."""
    search = cast(LanceVectorQueryBuilder, table.search(queries, vector_column_name="vector"))
    chosen = search.distance_type("cosine").limit(num_candidates).where(rows.in_space(space))
    # `_distance` is asked for although unused: LanceDB warns at every query that leaves it out.
    found = chosen.select(["id", "vector", "_distance"]).to_arrow()
    if len(queries) == 1:
        return [found]  # LanceDB numbers the queries only if there are several
    numbers = found["query_index"].to_numpy()
    return [found.filter(pa.array(numbers == number)) for number in range(len(queries))]


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + MAX_IDS_A_QUERY] for start in range(0, len(ids), MAX_IDS_A_QUERY))
