"""Blending a picture with another: mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy.special import betaincinv
from torch import Tensor

from regraft.augment.protocol import Params, check_params
from regraft.augment.streams import Streams
from regraft.errors import RecipeError
from regraft.vision.erasing import BOX, covered, inside


@dataclass(frozen=True)
class Mix:
    """Blend pictures with partners, or paste a part of the partner in; with both, each picture gets one of
    them.

    Args:
        mixup: Parameter of the symmetric Beta distribution of a picture's share in a blend; `None` is no
            blend.
        cutmix: The same for the share of its area that it keeps; the box's centre is drawn evenly and the box
            cut at the edges, as in the paper. `None` is no paste.
        chance: Share of the pictures that are mixed at all.

    Raises:
        RecipeError: A setting out of range, or neither way given.
    """

    mixup: float | None = None
    cutmix: float | None = None
    chance: float = 1.0

    def __post_init__(self) -> None:
        ways = [alpha for alpha in (self.mixup, self.cutmix) if alpha is not None]
        if not ways or not all(0 < alpha < np.inf for alpha in ways) or not 0 < self.chance <= 1:
            raise RecipeError(
                f"mixup is {self.mixup}, cutmix {self.cutmix} and chance {self.chance:g}; expected a "
                "positive number for at least one of the two, and a chance in (0, 1]."
            )

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Layout of the parameters: the partner, the picture's share in the blend, and the part pasted in."""
        return np.dtype([("partner", "<u4"), ("share", "<f4"), ("box", BOX)])

    def sample(self, streams: Streams, num_partners: int) -> Params:
        """Draw a partner out of `num_partners`, and a way of mixing, for each picture."""
        mixed = streams.chance("mixed", self.chance)
        pasted = streams.chance("pasted", {(True, False): 1.0, (False, True): 0.0}.get(self._ways, 0.5))
        params = np.zeros(len(streams), self.dtype)
        params["partner"] = streams.below("partner", num_partners)
        params["share"] = np.where(mixed & ~pasted, _beta(streams, self.mixup), 1)
        params["box"] = _box(streams, mixed & pasted, _beta(streams, self.cutmix))
        return params

    @property
    def _ways(self) -> tuple[bool, bool]:
        return self.cutmix is not None, self.mixup is not None

    def apply(
        self, x: UInt8[Tensor, "b c h w"], partners: UInt8[Tensor, "b c h w"], params: Params
    ) -> UInt8[Tensor, "b c h w"]:
        """Blend each picture with its partner to the nearest grey level, then paste the part in."""
        check_params(params, self.dtype, len(x))
        share = torch.from_numpy(params["share"].copy()).to(x.device)[:, None, None, None]
        blended = (x * share + partners * (1 - share)).round().to(torch.uint8)
        return torch.where(inside(x, params["box"])[:, None], partners, blended)


def is_mixed(params: Params) -> np.ndarray:
    """Which pictures have a partner at all."""
    return (params["share"] < 1) | (params["box"]["height"] * params["box"]["width"] > 0)


def kept_share(params: Params, height: int, width: int) -> Float[np.ndarray, " n"]:
    """What is left of each picture, and of its label: the blend's share of the pixels not pasted over."""
    return params["share"] * (1 - covered(params["box"], height, width))


def _beta(streams: Streams, alpha: float | None) -> Float[np.ndarray, " n"]:
    """A draw from the symmetric Beta distribution, by its inverse; all ones if there is none."""
    if alpha is None:
        return np.ones(len(streams))
    return betaincinv(alpha, alpha, streams.uniform("share"))


def _box(streams: Streams, pasted: np.ndarray, kept: np.ndarray) -> Params:
    """A box of the picture's shape and `1 - kept` of its area, with a random centre, cut at the edges."""
    side = pasted * np.sqrt(1 - kept)
    params = np.zeros(len(streams), BOX)
    for start, length in (("top", "height"), ("left", "width")):
        centre = streams.uniform(start)
        first, last = (centre - side / 2).clip(0, 1), (centre + side / 2).clip(0, 1)
        params[start], params[length] = first, last - first
    return params
