"""A gallery in memory: exact, gone with the process, and the specification for every other store."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from regraft.retrieval.store.checks import check_batch_rows, checked_queries, checked_records, unknown_ids
from regraft.retrieval.store.cosine import best, cosines
from regraft.retrieval.store.protocol import Hits, Layout, Origin, Records


@dataclass(frozen=True, eq=False)
class _Row:
    id: str
    vector: Float32[np.ndarray, " d"]
    space: str
    origin: str
    source: str | None


class MemoryStore:
    """A `VectorStore` of plain NumPy rows."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._layout: Layout | None = None

    @property
    def layout(self) -> Layout | None:
        """The space and dimension of this gallery; `None` before the first `put`."""
        return self._layout

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
            ids, vectors, space=space, origin=origin, sources=sources, layout=self._layout
        )
        if len(records) == 0:
            return 0
        self._layout = Layout(space, records.vectors.shape[1])
        rows = zip(
            records.ids, records.vectors, records.spaces, records.origins, records.sources, strict=True
        )
        self._rows |= {row[0]: _Row(*row) for row in rows}
        return len(records)

    def get(self, ids: Sequence[str]) -> Records:
        """Read rows by id, in the order asked; see `VectorStore.get`."""
        missing = [name for name in ids if name not in self._rows]
        if missing:
            raise unknown_ids(missing)
        return self._records([self._rows[name] for name in ids])

    def search(self, queries: Float[np.ndarray, "q d"], k: int, *, space: str) -> Hits:
        """Find the `k` rows of highest cosine for each query; see `VectorStore.search`."""
        checked = checked_queries(queries, k, space=space, layout=self._layout)
        records = self._records(self._chosen(space, None))
        if len(records) == 0:
            return Hits.empty(len(queries))
        answers = [best(records.ids, scores, k) for scores in cosines(checked, records.vectors)]
        return Hits([ids for ids, _ in answers], [scores for _, scores in answers])

    def scan(
        self, *, space: str | None = None, origin: Origin | None = None, batch_rows: int = 4096
    ) -> Iterator[Records]:
        """Stream the rows that are present now; see `VectorStore.scan`."""
        check_batch_rows(batch_rows)
        rows = self._chosen(space, origin)
        starts = range(0, len(rows), batch_rows)
        return (self._records(rows[start : start + batch_rows]) for start in starts)

    def count(self, *, space: str | None = None, origin: Origin | None = None) -> int:
        """Count the rows, or those of one space or origin."""
        return len(self._chosen(space, origin))

    def drop(self, ids: Sequence[str]) -> int:
        """Remove rows; see `VectorStore.drop`."""
        present = self._rows.keys() & set(ids)
        for name in present:
            del self._rows[name]
        return len(present)

    def _chosen(self, space: str | None, origin: Origin | None) -> list[_Row]:
        return [
            row
            for row in self._rows.values()
            if (space is None or row.space == space) and (origin is None or row.origin == origin)
        ]

    def _records(self, rows: Sequence[_Row]) -> Records:
        dimension = 0 if self._layout is None else self._layout.dimension
        vectors = np.empty((len(rows), dimension), np.float32)
        for place, row in enumerate(rows):
            vectors[place] = row.vector
        return Records(
            [row.id for row in rows],
            vectors,
            [row.space for row in rows],
            [row.origin for row in rows],
            [row.source for row in rows],
        )
