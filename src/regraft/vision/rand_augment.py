"""RandAugment: some of fourteen operations at one strength (arXiv 1909.13719)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from regraft.augment.protocol import Params, check_params
from regraft.augment.streams import Streams
from regraft.errors import RecipeError, ShapeError

NUM_BINS = 31
_MODES = {"nearest": InterpolationMode.NEAREST, "bilinear": InterpolationMode.BILINEAR}


@dataclass(frozen=True)
class Operation:
    """One of the fourteen."""

    name: str
    magnitude: Callable[[int], float]
    """What a strength of 0 to 30 means to it."""
    signed: bool
    """Whether it is drawn in either direction."""
    apply: Callable[[Tensor, float, InterpolationMode], Tensor]


def _up_to(strongest: float) -> Callable[[int], float]:
    return lambda strength: strongest * strength / (NUM_BINS - 1)


def _affine(x: Tensor, mode: InterpolationMode, *, translate: list[float], shear: list[float]) -> Tensor:
    """Shear about the corner and move, in the plane of the picture."""
    return F.affine(
        x, angle=0.0, translate=translate, scale=1.0, shear=shear, interpolation=mode, center=[0.0, 0.0]
    )


def _shear_x(x: Tensor, magnitude: float, mode: InterpolationMode) -> Tensor:
    return _affine(x, mode, translate=[0.0, 0.0], shear=[math.degrees(math.atan(magnitude)), 0.0])


def _shear_y(x: Tensor, magnitude: float, mode: InterpolationMode) -> Tensor:
    return _affine(x, mode, translate=[0.0, 0.0], shear=[0.0, math.degrees(math.atan(magnitude))])


def _translate_x(x: Tensor, magnitude: float, mode: InterpolationMode) -> Tensor:
    return _affine(x, mode, translate=[float(int(magnitude * x.shape[-1])), 0.0], shear=[0.0, 0.0])


def _translate_y(x: Tensor, magnitude: float, mode: InterpolationMode) -> Tensor:
    return _affine(x, mode, translate=[0.0, float(int(magnitude * x.shape[-2]))], shear=[0.0, 0.0])


OPERATIONS = (
    Operation("identity", _up_to(0.0), False, lambda x, magnitude, mode: x),
    Operation("shear_x", _up_to(0.3), True, _shear_x),
    Operation("shear_y", _up_to(0.3), True, _shear_y),
    Operation("translate_x", _up_to(150 / 331), True, _translate_x),
    Operation("translate_y", _up_to(150 / 331), True, _translate_y),
    Operation("rotate", _up_to(30.0), True, lambda x, magnitude, mode: F.rotate(x, magnitude, mode)),
    Operation("brightness", _up_to(0.9), True, lambda x, gain, mode: F.adjust_brightness(x, 1 + gain)),
    Operation("colour", _up_to(0.9), True, lambda x, gain, mode: F.adjust_saturation(x, 1 + gain)),
    Operation("contrast", _up_to(0.9), True, lambda x, gain, mode: F.adjust_contrast(x, 1 + gain)),
    Operation("sharpness", _up_to(0.9), True, lambda x, gain, mode: F.adjust_sharpness(x, 1 + gain)),
    Operation("posterize", lambda m: 8.0 - round(m / 7.5), False, lambda x, m, mode: F.posterize(x, int(m))),
    Operation("solarize", lambda m: 1 - m / 30.0, False, lambda x, m, mode: F.solarize(x, 255 * m)),
    Operation("auto_contrast", _up_to(0.0), False, lambda x, magnitude, mode: F.autocontrast(x)),
    Operation("equalize", _up_to(0.0), False, lambda x, magnitude, mode: F.equalize(x)),
)
"""In the order of torchvision, whose ranges and kernels these are."""


@dataclass(frozen=True)
class RandAugment:
    """Apply some of the fourteen operations to each picture, all at one strength.

    Translations are drawn as a share of the side. What comes in at the edges is black.

    Args:
        num_operations: Operations a picture, drawn with replacement.
        strength: 0 to 30.
        interpolation: Of shears, translations and rotations; the paper's own code takes the nearest pixel.

    Raises:
        RecipeError: A setting out of range.
    """

    num_operations: int = 2
    strength: int = 9
    interpolation: Literal["nearest", "bilinear"] = "bilinear"

    def __post_init__(self) -> None:
        if self.num_operations < 1 or not 0 <= self.strength < NUM_BINS:
            raise RecipeError(
                f"num_operations is {self.num_operations} and strength {self.strength}; "
                "expected at least one operation and a strength of 0 to 30."
            )

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Layout of the parameters: numbers of operations, and their signed magnitudes."""
        shape = (self.num_operations,)
        return np.dtype([("operation", "u1", shape), ("magnitude", "<f4", shape)])

    def sample(self, streams: Streams) -> Params:
        """Draw operations and directions for each picture."""
        params = np.empty(len(streams), self.dtype)
        signed = np.array([operation.signed for operation in OPERATIONS])
        magnitudes = np.array([operation.magnitude(self.strength) for operation in OPERATIONS])
        for place in range(self.num_operations):
            drawn = streams.below(f"operation {place}", len(OPERATIONS))
            negative = signed[drawn] & streams.chance(f"direction {place}", 0.5)
            params["operation"][:, place] = drawn
            params["magnitude"][:, place] = np.where(negative, -1, 1) * magnitudes[drawn]
        return params

    def apply(self, x: UInt8[Tensor, "b c h w"], params: Params) -> UInt8[Tensor, "b c h w"]:
        """Change each picture, equal changes together.

        Raises:
            ShapeError: The parameters are not this augmentation's, or name an operation there is not.
        """
        check_params(params, self.dtype, len(x))
        if len(params) and params["operation"].max() >= len(OPERATIONS):
            raise ShapeError(
                f"Operation {params['operation'].max()} is drawn, expected 0 to {len(OPERATIONS) - 1}."
            )
        for place in range(self.num_operations):
            x = self._step(x, params["operation"][:, place], params["magnitude"][:, place])
        return x

    def _step(self, x: Tensor, operations: np.ndarray, magnitudes: np.ndarray) -> Tensor:
        changed = x.clone()
        mode = _MODES[self.interpolation]
        for number, magnitude in sorted(set(zip(operations.tolist(), magnitudes.tolist(), strict=True))):
            chosen = np.flatnonzero((operations == number) & (magnitudes == np.float32(magnitude)))
            rows = torch.from_numpy(chosen).to(x.device)
            changed[rows] = OPERATIONS[number].apply(x[rows], magnitude, mode)
        return changed
