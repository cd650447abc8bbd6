"""Which transformed vectors to replace first. Every score is higher where a row is needed sooner."""

import numpy as np
from jaxtyping import Float, Int


def ranking(scores: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The rows from the highest score to the lowest; equal ones in the order they have."""
    return np.argsort(-scores, kind="stable")


def entropy(probabilities: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " n"]:
    """How undecided a head is about a transformed vector, in nats."""
    logarithms = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    return -(probabilities * logarithms).sum(axis=1)


def closeness_of_two(probabilities: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " n"]:
    """How near the second likeliest class comes to the likeliest: 0 if sure, 1 if they are equal.

    One minus the margin of active learning.
    """
    best = np.partition(probabilities, -2, axis=1)[:, -2:]
    return 1 - np.abs(best[:, 1] - best[:, 0])
