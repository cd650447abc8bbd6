"""Cosine scores that do not depend on how the rows were grouped."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64


def cosines(
    queries: Float32[np.ndarray, "q d"], vectors: Float32[np.ndarray, "n d"]
) -> Float32[np.ndarray, "q n"]:
    """Return the cosine of every query with every vector.

    The sums run in float64: in float32 a matrix product gives equal vectors slightly different scores
    depending on where they stand in the matrix, and ties could not be told from noise.
    """
    wide_queries, wide_vectors = queries.astype(np.float64), vectors.astype(np.float64)
    products = wide_queries @ wide_vectors.T
    return (products / np.outer(_lengths(wide_queries), _lengths(wide_vectors))).astype(np.float32)


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


def _lengths(vectors: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, " n"]:
    return np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
