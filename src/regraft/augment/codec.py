"""Parameters as bytes and back, to the bit."""

import numpy as np
from jaxtyping import UInt8

from regraft.augment.protocol import Params
from regraft.errors import ShapeError


def encode(params: Params) -> UInt8[np.ndarray, "n width"]:
    """The bytes of each row of parameters, in the order of its fields.

    Raises:
        ShapeError: The layout has gaps, or depends on the machine's order of bytes.
    """
    check_layout(params.dtype)
    width = params.dtype.itemsize
    if not width:
        return np.empty((len(params), 0), np.uint8)
    return np.ascontiguousarray(params).view(np.uint8).reshape(len(params), width)


def decode(rows: UInt8[np.ndarray, "n width"], dtype: np.dtype[np.void]) -> Params:
    """The parameters that `encode` wrote.

    Raises:
        ShapeError: The rows are of another width than the layout.
    """
    check_layout(dtype)
    if rows.ndim != 2 or rows.shape[1] != dtype.itemsize:
        raise ShapeError(
            f"The parameters are {rows.shape} bytes; expected rows of {dtype.itemsize}.",
            hint="Parameters belong to the augmentation that drew them.",
        )
    return np.ascontiguousarray(rows).reshape(-1).view(dtype) if rows.size else np.empty(len(rows), dtype)


def check_layout(dtype: np.dtype[np.void]) -> None:
    """Refuse a layout whose bytes could mean something else elsewhere.

    Raises:
        ShapeError: It has gaps between fields, or a field of more than one byte is not little-endian.
    """
    leaves = list(_leaves(dtype))
    if sum(leaf.itemsize for leaf in leaves) != dtype.itemsize or any(leaf.str[0] == ">" for leaf in leaves):
        raise ShapeError(f"{dtype} has gaps or big-endian fields; expected little-endian fields in a row.")


def _leaves(dtype: np.dtype[np.void]) -> list[np.dtype[np.void]]:
    if dtype.subdtype is not None:
        inner, shape = dtype.subdtype
        return _leaves(inner) * int(np.prod(shape))
    if dtype.fields is None:
        return [dtype]
    return [leaf for field, *_ in dtype.fields.values() for leaf in _leaves(field)]
