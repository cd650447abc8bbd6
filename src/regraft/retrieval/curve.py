"""How good a gallery is while it is backfilled, and when to stop."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from regraft.errors import RecipeError, ShapeError
from regraft.retrieval.distances import COSINE, Metric
from regraft.retrieval.metrics import KS, MAP_KEY, Evaluation, evaluate_mixture
from regraft.retrieval.mixture import Mixture
from regraft.retrieval.relevance import Relevance

NUM_POINTS = 22
"""Both ends and 20 between them, as in FastFill's evaluation."""

Values = Float64[np.ndarray, " p"]


@dataclass(frozen=True, eq=False)
class Curve:
    """Evaluations of one gallery, from nothing backfilled to everything."""

    shares: Values
    """Share of the backfilling at each point, in [0, 1], ascending."""
    num_native: Int64[np.ndarray, " p"]
    """Native rows at each point."""
    evaluations: tuple[Evaluation, ...]

    @property
    def mean_average_precision(self) -> Values:
        """At each point."""
        return np.array([each.mean_average_precision for each in self.evaluations])

    def cmc(self, k: int) -> Values:
        """At each point."""
        return np.array([each.cmc(k) for each in self.evaluations])

    @property
    def auc(self) -> float:
        """Area under the curve of mean average precision, as FastFill defines it: see `auc`."""
        return auc(self.mean_average_precision)

    @property
    def average_precision_auc(self) -> Float64[np.ndarray, " m"]:
        """Each judged query's share in `auc`; what a paired bootstrap of two curves is drawn from."""
        return np.mean([each.average_precision for each in self.evaluations], axis=0)

    def to_json(self) -> dict[str, object]:
        """The figures of every point, and the areas."""
        values = self.mean_average_precision
        return {
            "auc_" + MAP_KEY: auc(values),
            "auc_trapezoid_" + MAP_KEY: auc_trapezoid(self.shares, values),
            "points": [
                {"share": share, "num_native": num, **each.to_json()}
                for share, num, each in zip(
                    self.shares.tolist(), self.num_native.tolist(), self.evaluations, strict=True
                )
            ],
        }


def backfilling_curve(
    queries: Float[np.ndarray, "q _"],
    transformed: Float[np.ndarray, "_ _"],
    native: Float[np.ndarray, "_ _"],
    order: Int64[np.ndarray, " _"],
    relevance: Relevance,
    *,
    metric: Metric = COSINE,
    ks: Sequence[int] = KS,
    stops: Sequence[int] | None = None,
) -> Curve:
    """Evaluate a gallery at every point of its backfilling, at little more than the cost of two evaluations.

    Args:
        queries: Of the new model.
        transformed: The gallery as computed from the old model's vectors.
        native: The gallery as encoded by the new model.
        order: Gallery rows, the first to be backfilled first.
        relevance: What answers what, and which row is the query itself.
        metric: How vectors are compared.
        ks: Where recall is counted.
        stops: Numbers of native rows at the points, ascending; `None` for FastFill's 22 points (2303.04766),
            floor(i n / 21) for i = 0 to 21.

    Raises:
        ShapeError: Dimensions or numbers of rows that do not fit.
        VectorError: Vectors that cannot be compared.
        RecipeError: An order that is no permutation, stops that do not ascend, or a `k` below 1.
    """
    num_rows, last = len(native), NUM_POINTS - 1
    if stops is None:
        num_native = np.arange(NUM_POINTS) * num_rows // last
        shares = np.arange(NUM_POINTS) / last
    else:
        num_native = np.array(stops, np.int64)
        shares = num_native / max(1, num_rows)
    mixture = Mixture(transformed, native, order, num_native, metric)
    return Curve(shares, num_native, evaluate_mixture(queries, mixture, relevance, ks))


def auc(values: Values) -> float:
    """Area under a curve of equidistant points as FastFill defines it: the plain mean of the values.

    The end points so weigh as much as the inner ones; `auc_trapezoid` halves them.
    """
    return float(np.mean(values))


def auc_trapezoid(shares: Float64[np.ndarray, " _"], values: Values) -> float:
    """Area under the straight lines between the points, divided by the width they span.

    Raises:
        RecipeError: The points span no width.
    """
    _check(shares, values)
    if not shares[-1] > shares[0]:
        raise RecipeError(f"A curve from share {shares[0]:g} to {shares[-1]:g} has no area.")
    return float(np.trapezoid(values, shares) / (shares[-1] - shares[0]))


def beta95(shares: Float64[np.ndarray, " _"], values: Values, old: float) -> float | None:
    """The smallest share at which 95 % of the gain over the old gallery's `old` is reached.

    The gain is the last point's, which is the new model's own gallery; `None` if it is not above `old`.
    """
    _check(shares, values)
    gain = values[-1] - old
    if not gain > 0:
        return None
    return float(shares[np.flatnonzero(values >= old + 0.95 * gain)[0]])


def worst_dip(values: Values, old: float) -> float:
    """How far the curve falls below both its start and the old gallery's `old`: zero or negative.

    Backfilling more is not always better; a dip means that users are worse off for a while.
    """
    return min(0.0, float(np.min(values)) - max(float(values[0]), old))


def recommended_stop(shares: Float64[np.ndarray, " _"], values: Values, tolerance: float = 0.005) -> float:
    """The smallest share after which no amount of further backfilling gains more than `tolerance`.

    It looks at all that follows, not at the last few per cent: a curve may be flat at first and rise later,
    and it may peak before everything is native.
    """
    _check(shares, values)
    best_ahead = np.maximum.accumulate(values[::-1])[::-1]
    return float(shares[np.flatnonzero(best_ahead - values <= tolerance)[0]])


def _check(shares: Float64[np.ndarray, " _"], values: Values) -> None:
    if len(shares) != len(values) or len(shares) == 0:
        raise ShapeError(f"Got {len(shares)} shares and {len(values)} values; expected one each a point.")
