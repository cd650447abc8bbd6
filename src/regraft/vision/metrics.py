"""How right a classifier is."""

import numpy as np
from jaxtyping import Float, Int, Int64
from torch import Tensor

from regraft.errors import RecipeError, SampleError
from regraft.vision.probabilities import (
    Values,
    checked_labels,
    checked_log_probabilities,
    checked_probabilities,
    matrix,
)


def num_correct(logits: Float[Tensor, "b n"], labels: Int[Tensor, " b"], *, k: int = 1) -> int:
    """Count samples whose class is among the `k` largest logits.

    Of equal logits at the boundary, which ones count is up to the sort; continuous outputs have none.
    """
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return int((best == labels[:, None]).any(1).sum())


def top_k_accuracy(scores: Values, labels: Values, *, k: int = 1) -> float:
    """Share of samples whose class is among the `k` with the largest scores, in [0, 1].

    Args:
        scores: `(n c)` logits, probabilities or their logarithms: larger is likelier.
        labels: `(n)` the index of each sample's class.
        k: At least 1; more than there are classes counts everything.

    Raises:
        ShapeError: Shapes that do not fit.
        SampleError: No samples, NaN among the scores, or labels that are no classes.
        RecipeError: `k` is below 1.
    """
    if k < 1:
        raise RecipeError(f"k is {k}; expected at least 1.")
    return float(np.mean(label_ranks(scores, labels) < k))


def label_ranks(scores: Values, labels: Values) -> Int64[np.ndarray, " n"]:
    """How many classes each sample scores higher than its own; 0 where it is right.

    Of equal scores the first class counts as the higher one, as `argmax` has it.

    Args:
        scores: `(n c)`, larger is likelier.
        labels: `(n)` the index of each sample's class.

    Raises:
        ShapeError: Shapes that do not fit.
        SampleError: No samples, NaN among the scores, or labels that are no classes.
    """
    values = matrix(scores)
    if np.isnan(values).any():
        raise SampleError(
            f"{np.count_nonzero(np.isnan(values))} of {values.size} scores are NaN; expected numbers.",
            hint="Look for NaN in the pictures or in the weights.",
        )
    classes = checked_labels(labels, *values.shape)[:, None]
    own = np.take_along_axis(values, classes, axis=1)
    earlier = np.arange(values.shape[1]) < classes
    return np.count_nonzero((values > own) | ((values == own) & earlier), axis=1)


def negative_log_likelihood(log_probabilities: Values, labels: Values) -> float:
    """Mean of minus the logarithm of the probability given to the right class, in nats; 0 is best.

    It is infinite if a right class was ruled out. The same as cross-entropy without label smoothing.

    Args:
        log_probabilities: `(n c)`, such as `probabilities.log_probabilities` makes of logits.
        labels: `(n)` the index of each sample's class.

    Raises:
        ShapeError: Shapes that do not fit.
        SampleError: No samples, values that are no logarithms of probabilities, or labels that are no
            classes.
    """
    values = checked_log_probabilities(log_probabilities)
    classes = checked_labels(labels, *values.shape)
    return -float(values[np.arange(len(values)), classes].mean())


def brier_score(probabilities: Values, labels: Values) -> float:
    """Mean over samples of the squared error of the probabilities, summed over classes, in [0, 2]; 0 is best.

    This is Brier's own convention (Monthly Weather Review 78, 1950), for any number of classes. Of two
    classes it is twice what is often called the Brier score, which counts one of them.

    Args:
        probabilities: `(n c)`.
        labels: `(n)` the index of each sample's class.

    Raises:
        ShapeError: Shapes that do not fit.
        SampleError: No samples, values that are no probabilities, or labels that are no classes.
    """
    errors = checked_probabilities(probabilities)
    classes = checked_labels(labels, *errors.shape)
    errors[np.arange(len(errors)), classes] -= 1
    return float(np.square(errors).sum(axis=1).mean())
