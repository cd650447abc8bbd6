"""Whether a classifier is right as often as it says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from regraft.errors import RecipeError
from regraft.vision.metrics import label_ranks
from regraft.vision.probabilities import Values, checked_probabilities

NUM_BINS = 15
"""As many as Guo et al. took, and most after them."""


@dataclass(frozen=True, eq=False)
class Bins:
    """Samples sorted by confidence, the probability of the class that was chosen."""

    num: Int64[np.ndarray, " m"]
    """Samples in each bin, which may be none."""
    num_right: Int64[np.ndarray, " m"]
    """Those of them that were named right."""
    total_confidence: Float64[np.ndarray, " m"]
    """The sum of their confidences."""

    @property
    def accuracy(self) -> Float64[np.ndarray, " m"]:
        """Share named right in each bin; NaN where it is empty."""
        return self._mean(self.num_right)

    @property
    def confidence(self) -> Float64[np.ndarray, " m"]:
        """Mean confidence in each bin; NaN where it is empty."""
        return self._mean(self.total_confidence)

    @property
    def error(self) -> float:
        """Mean over samples of the distance between their bin's accuracy and its confidence, in [0, 1]."""
        return float(np.abs(self.num_right - self.total_confidence).sum() / self.num.sum())

    @property
    def overconfidence(self) -> float:
        """Mean confidence less accuracy over all samples, in [-1, 1]; above 0 it is surer than right."""
        return float((self.total_confidence.sum() - self.num_right.sum()) / self.num.sum())

    def to_json(self) -> list[dict[str, float | int | None]]:
        """One entry a bin; accuracy and confidence are `None` where it is empty."""
        return [
            {"num": num, "accuracy": right / num if num else None, "confidence": total / num if num else None}
            for num, right, total in zip(
                self.num.tolist(), self.num_right.tolist(), self.total_confidence.tolist(), strict=True
            )
        ]

    @classmethod
    def from_json(cls, written: Sequence[Mapping[str, Any]]) -> "Bins":
        """What `to_json` wrote."""
        num = np.array([one["num"] for one in written], np.int64)
        accuracy, confidence = (
            np.array([one[name] or 0.0 for one in written]) for name in ("accuracy", "confidence")
        )
        return cls(num, np.rint(num * accuracy).astype(np.int64), num * confidence)

    def _mean(self, totals: np.ndarray) -> Float64[np.ndarray, " m"]:
        return np.divide(totals, self.num, out=np.full(len(self.num), np.nan), where=self.num > 0)


def confidence_bins(probabilities: Values, labels: Values, *, num_bins: int = NUM_BINS) -> Bins:
    """Bins of equal width, for a reliability diagram: bin i covers [i / m, (i + 1) / m).

    The last is closed on the right, so that a confidence of exactly 1 has a place.

    Args:
        probabilities: `(n c)`.
        labels: `(n)` the index of each sample's class.
        num_bins: m, at least 1.

    Raises:
        ShapeError: Shapes that do not fit.
        SampleError: No samples, values that are no probabilities, or labels that are no classes.
        RecipeError: `num_bins` is below 1.
    """
    confidence, is_right = _judged(probabilities, labels, num_bins)
    # Divided, and not a linspace, whose 3/5 is a little more than 0.6.
    inner_edges = np.arange(1, num_bins) / num_bins
    return _binned(confidence, is_right, np.searchsorted(inner_edges, confidence, side="right"), num_bins)


def equal_mass_bins(probabilities: Values, labels: Values, *, num_bins: int = NUM_BINS) -> Bins:
    """Bins that hold equally many samples, to one, from the least to the most confident.

    Samples of equal confidence share a bin, whatever that does to its size, because otherwise the order
    of samples would decide which of them is where.

    Args:
        probabilities: `(n c)`.
        labels: `(n)` the index of each sample's class.
        num_bins: At least 1; of more bins than samples some are empty.

    Raises:
        ShapeError: Shapes that do not fit.
        SampleError: No samples, values that are no probabilities, or labels that are no classes.
        RecipeError: `num_bins` is below 1.
    """
    confidence, is_right = _judged(probabilities, labels, num_bins)
    num_below = np.searchsorted(np.sort(confidence), confidence, side="left")
    return _binned(confidence, is_right, num_below * num_bins // len(confidence), num_bins)


def calibration_error(probabilities: Values, labels: Values, *, num_bins: int = NUM_BINS) -> float:
    """Expected calibration error (ECE) with the L1 norm: the `error` of `confidence_bins`, in [0, 1].

    Source: Guo et al., arXiv 1706.04599, equation 3. It says whether confidences can be believed, and
    nothing else: whoever always names the most frequent class, as sure as that is frequent, makes no error.

    Raises:
        ShapeError: Shapes that do not fit.
        SampleError: No samples, values that are no probabilities, or labels that are no classes.
        RecipeError: `num_bins` is below 1.
    """
    return confidence_bins(probabilities, labels, num_bins=num_bins).error


def adaptive_calibration_error(probabilities: Values, labels: Values, *, num_bins: int = NUM_BINS) -> float:
    """Calibration error with the L1 norm over bins of equal mass: the `error` of `equal_mass_bins`.

    A trained network is sure of most samples, so that bins of equal width leave all but the last few
    nearly empty (Nixon et al., arXiv 1904.01685). Of the chosen class only, as in `calibration_error`.

    Raises:
        ShapeError: Shapes that do not fit.
        SampleError: No samples, values that are no probabilities, or labels that are no classes.
        RecipeError: `num_bins` is below 1.
    """
    return equal_mass_bins(probabilities, labels, num_bins=num_bins).error


def _judged(probabilities: Values, labels: Values, num_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidence of each sample, and whether it was named right."""
    if num_bins < 1:
        raise RecipeError(f"num_bins is {num_bins}; expected at least 1.")
    values = checked_probabilities(probabilities)
    return values.max(axis=1), label_ranks(values, labels) == 0


def _binned(confidence: np.ndarray, is_right: np.ndarray, place: np.ndarray, num_bins: int) -> Bins:
    num = np.bincount(place, minlength=num_bins)
    num_right = np.bincount(place[is_right], minlength=num_bins)
    return Bins(num, num_right, np.bincount(place, confidence, minlength=num_bins))
