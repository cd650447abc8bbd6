"""One version of a gallery on LanceDB, as it is read."""

# pyarrow has no type information, so its tables are unknown to pyright wherever they are passed.
# pyright: reportUnknownParameterType=false

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
from jaxtyping import Float32
from lancedb.query import LanceVectorQueryBuilder
from lancedb.table import Table

from regraft.retrieval.store import rows
from regraft.retrieval.store.checks import checked_queries, unchanged
from regraft.retrieval.store.cosine import best, cosines
from regraft.retrieval.store.lance_errors import translated
from regraft.retrieval.store.lance_slots import Slot, slots_in
from regraft.retrieval.store.protocol import Hits, Origin, Records

MAX_IDS_A_QUERY = 10_000  # keeps the text of one SQL filter to about a megabyte
QUERIES_A_BLOCK = 256
EXACT_BATCH_ROWS = 8192

# Candidates asked of the index beyond k, so that scores that tie at the edge are still settled by their ids.
NUM_SPARE = 32


class Snapshot:
    """A gallery as one commit left it: its spaces and its rows stay the same whatever is written meanwhile.

    Args:
        table: The gallery's table, for this snapshot alone, checked out at a version.
        path: The gallery's folder, for errors.

    Raises:
        StoreError: The table was not written by Regraft, or by a later one.
    """

    def __init__(self, table: Table, path: Path) -> None:
        self.version = table.version
        self.slots = slots_in(table.schema, path)
        self._table = table
        self._path = path

    def slot(self, space: str | None) -> Slot | None:
        """The slot of a space, of the served one if it is `None`; `None` if it is not open."""
        return self.slots.served if space is None else self.slots.of(space)

    def present(self, space: str) -> Slot:
        """The slot of an open space."""
        slot = self.slots.of(space)
        assert slot is not None, "checked by the caller"
        return slot

    def unchanged(self, whole: pa.Table, seen: Records, slot: Slot) -> pa.Table:
        """Those of some rows of every column that may still get a vector made of what was seen of them."""
        before = self.slots.of(seen.spaces[0])
        if before is None:
            return whole.slice(0, 0)
        now, filled = (rows.records_from(rows.having_vector(whole, each), each) for each in (before, slot))
        names = set(unchanged(seen, now, filled))
        return whole.filter(pa.array([name in names for name in whole["id"].to_pylist()]))

    def chosen(self, slot: Slot, origin: Origin | None, lacking: str | None) -> str | None:
        """The filter for the rows that have a vector in a slot, of an origin, and none in another space."""
        # Every row has a vector in the served space, so that nothing need be read to know it.
        terms = [] if slot == self.slots.served else [rows.having(slot)]
        if origin is not None:
            terms.append(rows.of_origin(slot, origin))
        other = None if lacking is None else self.slots.of(lacking)
        if other is not None:
            terms.append(rows.lacking(other))
        return rows.all_of(terms)

    def count(self, where: str | None) -> int:
        """Count the rows that pass a filter."""
        return self._table.count_rows(where)

    def ids(self, where: str) -> list[str]:
        """The ids of the rows that pass a filter."""
        return self._table.search().where(where).select(["id"]).to_arrow()["id"].to_pylist()

    def rows(self, ids: Sequence[str], columns: list[str]) -> pa.Table:
        """Read some columns of those of some rows, at least one, that are present, in any order."""
        return pa.concat_tables(
            self._table.search().where(rows.any_of(part)).select(columns).to_arrow() for part in parts_of(ids)
        )

    def find(self, ids: Sequence[str], slot: Slot) -> Records:
        """Read those of some rows that are present and have a vector in a slot, in the order asked."""
        if not ids:
            return Records.empty(slot.layout.dimension)
        found = rows.having_vector(self.rows(list(dict.fromkeys(ids)), rows.columns_of(slot)), slot)
        place = {name: row for row, name in enumerate(found["id"].to_pylist())}
        order = [place[name] for name in ids if name in place]
        return rows.records_from(found.take(pa.array(order, pa.int64())), slot)

    def batches(self, columns: list[str], where: str | None, batch_rows: int) -> Iterator[pa.Table]:
        """Stream some columns of the rows that pass a filter.

        The row numbers are read first, then the rows in their order: LanceDB's own stream reads ahead by
        up to a gigabyte, and a window by offset filters all the rows before it again.
        """
        with translated(self._path, "read"):
            query = self._table.search().select(["id"]).with_row_id(True)
            passing = query.where(where) if where is not None else query
            numbers = np.concatenate(
                [np.zeros(0, np.uint64), *(batch["_rowid"].to_numpy() for batch in passing.to_batches())]
            )
        parts = (numbers[start : start + batch_rows] for start in range(0, len(numbers), batch_rows))
        return (self._numbered(part.tolist(), columns) for part in parts)

    def search(self, queries: Float32[np.ndarray, "q d"], k: int, *, space: str) -> Hits:
        """Find the `k` rows of highest cosine for each query; see `VectorStore.search`."""
        slot = self.slots.served
        checked = checked_queries(queries, k, space=space, layout=slot.layout)
        if self.index_name(slot) is None:
            return self._exact_search(checked, k, slot)
        return self._indexed_search(checked, k, slot)

    def index_name(self, slot: Slot) -> str | None:
        """The index of a slot's vectors; `None` if there is none."""
        return next(
            (index.name for index in self._table.list_indices() if slot.vector in index.columns), None
        )

    def num_indexed(self, slot: Slot) -> int | None:
        """Rows that the index of a slot's vectors covers; `None` without an index."""
        name = self.index_name(slot)
        stats = None if name is None else self._table.index_stats(name)
        return None if stats is None else stats.num_indexed_rows

    def _numbered(self, numbers: list[int], columns: list[str]) -> pa.Table:
        with translated(self._path, "read"):
            return self._table.take_row_ids(numbers).select(columns).to_arrow()

    def _exact_search(self, queries: Float32[np.ndarray, "q d"], k: int, slot: Slot) -> Hits:
        hits = Hits.empty(len(queries))
        for batch in self.batches(["id", slot.vector], None, EXACT_BATCH_ROWS):
            ids, scores = batch["id"].to_pylist(), cosines(queries, rows.vectors_from(batch, slot))
            merged = [
                best(old_ids + ids, np.concatenate([old_scores, new_scores]), k)
                for old_ids, old_scores, new_scores in zip(hits.ids, hits.scores, scores, strict=True)
            ]
            hits = Hits([ids for ids, _ in merged], [scores for _, scores in merged])
        return hits

    def _indexed_search(self, queries: Float32[np.ndarray, "q d"], k: int, slot: Slot) -> Hits:
        """Let the index propose candidates, and score them as the exact search does."""
        hits = Hits.empty(0)
        for start in range(0, len(queries), QUERIES_A_BLOCK):
            block = queries[start : start + QUERIES_A_BLOCK]
            for query, found in zip(block, self._candidates(block, k + NUM_SPARE, slot), strict=True):
                scores = cosines(query[None], rows.vectors_from(found, slot))[0]
                best_ids, best_scores = best(found["id"].to_pylist(), scores, k)
                hits.ids.append(best_ids)
                hits.scores.append(best_scores)
        return hits

    def _candidates(
        self, queries: Float32[np.ndarray, "q d"], num_candidates: int, slot: Slot
    ) -> list[pa.Table]:
        """One table of ids and vectors for each query."""
        search = cast(LanceVectorQueryBuilder, self._table.search(queries, vector_column_name=slot.vector))
        # `_distance` is asked for although unused: LanceDB warns at every query that leaves it out.
        columns = ["id", slot.vector, "_distance"]
        found = search.distance_type("cosine").limit(num_candidates).select(columns).to_arrow()
        if len(queries) == 1:
            return [found]  # LanceDB numbers the queries only if there are several
        numbers = found["query_index"].to_numpy()
        return [found.filter(pa.array(numbers == number)) for number in range(len(queries))]


def parts_of(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Some ids in runs short enough for one filter each."""
    return (ids[start : start + MAX_IDS_A_QUERY] for start in range(0, len(ids), MAX_IDS_A_QUERY))
