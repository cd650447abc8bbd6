"""Changes of pictures that are smooth functions of how strong they are."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from regraft.errors import RecipeError, ShapeError, nearest
from regraft.vision.contrast import GREY

Effect = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""From pictures `(b c h w)`, magnitudes `(b 1 1 1)` and normal noise like the pictures, if any, to
pictures."""


@final
@dataclass(frozen=True)
class Operation:
    """A change of a picture, and one number for its strength.

    Pictures are nominally in [0, 1]. What an operation makes of them need not be: they are clamped once,
    after the last one, because a clamp in between would stop gradients.

    Args:
        name: A name that `OPERATIONS` knows.
        identity: The magnitude that changes nothing.
        lowest: The smallest magnitude that a learned range may reach, at most `identity`.
        highest: The largest.
        effect: The change itself.
        noisy: Whether it needs noise.
    """

    name: str
    identity: float
    lowest: float
    highest: float
    effect: Effect
    noisy: bool = False

    def apply(
        self,
        x: Float[Tensor, "b c h w"],
        magnitude: Float[Tensor, " b"],
        noise: Float[Tensor, "b c h w"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Change each picture as strongly as its magnitude says.

        Args:
            noise: Of mean 0 and variance 1, for an operation that is `noisy`; others do not look at it.

        Raises:
            RecipeError: The operation needs noise, and there is none.
            ShapeError: It needs colours, and the pictures have neither one channel nor three.
        """
        if self.noisy and noise is None:
            raise RecipeError(
                f"The operation {self.name!r} needs noise, expected a tensor like the pictures."
            )
        return self.effect(x, magnitude.view(-1, 1, 1, 1), noise)


def _brightness(x: Tensor, magnitude: Tensor, _: Tensor | None) -> Tensor:
    return x * magnitude


def _contrast(x: Tensor, magnitude: Tensor, _: Tensor | None) -> Tensor:
    middle = x.mean((2, 3), keepdim=True)
    return middle + magnitude * (x - middle)


def _noise(x: Tensor, magnitude: Tensor, noise: Tensor | None) -> Tensor:
    assert noise is not None
    return x + magnitude * noise


def _saturation(x: Tensor, magnitude: Tensor, _: Tensor | None) -> Tensor:
    grey = _luminance(x)
    return grey + magnitude * (x - grey)


def _luminance(x: Tensor) -> Tensor:
    if x.shape[1] == 1:
        return x
    if x.shape[1] != len(GREY):
        raise ShapeError(f"Pictures have {x.shape[1]} channels, expected 1 (grey) or 3 (RGB).")
    return (x * x.new_tensor(GREY).view(1, -1, 1, 1)).sum(1, keepdim=True)


def _gamma(x: Tensor, magnitude: Tensor, _: Tensor | None) -> Tensor:
    # The sign is kept, as pictures may be below 0 here. Below one 8-bit step the curve is a straight line;
    # at 0 the slope of a power below 1 is infinite.
    return x * x.abs().clamp(min=1 / 255) ** (magnitude - 1)


def _blur(x: Tensor, magnitude: Tensor, _: Tensor | None) -> Tensor:
    """Let the picture's values spread as heat does, which damps each of its cosine waves.

    On pixels, the kernel of variance t is exp(-t) I_n(t), the discrete analogue of the Gaussian (Lindeberg,
    "Scale-space for discrete signals", 1990). At the edges the picture is mirrored.
    """
    rows, row_damping = _waves(x.shape[2], x)
    columns, column_damping = _waves(x.shape[3], x)
    damped = rows @ x @ columns.mT * torch.exp(-magnitude * (row_damping[:, None] + column_damping))
    return rows.mT @ damped @ columns


def _waves(length: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The cosine waves of a line of pixels, an orthonormal basis (n n), and how fast heat damps each (n)."""
    # On the CPU, as not every device has float64; the cosines of large angles are too coarse in float32.
    place = torch.arange(length, dtype=torch.float64)
    frequency = math.pi / length * place
    waves = torch.cos(frequency[:, None] * (place + 0.5)) * math.sqrt(2 / length)
    waves[0] /= math.sqrt(2)
    return waves.to(like), (1 - torch.cos(frequency)).to(like)


BRIGHTNESS = Operation("brightness", 1.0, 0.1, 10.0, _brightness)
"""A factor of all values."""
CONTRAST = Operation("contrast", 1.0, 0.1, 10.0, _contrast)
"""A factor of the distance from each channel's mean."""
NOISE = Operation("noise", 0.0, 0.0, 1.0, _noise, noisy=True)
"""The standard deviation of normal noise, drawn for each value."""
SATURATION = Operation("saturation", 1.0, 0.0, 4.0, _saturation)
"""A factor of the distance from grey (ITU-R 601 luma). Grey pictures stay as they are."""
GAMMA = Operation("gamma", 1.0, 0.25, 4.0, _gamma)
"""An exponent of all values."""
BLUR = Operation("blur", 0.0, 0.0, 4.0, _blur)
"""The variance of a Gaussian, in square pixels.

Not its deviation, as elsewhere: a picture changes in proportion to the variance, so that a range which begins
at the identity has a slope there to learn from.
"""

PAPER = (BRIGHTNESS, CONTRAST, NOISE)
"""The operations of RangeAugment (arXiv 2212.10553)."""
OPERATIONS = {operation.name: operation for operation in (*PAPER, SATURATION, GAMMA, BLUR)}
"""All operations, by name; those beyond the paper have the bounds that looked widest without being
useless."""


def operation_named(name: str) -> Operation:
    """The operation called `name`.

    Raises:
        RecipeError: There is none.
    """
    if name not in OPERATIONS:
        raise RecipeError(
            f"There is no operation {name!r}, expected one of {', '.join(OPERATIONS)}.",
            hint=nearest(name, OPERATIONS).strip() or None,
        )
    return OPERATIONS[name]
