"""Arrays and tensors as pictures."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from regraft.errors import SampleError

if TYPE_CHECKING:
    # Workers that only decode files import this module, and torch takes seconds.
    import torch


def image_from_array(array: np.ndarray) -> Image.Image:
    """A PIL picture of an array `(h w)` or `(h w c)`.

    Channels are 1 (grey), 3 (RGB) or 4 (RGBA). Values are 8 or 16 bits of an unsigned integer, other
    integers or booleans within [0, 255], or floats within [0, 1].

    Raises:
        SampleError: Another shape, or values out of range.
    """
    values = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if values.size == 0 or not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))):
        raise SampleError(
            f"A picture has the shape {tuple(array.shape)}, expected height, width and 1, 3 or 4 channels."
        )
    if values.ndim == 2 and values.dtype == np.uint16:
        return Image.fromarray(np.ascontiguousarray(values))
    return Image.fromarray(np.ascontiguousarray(_to_8_bits(values)))


def image_from_tensor(tensor: "torch.Tensor") -> Image.Image:
    """A PIL picture of a tensor `(h w)` or `(c h w)`, with the values of `image_from_array`.

    Raises:
        SampleError: Another shape, or values out of range.
    """
    values = tensor.detach().cpu().numpy()
    return image_from_array(np.moveaxis(values, 0, -1) if values.ndim == 3 else values)


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return np.rint(values / 257).astype(np.uint8)
    is_float = np.issubdtype(values.dtype, np.floating)
    low, high, full = float(values.min()), float(values.max()), 1 if is_float else 255
    # Written so that NaN fails too.
    if not (low >= 0 and high <= full):
        raise SampleError(
            f"A picture of {values.dtype} has values from {low:g} to {high:g}, expected 0 to {full}.",
            hint="Give the pictures before normalisation.",
        )
    return np.rint(values * (255 if is_float else 1)).astype(np.uint8)
