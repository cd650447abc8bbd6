"""A gallery in Qdrant: in this process, or on a server."""

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from tempfile import SpooledTemporaryFile

import numpy as np
from jaxtyping import Float, Float32

from regraft.errors import StoreError
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
from regraft.retrieval.store.protocol import Capabilities, Hits, Layout, Origin, Records
from regraft.retrieval.store.qdrant_engine import Engine, Filter, Payload, Point
from regraft.retrieval.store.qdrant_rows import (
    ORIGINS,
    SPACES_ID,
    Space,
    Spaces,
    directions,
    fields_of,
    new_row,
    point_id,
    points_of,
    records_from,
)

# Hits asked of the engine beyond k, so that scores that tie at the edge are settled by their ids.
NUM_SPARE = 32
# What a scan keeps in memory before it goes to a temporary file.
SPOOLED_BYTES = 64 * 2**20
PAGE_ROWS = 4096


class QdrantStore:
    """A `VectorStore` for one writer, on either of Qdrant's engines.

    A row is one point, written whole in one command: its vectors and origins cannot part. Which space is
    served is a point too. What else is guaranteed differs by engine; see its capabilities.

    Qdrant has no snapshots: a scan first copies what it will yield, to a temporary file if it is much.

    Without an index a search is exact and reads every vector; see `index`.

    Args:
        engine: Where the points are.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def capabilities(self) -> Capabilities:
        """What this store guarantees."""
        return self.engine.capabilities

    def close(self) -> None:
        """Let go of the engine's place; a later call takes it again."""
        with self.engine.turn:
            self.engine.close()

    @property
    def layout(self) -> Layout | None:
        """The space that is served; `None` before the first `put`."""
        return next(iter(self.spaces), None)

    @property
    def spaces(self) -> tuple[Layout, ...]:
        """Every open space, the served one first."""
        with self.engine.turn:
            return self._spaces().layouts

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
        with self.engine.turn:
            spaces = self._spaces()
            layout = next(iter(spaces.layouts), None)
            records = checked_records(
                ids, vectors, space=space, origin=origin, sources=sources, layout=layout
            )
            if len(records) == 0:
                return 0
            served = spaces.open[0] if spaces.open else Space(0, Layout(space, records.vectors.shape[1]))
            rows = map(new_row, records.ids, records.sources)
            fields = fields_of(served, records.vectors, origin)
            points = points_of([row | each for row, each in zip(rows, fields, strict=True)], [served])
            if spaces.open:
                self.engine.write(points)
            else:
                first = Spaces((served,), 1).point()
                self.engine.make({served.vector: served.layout.dimension}, served.origin, [first, *points])
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
        with self.engine.turn:
            spaces = self._spaces()
            _, stored = checked_fill(
                ids, vectors, space=space, origin=origin, spaces=spaces.layouts, seen=seen
            )
            target = _opened(space, spaces)
            present = {str(point.payload["id"]): point.payload for point in self._points(ids)}
            chosen = present.keys() if seen is None else set(unchanged_in(self, seen, space))
            fields = dict(zip(ids, fields_of(target, stored, origin), strict=True))
            rows = [payload | fields[name] for name, payload in present.items() if name in chosen]
            if rows:
                self.engine.write(points_of(rows, spaces.open))
        return len(rows)

    def get(self, ids: Sequence[str], *, space: str | None = None) -> Records:
        """Read rows by id, in the order asked; see `VectorStore.get`."""
        with self.engine.turn:
            chosen = self._spaces().named(space)
            rows = {} if chosen is None else self._rows(ids, chosen)
        missing = [name for name in ids if name not in rows]
        if missing:
            raise unknown_ids(missing)
        return Records.empty(0) if chosen is None else records_from([rows[name] for name in ids], chosen)

    def find(self, ids: Sequence[str], *, space: str | None = None) -> Records:
        """Read those of some rows that are present and have a vector in a space; see `VectorStore.find`."""
        with self.engine.turn:
            chosen = self._spaces().named(space)
            if chosen is None:
                return Records.empty(0)
            rows = self._rows(ids, chosen)
        return records_from([rows[name] for name in ids if name in rows], chosen)

    def search(self, queries: Float[np.ndarray, "q d"], k: int, *, space: str) -> Hits:
        """Find the `k` rows of highest cosine for each query; see `VectorStore.search`.

        With an index the rows found are almost always the best ones; their scores are exact either way.
        """
        with self.engine.turn:
            spaces = self._spaces()
            layout = next(iter(spaces.layouts), None)
            checked = checked_queries(queries, k, space=space, layout=layout)
            if not spaces.open:
                return Hits.empty(len(checked))
            answers = [self._nearest(query, k, spaces) for query in checked]
        return Hits([ids for ids, _ in answers], [scores for _, scores in answers])

    def scan(
        self,
        *,
        space: str | None = None,
        origin: Origin | None = None,
        lacking: str | None = None,
        batch_rows: int = PAGE_ROWS,
    ) -> Iterator[Records]:
        """Stream the rows that are present now; see `VectorStore.scan`. They are copied first."""
        check_batch_rows(batch_rows)
        batches = self._copied(space, origin, lacking, batch_rows)
        next(batches)  # runs up to the end of the copying
        return batches

    def count(
        self, *, space: str | None = None, origin: Origin | None = None, lacking: str | None = None
    ) -> int:
        """Count the rows that `scan` would yield."""
        with self.engine.turn:
            spaces = self._spaces()
            chosen = spaces.named(space)
            return 0 if chosen is None else self.engine.count(_filter(spaces, chosen, origin, lacking))

    def drop(self, ids: Sequence[str]) -> int:
        """Remove rows; see `VectorStore.drop`."""
        with self.engine.turn:
            present = [point.id for point in self._points(ids)] if self._spaces().open else []
            if present:
                self.engine.remove(present)
        return len(present)

    def open_space(self, layout: Layout) -> None:
        """Make room for the vectors of another space; see `VectorStore.open_space`."""
        with self.engine.turn:
            spaces = self._spaces()
            if check_opens(layout, spaces.layouts):
                space = Space(spaces.next_number, layout)
                if not layout.packed:
                    self.engine.open_vector(space.vector, layout.dimension)
                self.engine.open_field(space.origin)
                # From here on the space is open. Had the process died before, another would get its number.
                self._declare(replace(spaces, open=(*spaces.open, space), next_number=spaces.next_number + 1))
            self._sweep()

    def serve(self, space: str) -> None:
        """Answer in `space` from now on; see `VectorStore.serve`."""
        with self.engine.turn:
            spaces = self._spaces()
            check_servable(space, spaces.layouts)
            chosen = _opened(space, spaces)
            lacking = self._payloads(_filter(spaces, spaces.open[0], None, space), PAGE_ROWS)
            check_complete(space, [str(payload["id"]) for page in lacking for payload in page])
            others = sorted((each for each in spaces.open if each != chosen), key=lambda each: each.number)
            self._declare(replace(spaces, open=(chosen, *others)))

    def close_space(self, space: str) -> None:
        """Forget every vector of a space that is not served; see `VectorStore.close_space`."""
        with self.engine.turn:
            spaces = self._spaces()
            check_closable(space, next(iter(spaces.layouts), None))
            closed = spaces.named(space)
            if closed is not None:
                others = tuple(each for each in spaces.open if each != closed)
                self._declare(replace(spaces, open=others, closed=(*spaces.closed, closed.number)))
            self._sweep()

    def index(self, *, neighbours: int = 16, build_candidates: int = 100) -> None:
        """Build the graphs of all spaces, or bring them up to date, so that a search reads few vectors.

        Rows put or filled later are found without a graph, more slowly, until `tidy` takes them in. A gallery
        of less than about two megabytes of vectors is searched whole all the same.

        Args:
            neighbours: Edges a row in the graph, Qdrant's `m`.
            build_candidates: Rows in sight while a row finds its edges, Qdrant's `ef_construct`.

        Raises:
            StoreError: Nothing was ever put.
        """
        with self.engine.turn:
            spaces = self._spaces()
            if not spaces.open:
                raise StoreError(f"{self.engine.place} holds nothing yet; expected rows to index.")
            vectors = {each.vector: each.layout.dimension for each in spaces.open if not each.layout.packed}
            # What a process left that died while it opened a space.
            self.engine.close_vector(Space(spaces.next_number, Layout("", 0)).vector)
            self.engine.index(vectors, neighbours, build_candidates)
            self._declare(replace(spaces, indexed=True))

    def tidy(self, *, space: str | None = None) -> None:
        """Bring the graphs of all spaces up to date, if there are any; see `VectorStore.tidy`."""
        with self.engine.turn:
            spaces = self._spaces()
            if check_tidied(space, spaces.layouts) is not None and spaces.indexed:
                self.engine.tidy()

    def _spaces(self) -> Spaces:
        found = self.engine.read([SPACES_ID])
        return Spaces.read(found[0], self.engine.place) if found else Spaces((), 0)

    def _declare(self, spaces: Spaces) -> None:
        """Make it so, in one step."""
        self.engine.write([spaces.point()])

    def _sweep(self) -> None:
        """Remove what closed spaces left."""
        spaces = self._spaces()
        for number in spaces.closed:
            left = Space(number, Layout("", 0))
            self.engine.close_vector(left.vector)
            self.engine.close_fields(Filter(left.origin, ORIGINS), [left.exact, left.origin])
        if spaces.closed:
            self._declare(replace(spaces, closed=()))

    def _points(self, ids: Sequence[str]) -> list[Point]:
        return self.engine.read([point_id(name) for name in dict.fromkeys(ids)])

    def _rows(self, ids: Sequence[str], space: Space) -> dict[str, Payload]:
        """The payloads of rows that are present and have a vector in a space, by id."""
        payloads = [point.payload for point in self._points(ids)]
        return {str(payload["id"]): payload for payload in payloads if space.origin in payload}

    def _payloads(self, chosen: Filter, page_rows: int) -> Iterator[list[Payload]]:
        after: str | None = None
        while True:
            points, after = self.engine.walk(chosen, after, page_rows)
            if points:
                yield [point.payload for point in points]
            if after is None:
                return

    def _copied(
        self, space: str | None, origin: Origin | None, lacking: str | None, batch_rows: int
    ) -> Iterator[Records]:
        """Yield no rows once everything is copied, then the batches."""
        with SpooledTemporaryFile(max_size=SPOOLED_BYTES) as copy:
            num_batches = 0
            with self.engine.turn:
                spaces = self._spaces()
                chosen = spaces.named(space)
                if chosen is not None:
                    for page in self._payloads(_filter(spaces, chosen, origin, lacking), batch_rows):
                        pickle.dump(records_from(page, chosen), copy)
                        num_batches += 1
            copy.seek(0)
            yield Records.empty(0)
            for _ in range(num_batches):
                yield pickle.load(copy)

    def _nearest(
        self, query: Float32[np.ndarray, " d"], k: int, spaces: Spaces
    ) -> tuple[list[str], Float32[np.ndarray, " k_or_n"]]:
        """Score every point that may be among the best, as far as the engine's rounding can tell.

        The engine sums in float32, and takes lengths within 1e-6 of one for one.
        """
        served = spaces.open[0]
        rounding = 4 * served.layout.dimension * 2.0**-24 + 4e-6
        direction, num_points = directions(query[None])[0], k + NUM_SPARE
        while True:
            hits = self.engine.nearest(served.vector, direction, num_points, exact=not spaces.indexed)
            edge = hits[k - 1][1] - rounding if len(hits) >= k else -2.0
            near = [point for point, score in hits if score >= edge]
            if len(near) < num_points:
                break
            num_points *= 4  # all of them tie, so there may be more
        found = records_from([point.payload for point in self.engine.read(near)], served)
        return best(found.ids, cosines(query[None], found.vectors)[0], k)


def _opened(space: str, spaces: Spaces) -> Space:
    """A space that is known to be open."""
    return next(each for each in spaces.open if each.layout.space == space)


def _filter(spaces: Spaces, space: Space, origin: Origin | None, lacking: str | None) -> Filter:
    """The rows with a vector in a space, of an origin, and without one in another, each only if named."""
    other = None if lacking is None else spaces.named(lacking)
    any_of = ORIGINS if origin is None else (origin,)
    return Filter(space.origin, any_of, None if other is None else other.origin)
