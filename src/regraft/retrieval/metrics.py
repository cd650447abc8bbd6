"""How good a gallery's answers are."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from regraft.errors import RecipeError, ShapeError
from regraft.retrieval.distances import COSINE, Metric
from regraft.retrieval.mixture import Mixture
from regraft.retrieval.ranking import Positions, relevant_positions
from regraft.retrieval.relevance import Relevance

KS = (1, 5, 10, 100)

MAP_KEY = "map_full_ranking_as_sklearn_average_precision_score"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How well each query was answered, by all items but the query itself.

    Queries without any relevant item say nothing about a gallery. They are left out of every figure, and
    counted in `num_unjudged`. Items at equal distance stand in the worst order, the irrelevant ones first.
    """

    num_queries: int
    """All that were given."""
    judged: Int64[np.ndarray, " m"]
    """Rows of the queries that have a relevant item; every array below has one entry for each."""
    num_relevant: Int64[np.ndarray, " m"]
    average_precision: Float64[np.ndarray, " m"]
    """In [0, 1]: scikit-learn's `average_precision_score` over the full ranking, if no distances are equal.

    The mean, over the relevant items, of the share of relevant items among those up to and including it. Not
    cut off at any k and not interpolated, unlike three other conventions.
    """
    first_rank: Int64[np.ndarray, " m"]
    """Position of the nearest relevant item, from 1."""
    ks: tuple[int, ...]
    found: Int64[np.ndarray, "k m"]
    """For each of `ks`, how many relevant items are among the first k."""

    @property
    def num_unjudged(self) -> int:
        """Queries that have no relevant item, and were left out."""
        return self.num_queries - len(self.judged)

    @property
    def mean_average_precision(self) -> float:
        """Mean of `average_precision`; NaN if no query is judged."""
        return _mean(self.average_precision)

    def cmc(self, k: int) -> float:
        """Share of queries with a relevant item among the first `k`; NaN if no query is judged."""
        return _mean(self.first_rank <= k)

    def recall(self, k: int) -> float:
        """Mean share of a query's relevant items that are among the first `k`; NaN if no query is judged.

        Raises:
            RecipeError: `k` is not one of `ks`.
        """
        if k not in self.ks:
            raise RecipeError(f"Recall was counted at {list(self.ks)}, not at {k}.", hint="Name it in ks=.")
        return _mean(self.found[self.ks.index(k)] / self.num_relevant)

    def to_json(self) -> dict[str, float | int]:
        """The figures, by names that tell their convention."""
        return {
            "num_queries": self.num_queries,
            "num_queries_without_relevant_items": self.num_unjudged,
            MAP_KEY: self.mean_average_precision,
            **{f"cmc@{k}": self.cmc(k) for k in self.ks},
            **{f"recall@{k}": self.recall(k) for k in self.ks},
        }


def evaluate(
    queries: Float[np.ndarray, "q _"],
    gallery: Float[np.ndarray, "_ _"],
    relevance: Relevance,
    *,
    metric: Metric = COSINE,
    ks: Sequence[int] = KS,
) -> Evaluation:
    """Rank the whole gallery for each query, exactly, and say where the relevant items stand.

    Args:
        queries: Finite and not zero.
        gallery: Of the same space. May be a memory-mapped file.
        relevance: What answers what, and which row is the query itself.
        metric: How vectors are compared.
        ks: Where recall is counted, each at least 1.

    Raises:
        ShapeError: Dimensions or numbers of rows that do not fit.
        VectorError: Vectors that cannot be compared.
        RecipeError: A `k` below 1.
    """
    return evaluate_mixture(queries, Mixture.whole(gallery, metric), relevance, ks)[0]


def evaluate_mixture(
    queries: Float[np.ndarray, "q _"], mixture: Mixture, relevance: Relevance, ks: Sequence[int]
) -> tuple[Evaluation, ...]:
    """Evaluate a gallery at every point of its backfilling, in two passes over its vectors.

    Raises:
        ShapeError: Dimensions or numbers of rows that do not fit.
        VectorError: Vectors that cannot be compared.
        RecipeError: A `k` below 1.
    """
    if min(ks, default=1) < 1:
        raise RecipeError(f"k is {min(ks)}; expected at least 1.")
    num_relevant = relevance.num_relevant
    judged = np.flatnonzero(num_relevant > 0)
    shape = (mixture.num_points, len(relevance.query_ids))
    precision, first_rank = np.zeros(shape), np.zeros(shape, np.int64)
    found = np.zeros((len(ks), *shape), np.int64)
    for row, positions in relevant_positions(queries, mixture, relevance):
        precision[:, row] = _average_precision(positions)
        first_rank[:, row] = positions[:, 0]
        # The j-th relevant item is nowhere before position j, so the first k of them decide.
        found[:, :, row] = [np.count_nonzero(positions[:, :k] <= k, axis=1) for k in ks]
    return tuple(
        Evaluation(
            num_queries=len(queries),
            judged=judged,
            num_relevant=num_relevant[judged],
            average_precision=precision[point, judged],
            first_rank=first_rank[point, judged],
            ks=tuple(ks),
            found=found[:, point, judged],
        )
        for point in range(mixture.num_points)
    )


def gap_closed(value: float, old: float, new: float) -> float:
    """Share of the way from the old gallery's figure to the fully re-embedded one's; NaN if there is none."""
    return (value - old) / (new - old) if new != old else float("nan")


def negative_flips(before: Evaluation, after: Evaluation) -> float:
    """Share of queries whose nearest item was relevant before and is not after; NaN if no query is judged.

    A better gallery can still break what users relied on.

    Raises:
        ShapeError: The two are of other queries.
    """
    if not np.array_equal(before.judged, after.judged):
        raise ShapeError("The two evaluations judge other queries; expected the same ones.")
    return _mean((before.first_rank == 1) & (after.first_rank > 1))


@dataclass(frozen=True)
class SubgroupGap:
    """The group of queries that is served worst."""

    worst: str
    worst_value: float
    """Its mean average precision."""
    mean: float
    """Over all queries."""
    values: dict[str, float]
    """Mean average precision of every group, by name."""

    @property
    def gap(self) -> float:
        """How far the worst group is below the mean."""
        return self.mean - self.worst_value


def subgroup_gap(evaluation: Evaluation, groups: Sequence[Hashable]) -> SubgroupGap:
    """Compare groups of queries by mean average precision.

    Args:
        evaluation: At least one query judged.
        groups: The group of every query that was given, judged or not. Groups without a judged query are
            left out.

    Raises:
        ShapeError: Not one group a query, or no query is judged.
    """
    if len(groups) != evaluation.num_queries or len(evaluation.judged) == 0:
        raise ShapeError(
            f"Got groups of {len(groups)} queries for an evaluation of {evaluation.num_queries}, "
            f"{len(evaluation.judged)} of them judged; expected one a query, and a judged query."
        )
    names = np.array([str(groups[row]) for row in evaluation.judged.tolist()])
    values = {
        name: _mean(evaluation.average_precision[names == name]) for name in sorted(set(names.tolist()))
    }
    worst = min(values, key=lambda name: values[name])
    return SubgroupGap(worst, values[worst], evaluation.mean_average_precision, values)


def _average_precision(positions: Positions) -> Float64[np.ndarray, " p"]:
    return (np.arange(1, positions.shape[1] + 1) / positions).mean(axis=1)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) > 0 else float("nan")
