"""Random crops and mirror images."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from regraft.augment.protocol import Params, check_params
from regraft.augment.streams import Streams
from regraft.errors import RecipeError

MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
MAX_PAD_PX = (2**16 - 2) // 2
"""Places in a padded picture are stored in 16 bits."""


@dataclass(frozen=True)
class RandomResizedCrop:
    """Cut out a random part and resize it to a square (Szegedy et al., arXiv 1409.4842, section 6).

    Parameters do not depend on the picture's size, so that a view can be shown again at another resolution:
    the share of the area, the aspect ratio, and where the part lies between one edge (0) and the other (1). A
    part that would be wider or higher than the picture is cut to it, where torchvision draws again up to ten
    times.

    Args:
        area: Smallest and largest share of the picture's area, in (0, 1].
        aspect: Smallest and largest ratio of width to height; drawn evenly in its logarithm.
        interpolation: Filter of the resizing, antialiased.

    Raises:
        RecipeError: A setting out of range.
    """

    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        if not 0 < self.area[0] <= self.area[1] <= 1 or not 0 < self.aspect[0] <= self.aspect[1] < math.inf:
            raise RecipeError(
                f"area is {self.area} and aspect {self.aspect}; expected two ascending shares in (0, 1], and "
                "two ascending positive ratios."
            )

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Layout of the parameters."""
        return np.dtype([(name, "<f4") for name in ("area", "aspect", "top", "left")])

    def sample(self, streams: Streams) -> Params:
        """Draw a part for each picture."""
        params = np.empty(len(streams), self.dtype)
        (low, high), (narrow, wide) = self.area, self.aspect
        params["area"] = low + (high - low) * streams.uniform("area")
        params["aspect"] = narrow * (wide / narrow) ** streams.uniform("aspect")
        params["top"], params["left"] = streams.uniform("top"), streams.uniform("left")
        return params

    def apply_to(
        self, x: Shaped[Tensor, "b c h w"], params: Params, size_px: int
    ) -> Shaped[Tensor, "b c s s"]:
        """The part of each picture, resized to `size_px` pixels."""
        check_params(params, self.dtype, len(x))
        mode, size = MODES[self.interpolation], [size_px, size_px]
        parts = [
            F.resized_crop(picture[None], *box, size, interpolation=mode, antialias=True)
            for picture, box in zip(x, self.boxes(params, *x.shape[-2:]), strict=True)
        ]
        return torch.cat(parts) if parts else x.new_empty(0, x.shape[1], size_px, size_px)

    def boxes(
        self, params: Params, height: int | Int[np.ndarray, " b"], width: int | Int[np.ndarray, " b"]
    ) -> list[tuple[int, int, int, int]]:
        """Top, left, height and width of each part in a picture of that size, or of its own, in pixels."""
        area, aspect = (params[name].astype(np.float64) for name in ("area", "aspect"))
        wide = np.rint(np.sqrt(area * aspect * height * width)).clip(1, width)
        high = np.rint(np.sqrt(area / aspect * height * width)).clip(1, height)
        top, left = np.rint(params["top"] * (height - high)), np.rint(params["left"] * (width - wide))
        rows = np.stack([top, left, high, wide], axis=1).astype(np.int64)
        return [(row[0], row[1], row[2], row[3]) for row in rows.tolist()]


@dataclass(frozen=True)
class PadCrop:
    """Pad with black and cut the old size out at a random place (arXiv 1512.03385, section 4.2).

    Args:
        pad_px: Black pixels on each side, so the largest shift.

    Raises:
        RecipeError: `pad_px` is negative, or too large for 16 bits to hold a place.
    """

    pad_px: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.pad_px <= MAX_PAD_PX:
            raise RecipeError(f"pad_px is {self.pad_px}, expected 0 to {MAX_PAD_PX}.")

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Layout of the parameters: where the cut begins in the padded picture, in pixels."""
        return np.dtype([("top", "<u2"), ("left", "<u2")])

    def sample(self, streams: Streams) -> Params:
        """Draw a place for each picture."""
        params = np.empty(len(streams), self.dtype)
        for name in ("top", "left"):
            params[name] = streams.below(name, 2 * self.pad_px + 1)
        return params

    def apply(self, x: Shaped[Tensor, "b c h w"], params: Params) -> Shaped[Tensor, "b c h w"]:
        """Shift each picture; what comes in at the edges is black."""
        check_params(params, self.dtype, len(x))
        height, width = x.shape[-2:]
        padded = nn.functional.pad(x, [self.pad_px] * 4)
        # All possible crops as one view; only those asked for are copied.
        crops = padded.unfold(2, height, 1).unfold(3, width, 1)
        top, left = (torch.from_numpy(params[name].astype(np.int64)).to(x.device) for name in ("top", "left"))
        return crops[torch.arange(len(x), device=x.device), :, top, left]


@dataclass(frozen=True)
class Flip:
    """Mirror a share of the pictures; not for pictures where left and right differ in meaning, such as
    digits.

    Raises:
        RecipeError: `chance` is no chance.
    """

    chance: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.chance <= 1:
            raise RecipeError(f"The chance of a mirror image is {self.chance:g}, expected 0 to 1.")

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Layout of the parameters."""
        return np.dtype([("mirrored", "?")])

    def sample(self, streams: Streams) -> Params:
        """Decide for each picture."""
        params = np.empty(len(streams), self.dtype)
        params["mirrored"] = streams.chance("mirrored", self.chance)
        return params

    def apply(self, x: Shaped[Tensor, "b c h w"], params: Params) -> Shaped[Tensor, "b c h w"]:
        """Mirror the pictures chosen."""
        check_params(params, self.dtype, len(x))
        mirrored = torch.from_numpy(params["mirrored"].copy()).to(x.device)
        return torch.where(mirrored[:, None, None, None], x.flip(-1), x)
