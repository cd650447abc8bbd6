"""Probabilities of classes, checked before anything is computed from them."""

import numpy as np
from jaxtyping import Float64, Int64
from torch import Tensor

from regraft.errors import SampleError, ShapeError

Values = np.ndarray | Tensor
"""An array or a tensor, on any device, of any type of number."""

TOLERANCE = 1e-3
"""How far a sum of probabilities may be from 1. Float32 stays below 1e-5; bfloat16 does not stay below."""


def log_probabilities(logits: Values) -> Float64[np.ndarray, "n c"]:
    """The logarithm of the softmax over classes, in nats.

    Args:
        logits: `(n c)`; minus infinity rules a class out.

    Raises:
        ShapeError: Not a matrix.
        SampleError: There are none, or a row has no finite largest value.
    """
    scores = matrix(logits)
    largest = scores.max(axis=1, keepdims=True)
    if not np.isfinite(largest).all():
        row = int(np.flatnonzero(~np.isfinite(largest[:, 0]))[0])
        raise SampleError(
            f"The logits of sample {row} have the largest value {largest[row, 0]:g}; expected a finite one.",
            hint="Look for NaN in the pictures or in the weights.",
        )
    shifted = scores - largest
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def checked_probabilities(values: Values) -> Float64[np.ndarray, "n c"]:
    """Probabilities `(n c)` as they are, once it is clear that they are some.

    Raises:
        ShapeError: Not a matrix.
        SampleError: There are none, one is negative or NaN, or a row does not sum to 1.
    """
    probabilities = matrix(values)
    sums = probabilities.sum(axis=1)
    # Written so that NaN fails too.
    good = (probabilities >= 0).all(axis=1) & (np.abs(sums - 1) <= TOLERANCE)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        low, high = probabilities[row].min(), probabilities[row].max()
        raise SampleError(
            f"Sample {row} has values from {low:g} to {high:g} that sum to {sums[row]:g}; "
            "expected probabilities, which are at least 0 and sum to 1.",
            hint="Give the softmax of logits, in float32 or wider.",
        )
    return probabilities


def checked_log_probabilities(values: Values) -> Float64[np.ndarray, "n c"]:
    """Logarithms of probabilities `(n c)`, in nats, as they are, once it is clear that they are some.

    Raises:
        ShapeError: Not a matrix.
        SampleError: There are none, or the exponentials of a row are no probabilities.
    """
    logarithms = matrix(values)
    # Exponentials above 1 are refused all the same, so they need not overflow on the way.
    sums = np.exp(np.minimum(logarithms, 1.0)).sum(axis=1)
    good = np.abs(sums - 1) <= TOLERANCE
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise SampleError(
            f"Sample {row} has values from {logarithms[row].min():g} to {logarithms[row].max():g}, whose "
            "exponentials do not sum to 1; expected logarithms of probabilities.",
            hint="log_probabilities(logits) makes them.",
        )
    return logarithms


def checked_labels(labels: Values, num_samples: int, num_classes: int) -> Int64[np.ndarray, " n"]:
    """Class indices `(n)` as they are, once it is clear that each has a sample and a class.

    Raises:
        ShapeError: Not one label a sample.
        SampleError: Labels that are no whole numbers, or are no classes.
    """
    values = _array(labels)
    if values.shape != (num_samples,):
        raise ShapeError(f"The labels are {values.shape}; expected one for each of {num_samples} samples.")
    if not np.issubdtype(values.dtype, np.integer):
        raise SampleError(f"The labels are {values.dtype}; expected whole numbers, the indices of classes.")
    if values.min() < 0 or values.max() >= num_classes:
        raise SampleError(
            f"The labels run from {values.min()} to {values.max()}; expected 0 to {num_classes - 1} for "
            f"{num_classes} classes."
        )
    return values.astype(np.int64)


def matrix(values: Values) -> Float64[np.ndarray, "n c"]:
    """Numbers `(n c)` in float64, at least one sample of at least one class.

    Raises:
        ShapeError: Not a matrix.
        SampleError: There are no samples.
    """
    array = _array(values)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ShapeError(f"The values are {array.shape}; expected samples and classes, (n c).")
    if len(array) == 0:
        raise SampleError("There are no samples to judge by; expected at least one.")
    return array.astype(np.float64)


def _array(values: Values) -> np.ndarray:
    if isinstance(values, Tensor):
        # NumPy knows no bfloat16.
        wide = values.double() if values.is_floating_point() else values
        return wide.numpy(force=True)
    return np.asarray(values)
