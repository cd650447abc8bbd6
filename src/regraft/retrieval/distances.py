"""How far a query is from a gallery item: one matrix product, whichever the metric."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from regraft.errors import ShapeError, VectorError

Prepare = Callable[[Float[np.ndarray, "n d"], Float64[np.ndarray, " n"]], Float32[np.ndarray, "n e"]]
"""From vectors and their lengths to rows of a matrix product."""

# Squares of longer vectors overflow float32; shorter ones have no direction in it. A gallery refuses both.
SHORTEST, LONGEST = 1e-15, 1e15

TILE_ROWS = 64
"""A multiple of the rows and columns that a kernel of any common library works on at a time."""

BLOCK_ROWS = 1024
"""Rows prepared at a time; what they need stays in the processor's cache."""


@dataclass(frozen=True)
class Metric:
    """A distance that is `queries(q) @ gallery(g).T`: smaller is nearer, up to a constant for each query.

    Both functions work row by row, in float32. The last bit of a float32 product depends on the kernel that a
    place in the matrix falls to, so ranks are counted from the very numbers that one product returned, and
    the matrices are filled up to whole tiles (`prepared`), so that all places fall to one kernel and equal
    vectors are equally far.
    """

    name: str
    queries: Prepare
    gallery: Prepare


def prepared(
    prepare: Prepare, *sources: tuple[Float[np.ndarray, "_ d"], Int64[np.ndarray, " _"]]
) -> Float32[np.ndarray, "tiled e"]:
    """Return vectors ready for the product, one source below the other, reading a block at a time.

    Rows of zeros follow, up to a multiple of `TILE_ROWS`.

    Args:
        prepare: One side of a metric.
        sources: Vectors, which may be a memory-mapped file, and which of their rows, in the order wanted.

    Raises:
        VectorError: A row is not finite, or has no direction in float32.
    """
    dimension = sources[0][0].shape[1]
    width = prepare(np.ones((1, dimension), np.float32), np.ones(1)).shape[1]
    num_rows = sum(len(rows) for _, rows in sources)
    out = np.zeros((-(-num_rows // TILE_ROWS) * TILE_ROWS, width), np.float32)
    end = 0
    for vectors, rows in sources:
        for first in range(0, len(rows), BLOCK_ROWS):
            chosen = rows[first : first + BLOCK_ROWS]
            block = vectors[chosen]
            start, end = end, end + len(chosen)
            out[start:end] = prepare(block, _checked_lengths(block, chosen))
    return out


def check_widths(**vectors: Float[np.ndarray, "_ _"]) -> None:
    """Raise ShapeError unless all have the same number of columns, at least one."""
    widths = {name: array.shape[1] for name, array in vectors.items()}
    if len(set(widths.values())) != 1 or 0 in widths.values():
        raise ShapeError(f"Vectors to be compared have dimensions {widths}; expected one and the same.")


def _checked_lengths(
    block: Float[np.ndarray, "n d"], rows: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    wide = block.astype(np.float64)
    lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    bad = np.flatnonzero(~((lengths >= SHORTEST) & (lengths <= LONGEST)))  # this way round, NaN is bad
    if len(bad) > 0:
        raise VectorError(
            f"The vector in row {rows[bad[0]]} has length {lengths[bad[0]]:g}; "
            f"expected finite numbers and a length of {SHORTEST:g} to {LONGEST:g}."
        )
    return lengths


def _unit(
    vectors: Float[np.ndarray, "n d"], lengths: Float64[np.ndarray, " n"]
) -> Float32[np.ndarray, "n d"]:
    return (vectors / lengths[:, None]).astype(np.float32)


def _minus_unit(
    vectors: Float[np.ndarray, "n d"], lengths: Float64[np.ndarray, " n"]
) -> Float32[np.ndarray, "n d"]:
    return -_unit(vectors, lengths)


def _minus_twice(
    vectors: Float[np.ndarray, "n d"], lengths: Float64[np.ndarray, " n"]
) -> Float32[np.ndarray, "n d_plus_1"]:
    return np.hstack([-2 * vectors, np.ones((len(vectors), 1))]).astype(np.float32)


def _with_square(
    vectors: Float[np.ndarray, "n d"], lengths: Float64[np.ndarray, " n"]
) -> Float32[np.ndarray, "n d_plus_1"]:
    return np.hstack([vectors, lengths[:, None] ** 2]).astype(np.float32)


COSINE = Metric("cosine", queries=_minus_unit, gallery=_unit)
"""Minus the cosine."""

EUCLIDEAN = Metric("euclidean", queries=_minus_twice, gallery=_with_square)
"""|g|^2 - 2 q.g, which is the squared distance without the query's own square: the same order.

It loses digits where lengths are large beside the distances; centre such vectors first."""
