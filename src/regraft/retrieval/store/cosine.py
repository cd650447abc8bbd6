"""Cosine scores that do not depend on how the rows were grouped."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32


def cosines(
    queries: Float32[np.ndarray, "q d"], vectors: Float32[np.ndarray, "n d"]
) -> Float32[np.ndarray, "q n"]:
    """Return the cosine of every query with every vector.

    The sums run in float64: in float32 a matrix product gives equal vectors slightly different scores
    depending on where they stand in the matrix, and ties could not be told from noise.
    """
    return (_unit(queries) @ _unit(vectors).T).astype(np.float32)


def best(
    ids: Sequence[str], scores: Float32[np.ndarray, " n"], k: int
) -> tuple[list[str], Float32[np.ndarray, " k_or_n"]]:
    """Return the `k` highest scores and their ids, best first; equal scores in the order of their ids."""
    rows = np.arange(len(scores))
    if len(scores) > k:
        edge = np.partition(scores, -k)[-k]
        rows = np.flatnonzero(scores >= edge)  # all that tie at the edge: their ids decide which are kept
    ordered = sorted(rows.tolist(), key=lambda row: (-scores[row], ids[row]))[:k]
    return [ids[row] for row in ordered], scores[ordered]


def _unit(vectors: Float32[np.ndarray, "n d"]) -> np.ndarray:
    wide = vectors.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)
