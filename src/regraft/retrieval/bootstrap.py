"""How sure a mean over queries is."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from regraft.errors import RecipeError, ShapeError

NUM_RESAMPLES = 2000
CHUNK = 2**20
"""Numbers drawn at a time."""


@dataclass(frozen=True)
class Interval:
    """A mean, and where it would likely have come out with other queries of the same kind."""

    mean: float
    low: float
    high: float
    confidence: float = 0.95
    """Chance that the interval covers the mean of all such queries."""

    def to_json(self) -> dict[str, float]:
        """The four numbers."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "confidence": self.confidence}


def interval_of_mean(
    values: Float64[np.ndarray, " q"],
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = 0.95,
) -> Interval:
    """The mean of one figure a query, with its percentile bootstrap interval over queries.

    Args:
        values: One a query, at least one.
        seed: Decides the draws; the same seed gives the same interval.
        num_resamples: Samples of as many queries, drawn with replacement.
        confidence: Between 0 and 1.

    Raises:
        ShapeError: No values.
        RecipeError: A setting out of range.
    """
    if len(values) == 0:
        raise ShapeError("An interval was asked for of no values; expected at least one.")
    if num_resamples < 1 or not 0 < confidence < 1:
        raise RecipeError(
            f"{num_resamples} resamples and confidence {confidence:g}; "
            "expected at least 1, and a share between 0 and 1."
        )
    draw = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    step = max(1, CHUNK // len(values))
    for start in range(0, num_resamples, step):
        part = means[start : start + step]
        part[:] = values[draw.integers(0, len(values), (len(part), len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(values.mean()), float(low), float(high), confidence)


def paired_bootstrap(
    a: Float64[np.ndarray, " _"],
    b: Float64[np.ndarray, " _"],
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = 0.95,
) -> Interval:
    """By how much `a` is better than `b`, as the mean difference over the same queries, with its interval.

    Some queries are hard for every method; comparing each with itself takes that out.

    Args:
        a: A figure of one method, such as average precision, one a query.
        b: The other method's, of the same queries in the same order.
        seed: Decides the draws.
        num_resamples: Samples of as many queries, drawn with replacement.
        confidence: Between 0 and 1.

    Raises:
        ShapeError: Lengths that differ, or no values.
        RecipeError: A setting out of range.
    """
    if len(a) != len(b):
        raise ShapeError(f"Got figures of {len(a)} and of {len(b)} queries; expected the same queries.")
    return interval_of_mean(a - b, seed=seed, num_resamples=num_resamples, confidence=confidence)
