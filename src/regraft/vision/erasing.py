"""Random erasing: a rectangle of each picture turns black (arXiv 1708.04896)."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from regraft.augment.protocol import Params, check_params
from regraft.augment.streams import Streams
from regraft.errors import RecipeError

BOX = np.dtype([(name, "<f4") for name in ("top", "left", "height", "width")])
"""A rectangle as shares of the picture's height and width; one of no height or width is none."""


@dataclass(frozen=True)
class RandomErase:
    """Turn a random rectangle black, in a share of the pictures.

    A rectangle that would be wider or higher than the picture is cut to it.

    Args:
        chance: Share of the pictures that lose one.
        area: Smallest and largest share of the picture's area, in (0, 1].
        aspect: Smallest and largest ratio of width to height in a square picture, drawn evenly in its
        logarithm.

    Raises:
        RecipeError: A setting out of range.
    """

    chance: float = 0.25
    area: tuple[float, float] = (0.02, 1 / 3)
    aspect: tuple[float, float] = (0.3, 10 / 3)

    def __post_init__(self) -> None:
        in_range = 0 < self.area[0] <= self.area[1] <= 1 and 0 < self.aspect[0] <= self.aspect[1] < math.inf
        if not 0 <= self.chance <= 1 or not in_range:
            raise RecipeError(
                f"chance is {self.chance:g}, area {self.area} and aspect {self.aspect}; expected a chance, "
                "two ascending shares in (0, 1] and two ascending positive ratios."
            )

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Layout of the parameters."""
        return BOX

    def sample(self, streams: Streams) -> Params:
        """Draw a rectangle, or none, for each picture."""
        (low, high), (narrow, wide) = self.area, self.aspect
        area = low + (high - low) * streams.uniform("area")
        aspect = narrow * (wide / narrow) ** streams.uniform("aspect")
        erased = streams.chance("erased", self.chance)
        params = np.zeros(len(streams), BOX)
        params["height"] = erased * np.sqrt(area / aspect).clip(max=1)
        params["width"] = erased * np.sqrt(area * aspect).clip(max=1)
        params["top"] = streams.uniform("top") * (1 - params["height"])
        params["left"] = streams.uniform("left") * (1 - params["width"])
        return params

    def apply(self, x: Shaped[Tensor, "b c h w"], params: Params) -> Shaped[Tensor, "b c h w"]:
        """Blacken each picture's rectangle."""
        check_params(params, BOX, len(x))
        return x.masked_fill(inside(x, params)[:, None], 0)


def inside(x: Shaped[Tensor, "b c h w"], boxes: Params) -> Bool[Tensor, "b h w"]:
    """Which pixels lie in each picture's rectangle, its edges rounded to whole pixels."""
    rows = _within(boxes["top"], boxes["height"], x.shape[-2])
    columns = _within(boxes["left"], boxes["width"], x.shape[-1])
    return (torch.from_numpy(rows)[:, :, None] & torch.from_numpy(columns)[:, None, :]).to(x.device)


def covered(boxes: Params, height: int, width: int) -> Float[np.ndarray, " n"]:
    """The share of its pixels that each rectangle covers in a picture of that size."""
    rows = _within(boxes["top"], boxes["height"], height).mean(axis=1)
    return rows * _within(boxes["left"], boxes["width"], width).mean(axis=1)


def _within(start: np.ndarray, length: np.ndarray, size: int) -> Bool[np.ndarray, "n size"]:
    first = np.rint(start.astype(np.float64) * size)[:, None]
    last = np.rint((start.astype(np.float64) + length) * size)[:, None]
    pixels = np.arange(size)
    return (pixels >= first) & (pixels < last)
