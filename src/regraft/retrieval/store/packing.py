"""Vectors as 8-bit integers, for what is stored for years and read once."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

SCALE_BYTES = 4


def pack(vectors: Float32[np.ndarray, "n d"]) -> list[bytes]:
    """Return each vector as a little-endian float32 scale followed by `d` signed bytes.

    A number is off by at most half the scale, which is the largest magnitude of its vector over 127.
    """
    scales = (np.abs(vectors).max(axis=1, initial=0) / 127).astype("<f4")
    codes = np.rint(vectors / np.maximum(scales, np.finfo(np.float32).tiny)[:, None]).astype(np.int8)
    return [scale.tobytes() + code.tobytes() for scale, code in zip(scales, codes, strict=True)]


def unpack(packed: Sequence[bytes], dimension: int) -> Float32[np.ndarray, "n d"]:
    """Return the vectors that `pack` was given, to within their rounding."""
    raw = np.frombuffer(b"".join(packed), np.uint8).reshape(len(packed), SCALE_BYTES + dimension)
    scales = raw[:, :SCALE_BYTES].copy().view("<f4")
    return raw[:, SCALE_BYTES:].view(np.int8) * scales.astype(np.float32)
