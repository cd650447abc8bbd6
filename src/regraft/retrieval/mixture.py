"""A gallery on its way from transformed vectors to native ones."""

from typing import Final

import numpy as np
from jaxtyping import Float, Int32, Int64

from regraft.errors import RecipeError, ShapeError
from regraft.retrieval.distances import Metric, check_widths, prepared


class Mixture:
    """A gallery at several points of its backfilling, from first to last.

    An item has two vectors and a place in the order of backfilling. At a point, the items in the places
    before the point's stop are native. Items between two stops form a segment and change together.

    Args:
        transformed: Vectors computed from the old ones.
        native: The new model's own, of the same items.
        order: Gallery rows, the first to be backfilled first.
        stops: Numbers of native rows at the points, ascending.
        metric: How vectors are compared.

    Raises:
        ShapeError: The two galleries differ in shape.
        RecipeError: `order` is not a permutation of the rows, or the stops do not ascend from 0 to the rows.
    """

    def __init__(
        self,
        transformed: Float[np.ndarray, "_ _"],
        native: Float[np.ndarray, "_ _"],
        order: Int64[np.ndarray, " _"],
        stops: Int64[np.ndarray, " p"],
        metric: Metric,
    ) -> None:
        _check(transformed, native, order, stops)
        self.metric: Final = metric
        self.dimension: Final = native.shape[1]
        self.num_items: Final = len(order)
        self.num_points: Final = len(stops)
        # An item that is native from the first point on needs no transformed vector, and the other way round.
        self._first, self._last = int(stops[0]), int(stops[-1])
        self._stops = stops
        self._place = np.empty_like(order)
        self._place[order] = np.arange(len(order))
        sources = (transformed, order[self._first :]), (native, order[: self._last])
        self.vectors: Final = prepared(metric.gallery, *sources)
        """Transformed ones, then native ones, both in the order of backfilling; then rows of zeros."""
        self.num_vectors: Final = len(order) - self._first + self._last
        self.num_transformed: Final = len(order) - self._first
        segments = np.searchsorted(stops, np.arange(len(order)), side="right")
        self.segment: Final = np.concatenate([segments[self._first :], segments[: self._last]])
        """The first point, of each vector, at which a transformed one is gone, or a native one is there."""

    def coming(self, points: range) -> slice:
        """The native vectors that were not there before the first of some consecutive points."""
        start = self._stops[points[0] - 1] if points[0] > 0 else 0
        return slice(self.num_transformed + int(start), self.num_transformed + int(self._stops[points[-1]]))

    def going(self, points: range) -> slice:
        """The transformed vectors that are gone at the last of some consecutive points, not before."""
        start = self._stops[points[0] - 1] if points[0] > 0 else self._first
        return slice(int(start) - self._first, int(self._stops[points[-1]]) - self._first)

    def rows_of(self, items: Int64[np.ndarray, " r"]) -> Int64[np.ndarray, " s"]:
        """The rows in `vectors` of some items, one or two each."""
        places = self._place[items]
        transformed = places[places >= self._first] - self._first
        native = places[places < self._last] + self.num_transformed
        return np.concatenate([transformed, native])

    def lifetimes(
        self, rows: Int64[np.ndarray, " s"]
    ) -> tuple[Int32[np.ndarray, " s"], Int32[np.ndarray, " s"]]:
        """The first point at which each of some vectors counts, and the first at which it counts no more."""
        segment, native = self.segment[rows].astype(np.int32), rows >= self.num_transformed
        return np.where(native, segment, 0), np.where(native, self.num_points, segment)

    @classmethod
    def whole(cls, vectors: Float[np.ndarray, "n d"], metric: Metric) -> "Mixture":
        """A gallery of one kind of vectors, at its only point."""
        return cls(vectors, vectors, np.arange(len(vectors)), np.zeros(1, np.int64), metric)

    def check_queries(self, queries: Float[np.ndarray, "q _"]) -> None:
        """Raise ShapeError unless the queries have the gallery's dimension."""
        if queries.shape[1] != self.dimension:
            raise ShapeError(
                f"Queries have dimension {queries.shape[1]}; expected the gallery's, {self.dimension}."
            )


def _check(
    transformed: Float[np.ndarray, "_ _"],
    native: Float[np.ndarray, "_ _"],
    order: Int64[np.ndarray, " _"],
    stops: Int64[np.ndarray, " p"],
) -> None:
    check_widths(transformed=transformed, native=native)
    num_rows = len(native)
    if not len(transformed) == num_rows == len(order):
        raise ShapeError(
            f"Got {len(transformed)} transformed vectors, {num_rows} native ones and an order of "
            f"{len(order)} rows; expected one of each an item."
        )
    if not np.array_equal(np.sort(order), np.arange(num_rows)):
        raise RecipeError(f"The order does not name each of the {num_rows} rows once.")
    if len(stops) == 0 or stops[0] < 0 or stops[-1] > num_rows or (np.diff(stops) < 0).any():
        raise RecipeError(
            f"The stops are {stops.tolist()}; expected numbers from 0 to {num_rows}, ascending."
        )
