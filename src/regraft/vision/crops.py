"""Small shifts and mirror images of a whole batch at once, each picture with a draw of its own."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8, UInt64
from torch import Tensor, nn

from regraft.data.stream import random_words
from regraft.errors import RecipeError


@runtime_checkable
class BatchAugment(Protocol):
    """A random change of a batch of 8-bit pictures."""

    def __call__(
        self, pixels: UInt8[Tensor, "b c h w"], seeds: UInt64[np.ndarray, " b"]
    ) -> UInt8[Tensor, "b c h w"]:
        """Change each picture by what its own seed says, whatever else is in the batch."""
        ...


@dataclass(frozen=True)
class PadCropFlip:
    """Pad with black, cut the old size out at a random place, mirror every second picture.

    The usual augmentation of small pictures (He et al., "Deep residual learning", 2015, section 4.2).

    Args:
        pad_px: Black pixels on each side, so the largest shift.
        flip: Whether to mirror; not for pictures where left and right differ in meaning, such as digits.

    Raises:
        RecipeError: `pad_px` is negative.
    """

    pad_px: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if self.pad_px < 0:
            raise RecipeError(f"pad_px is {self.pad_px}, expected at least 0.")

    def __call__(
        self, pixels: UInt8[Tensor, "b c h w"], seeds: UInt64[np.ndarray, " b"]
    ) -> UInt8[Tensor, "b c h w"]:
        """Shift and mirror each picture by what its own seed says."""
        height, width = pixels.shape[-2:]
        places = np.uint64(2 * self.pad_px + 1)
        top, left = (torch.from_numpy((random_words(seeds, i) % places).astype(np.int64)) for i in range(2))
        padded = nn.functional.pad(pixels, [self.pad_px] * 4)
        # All possible crops as one view; only those asked for are copied.
        crops = padded.unfold(2, height, 1).unfold(3, width, 1)
        shifted = crops[torch.arange(len(pixels)), :, top, left]
        if not self.flip:
            return shifted
        mirrored = torch.from_numpy(random_words(seeds, 2) >> np.uint64(63) == 1)
        return torch.where(mirrored[:, None, None, None], shifted.flip(-1), shifted)
