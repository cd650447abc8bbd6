"""From a picture to the tensor a network was trained on, with a description others can follow."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from regraft.errors import RecipeError
from regraft.vision.images import Source, read_image

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_COLOURS = {1: "grey", 3: "rgb"}


@dataclass(frozen=True)
class Preprocess:
    """Resize the short side, cut out the centre, scale to [0, 1], normalise.

    The short side becomes `size_px / crop` pixels, rounded down, so that the square cut out of the
    centre covers the share `crop` of it. With `crop=1` a square picture of `size_px` stays as it is.

    Args:
        size_px: Side of the square the network sees.
        mean: Subtracted from each channel, in [0, 1]; the default is ImageNet's.
        std: Divides each channel afterwards, above 0.
        interpolation: Filter of the resizing, antialiased.
        crop: Share of the short side that is kept, in (0, 1].
        channels: 3 for RGB, 1 for grey (ITU-R 601 luma).

    Raises:
        RecipeError: A setting is out of its range.
    """

    size_px: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    crop: float = 0.875
    channels: int = 3

    def __post_init__(self) -> None:
        if self.size_px < 1:
            raise RecipeError(f"size_px is {self.size_px}, expected at least 1.")
        if not 0 < self.crop <= 1:
            raise RecipeError(f"crop is {self.crop:g}, expected a share above 0 and at most 1.")
        if self.channels not in _COLOURS:
            raise RecipeError(f"channels is {self.channels}, expected 1 (grey) or 3 (RGB).")
        if self.interpolation not in _FILTERS:
            raise RecipeError(f"interpolation is {self.interpolation!r}, expected {' or '.join(_FILTERS)}.")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise RecipeError(
                f"mean has {len(self.mean)} and std {len(self.std)} values for channels={self.channels}.",
                hint="Give one mean and one std a channel.",
            )
        if not all(0 < value < math.inf for value in self.std) or not all(map(math.isfinite, self.mean)):
            raise RecipeError(f"mean {self.mean} and std {self.std} must be finite, and std above 0.")

    def __call__(self, sample: Source) -> Float[Tensor, "c h w"]:
        """The tensor for one picture: a PIL image, a path, or a file's bytes.

        Raises:
            BadImage: The picture cannot be read.
        """
        return self.normalise(self.frame(read_image(sample)))

    def frame(self, image: Image.Image) -> UInt8[Tensor, "c h w"]:
        """The geometric half: what the network will see of an RGB picture, still in 8 bits."""
        box = self._visible_box(image.width, image.height)
        return self.pixels(image.resize((self.size_px, self.size_px), _FILTERS[self.interpolation], box=box))

    def pixels(self, image: Image.Image) -> UInt8[Tensor, "c h w"]:
        """All pixels of an RGB picture, in the colours the network sees, in 8 bits."""
        if self.channels == 1:
            return torch.from_numpy(np.array(image.convert("L")))[None]
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def normalise(self, pixels: UInt8[Tensor, "*batch c h w"]) -> Float[Tensor, "*batch c h w"]:
        """The numeric half: 8-bit pixels to float32, each channel with its mean and deviation."""
        mean, std = self._statistics(pixels.device)
        return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)

    def pixels_of(self, image: Float[Tensor, "*batch c h w"]) -> UInt8[Tensor, "*batch c h w"]:
        """The 8-bit pixels that `normalise` was given: its inverse, rounded."""
        mean, std = self._statistics(image.device)
        return (image.detach().float() * std + mean).mul_(255).round_().clamp_(0, 255).to(torch.uint8)

    def describe(self) -> dict[str, object]:
        """Everything needed to repeat the preprocessing elsewhere, as JSON values."""
        return {
            "size_px": self.size_px,
            "crop": self.crop,
            "resize_short_side_px": self._short_px,
            "interpolation": self.interpolation,
            "antialias": True,
            "channels": self.channels,
            "color": _COLOURS[self.channels],
            "value_range": [0.0, 1.0],
            "mean": list(self.mean),
            "std": list(self.std),
            "layout": "nchw",
            "dtype": "float32",
            "orientation": "upright (EXIF applied)",
            "transparency": "laid on white",
        }

    @classmethod
    def from_description(cls, description: Mapping[str, object]) -> "Preprocess":
        """The preprocessing that `describe` described; entries that follow from others are not read.

        Raises:
            RecipeError: An entry is missing or out of its range.
        """
        names = ("size_px", "mean", "std", "interpolation", "crop", "channels")
        missing = [name for name in names if name not in description]
        if missing:
            raise RecipeError(
                f"The preprocessing has no {', '.join(missing)}; it has {', '.join(description)}."
            )
        return cls(
            size_px=cast(int, description["size_px"]),
            mean=tuple(cast(Sequence[float], description["mean"])),
            std=tuple(cast(Sequence[float], description["std"])),
            interpolation=cast(Literal["bilinear", "bicubic"], description["interpolation"]),
            crop=float(cast(float, description["crop"])),
            channels=cast(int, description["channels"]),
        )

    def _statistics(self, device: torch.device) -> tuple[Float[Tensor, "c 1 1"], Float[Tensor, "c 1 1"]]:
        mean, std = torch.tensor([self.mean, self.std], device=device)[..., None, None]
        return mean, std

    @property
    def _short_px(self) -> int:
        return math.floor(self.size_px / self.crop)

    def _visible_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """What the centre crop of the resized picture covers, in pixels of the original.

        Resizing only this box gives torchvision's resize and centre crop, but for rounding, without
        ever making the resized picture: of a 1 x 10,000 strip that would be 256 x 2,560,000.
        """
        short = min(width, height)
        resized_width = int(self._short_px * width / short)
        resized_height = int(self._short_px * height / short)
        left = round((resized_width - self.size_px) / 2)
        top = round((resized_height - self.size_px) / 2)
        x, y = width / resized_width, height / resized_height
        right, bottom = (left + self.size_px) * x, (top + self.size_px) * y
        return left * x, top * y, min(right, width), min(bottom, height)
