"""Colour jitter: brightness, contrast, saturation and hue, each by a random amount, in a random order."""

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from regraft.augment.protocol import Params, check_params
from regraft.augment.streams import Streams
from regraft.errors import RecipeError, ShapeError

CHANGES = ("brightness", "contrast", "saturation", "hue")
ORDERS = tuple(permutations(range(len(CHANGES))))


@dataclass(frozen=True)
class ColourJitter:
    """Change the colours of each picture as torchvision's `ColorJitter` does, a draw a picture.

    Args:
        brightness: Largest relative change, at least 0.
        contrast: The same, about the picture's mean grey.
        saturation: The same, about each pixel's grey.
        hue: Largest turn of the colour circle, 0 to 0.5 of a full one. Costs much more than the others.

    Raises:
        RecipeError: A setting out of range.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        changes = (self.brightness, self.contrast, self.saturation, self.hue)
        if not all(0 <= change < math.inf for change in changes) or self.hue > 0.5:
            raise RecipeError(f"{self} is out of range; expected changes of at least 0, hue at most 0.5.")

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Layout of the parameters: a factor each (for hue a turn), and the number of their order."""
        return np.dtype([*((name, "<f4") for name in CHANGES), ("order", "u1")])

    def sample(self, streams: Streams) -> Params:
        """Draw factors and an order for each picture."""
        params = np.empty(len(streams), self.dtype)
        for name in CHANGES[:3]:
            largest = getattr(self, name)
            low, high = max(0.0, 1 - largest), 1 + largest
            params[name] = low + (high - low) * streams.uniform(name)
        params["hue"] = self.hue * (2 * streams.uniform("hue") - 1)
        params["order"] = streams.below("order", len(ORDERS))
        return params

    def apply(self, x: UInt8[Tensor, "b c h w"], params: Params) -> UInt8[Tensor, "b c h w"]:
        """Change each picture, rounding down to 8 bits after each change.

        Raises:
            ShapeError: The parameters are not this augmentation's, or name an order there is not.
        """
        check_params(params, self.dtype, len(x))
        if len(params) and params["order"].max() >= len(ORDERS):
            raise ShapeError(f"Order {params['order'].max()} is drawn, expected 0 to {len(ORDERS) - 1}.")
        order = np.array(ORDERS)[params["order"]]
        changed = x.clone()
        for place in range(len(CHANGES)):
            for number, name in enumerate(CHANGES):
                chosen = np.flatnonzero(order[:, place] == number)
                if len(chosen) and getattr(self, name):
                    rows = torch.from_numpy(chosen).to(x.device)
                    changed[rows] = _changed(changed[rows], name, params[name][chosen])
        return changed


def _changed(x: Tensor, name: str, amounts: np.ndarray) -> Tensor:
    if name == "hue":
        turned = [F.adjust_hue(one[None], float(amount)) for one, amount in zip(x, amounts, strict=True)]
        return torch.cat(turned)
    factor = torch.from_numpy(amounts.copy()).to(x.device)[:, None, None, None]
    blended = x * factor + _other(x, name) * (1 - factor)
    return blended.clamp(0, 255).to(torch.uint8)


def _other(x: Tensor, name: str) -> Shaped[Tensor, "b 1 #h #w"] | float:
    """What a picture is blended with: black, its mean grey, or its grey."""
    if name == "brightness":
        return 0.0
    grey = x if x.shape[1] == 1 else F.rgb_to_grayscale(x)
    return grey.float().mean((1, 2, 3), keepdim=True) if name == "contrast" else grey.float()
