"""A gallery in memory: exact, gone with the process, and the specification for every other store."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float32

from regraft.retrieval.store.checks import (
    check_batch_rows,
    check_closable,
    check_complete,
    check_opens,
    check_servable,
    check_tidied,
    checked_fill,
    checked_queries,
    checked_records,
    unchanged_in,
    unknown_ids,
)
from regraft.retrieval.store.cosine import best, cosines
from regraft.retrieval.store.packing import pack, unpack
from regraft.retrieval.store.protocol import Capabilities, Hits, Layout, Origin, Records


@dataclass(frozen=True, eq=False)
class _Vector:
    values: Float32[np.ndarray, " d"]
    origin: str


@dataclass(frozen=True, eq=False)
class _Row:
    id: str
    source: str | None
    vectors: dict[str, _Vector] = field(default_factory=dict)
    """By space."""


class MemoryStore:
    """A `VectorStore` of plain NumPy rows."""

    capabilities = Capabilities(
        atomic_fill=True, several_writers=False, opens_online=True, rollback="serve the space before"
    )

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._opened: tuple[Layout, ...] = ()
        self._served: Layout | None = None

    @property
    def layout(self) -> Layout | None:
        """The space that is served; `None` before the first `put`."""
        return self._served

    @property
    def spaces(self) -> tuple[Layout, ...]:
        """Every open space, the served one first."""
        return tuple(sorted(self._opened, key=lambda layout: layout != self._served))

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
        if self._served is None:
            self._served = Layout(space, records.vectors.shape[1])
            self._opened = (self._served,)
        for name, values, source in zip(records.ids, records.vectors, records.sources, strict=True):
            self._rows[name] = _Row(name, source, {space: _Vector(values, origin)})
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
        layout, stored = checked_fill(
            ids, vectors, space=space, origin=origin, spaces=self._opened, seen=seen
        )
        if layout.packed:
            stored = unpack(pack(stored), layout.dimension)
        chosen = self._rows.keys() & set(ids if seen is None else unchanged_in(self, seen, space))
        for name, values in zip(ids, stored, strict=True):
            if name in chosen:
                self._rows[name].vectors[space] = _Vector(values, origin)
        return len(chosen)

    def get(self, ids: Sequence[str], *, space: str | None = None) -> Records:
        """Read rows by id, in the order asked; see `VectorStore.get`."""
        wanted = self._named(space)
        missing = [name for name in ids if name not in self._rows or wanted not in self._rows[name].vectors]
        if missing:
            raise unknown_ids(missing)
        return self._records([self._rows[name] for name in ids], wanted)

    def find(self, ids: Sequence[str], *, space: str | None = None) -> Records:
        """Read those of some rows that are present and have a vector in a space; see `VectorStore.find`."""
        wanted = self._named(space)
        rows = [self._rows[name] for name in ids if name in self._rows]
        return self._records([row for row in rows if wanted in row.vectors], wanted)

    def search(self, queries: Float[np.ndarray, "q d"], k: int, *, space: str) -> Hits:
        """Find the `k` rows of highest cosine for each query; see `VectorStore.search`."""
        checked = checked_queries(queries, k, space=space, layout=self.layout)
        records = self._records(self._chosen(space, None, None), space)
        if len(records) == 0:
            return Hits.empty(len(queries))
        answers = [best(records.ids, scores, k) for scores in cosines(checked, records.vectors)]
        return Hits([ids for ids, _ in answers], [scores for _, scores in answers])

    def scan(
        self,
        *,
        space: str | None = None,
        origin: Origin | None = None,
        lacking: str | None = None,
        batch_rows: int = 4096,
    ) -> Iterator[Records]:
        """Stream the rows that are present now; see `VectorStore.scan`."""
        check_batch_rows(batch_rows)
        wanted = self._named(space)
        # Copies, so that a later `fill` does not reach into what this scan yields.
        rows = [_Row(row.id, row.source, dict(row.vectors)) for row in self._chosen(wanted, origin, lacking)]
        starts = range(0, len(rows), batch_rows)
        return (self._records(rows[start : start + batch_rows], wanted) for start in starts)

    def count(
        self, *, space: str | None = None, origin: Origin | None = None, lacking: str | None = None
    ) -> int:
        """Count the rows that `scan` would yield."""
        return len(self._chosen(self._named(space), origin, lacking))

    def drop(self, ids: Sequence[str]) -> int:
        """Remove rows; see `VectorStore.drop`."""
        present = self._rows.keys() & set(ids)
        for name in present:
            del self._rows[name]
        return len(present)

    def open_space(self, layout: Layout) -> None:
        """Make room for the vectors of another space; see `VectorStore.open_space`."""
        if check_opens(layout, self._opened):
            self._opened = (*self._opened, layout)

    def serve(self, space: str) -> None:
        """Answer in `space` from now on; see `VectorStore.serve`."""
        chosen = check_servable(space, self._opened)
        check_complete(space, [row.id for row in self._rows.values() if space not in row.vectors])
        self._served = chosen

    def close_space(self, space: str) -> None:
        """Forget every vector of a space that is not served; see `VectorStore.close_space`."""
        check_closable(space, self.layout)
        self._opened = tuple(layout for layout in self._opened if layout.space != space)
        for row in self._rows.values():
            row.vectors.pop(space, None)

    def tidy(self, *, space: str | None = None) -> None:
        """Nothing is ever untidy; see `VectorStore.tidy`."""
        check_tidied(space, self.spaces)

    def _named(self, space: str | None) -> str:
        served = "" if self.layout is None else self.layout.space
        return served if space is None else space

    def _chosen(self, space: str, origin: Origin | None, lacking: str | None) -> list[_Row]:
        return [
            row
            for row in self._rows.values()
            if space in row.vectors
            and (origin is None or row.vectors[space].origin == origin)
            and (lacking is None or lacking not in row.vectors)
        ]

    def _records(self, rows: Sequence[_Row], space: str) -> Records:
        dimension = next((layout.dimension for layout in self._opened if layout.space == space), 0)
        vectors = np.empty((len(rows), dimension), np.float32)
        for place, row in enumerate(rows):
            vectors[place] = row.vectors[space].values
        return Records(
            [row.id for row in rows],
            vectors,
            [space] * len(rows),
            [row.vectors[space].origin for row in rows],
            [row.source for row in rows],
        )
