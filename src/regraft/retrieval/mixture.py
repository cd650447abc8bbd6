"""A gallery on its way from transformed vectors to native ones."""

from typing import Final

import numpy as np
from jaxtyping import Float, Int64

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
        transformed: Float[np.ndarray, "n d"],
        native: Float[np.ndarray, "n d"],
        order: Int64[np.ndarray, " n"],
        stops: Int64[np.ndarray, " p"],
        metric: Metric,
    ) -> None:
        _check(transformed, native, order, stops)
        self.metric: Final = metric
        self.dimension: Final = native.shape[1]
        self.num_rows: Final = len(order)
        self.num_points: Final = len(stops)
        # An item that is native from the first point on needs no transformed vector, and the other way round.
        self.first_transformed: Final = int(stops[0])
        self.end_native: Final = int(stops[-1])
        self.transformed: Final = prepared(metric.gallery, transformed, order[self.first_transformed :])
        self.native: Final = prepared(metric.gallery, native, order[: self.end_native])
        self.place: Final = np.empty_like(order)
        self.place[order] = np.arange(len(order))
        self.segment: Final = np.searchsorted(stops, np.arange(len(order)), side="right")
        """By place: the first point at which the item is native."""

    @classmethod
    def whole(cls, vectors: Float[np.ndarray, "n d"], metric: Metric) -> "Mixture":
        """A gallery of one kind of vectors, at its only point."""
        return cls(vectors, vectors, np.arange(len(vectors)), np.zeros(1, np.int64), metric)

    def check_queries(self, queries: Float[np.ndarray, "q d"]) -> None:
        """Raise ShapeError unless the queries have the gallery's dimension."""
        if queries.shape[1] != self.dimension:
            raise ShapeError(
                f"Queries have dimension {queries.shape[1]}; expected the gallery's, {self.dimension}."
            )


def _check(
    transformed: Float[np.ndarray, "n d"],
    native: Float[np.ndarray, "n d"],
    order: Int64[np.ndarray, " n"],
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
