"""Learned ranges as an augmentation whose draws can be repeated."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from regraft.augment.protocol import Params, check_params
from regraft.augment.streams import Streams
from regraft.errors import ShapeError
from regraft.vision.range_operations import operation_named
from regraft.vision.range_policy import RangePolicy


@dataclass(frozen=True)
class VaryByPolicy:
    """Apply the operations of a policy to 8-bit pictures, each with its chance, in an order of the picture's
    own.

    Args:
        policy: Operations and ranges, such as `LearnedRanges.policy` gives.
    """

    policy: RangePolicy

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Layout of the parameters: order and magnitudes of the operations, and the seed of the noise."""
        shape = (len(self.policy.operations),)
        return np.dtype([("order", "u1", shape), ("magnitude", "<f4", shape), ("noise", "<u4")])

    def sample(self, streams: Streams) -> Params:
        """Draw an order and magnitudes for each picture, an operation's identity where it is left out."""
        params = np.zeros(len(streams), self.dtype)
        places: list[np.ndarray] = []
        for number, (name, low, high) in enumerate(self.policy.operations):
            places.append(streams.uniform(f"place {name}"))
            drawn = low + (high - low) * streams.uniform(name)
            applied = streams.chance(f"applied {name}", self.policy.chance)
            params["magnitude"][:, number] = np.where(applied, drawn, operation_named(name).identity)
        params["order"] = np.argsort(np.stack(places, axis=1), axis=1, kind="stable")
        params["noise"] = streams.below("noise", 2**32)
        return params

    def apply(self, x: UInt8[Tensor, "b c h w"], params: Params) -> UInt8[Tensor, "b c h w"]:
        """Vary each picture, clamp it and round it to 8 bits.

        Raises:
            ShapeError: The parameters are not this augmentation's, or name an operation there is not.
        """
        check_params(params, self.dtype, len(x))
        count = len(self.policy.operations)
        if len(params) and params["order"].max() >= count:
            raise ShapeError(f"Operation {params['order'].max()} is drawn, expected 0 to {count - 1}.")
        varied = x.float() / 255
        for place in range(count):
            for number in range(count):
                chosen = np.flatnonzero(params["order"][:, place] == number)
                if len(chosen):
                    rows = torch.from_numpy(chosen).to(x.device)
                    varied[rows] = self._applied(number, varied[rows], params[chosen])
        return (varied.clamp(0, 1) * 255).round().to(torch.uint8)

    def _applied(self, number: int, x: Float[Tensor, "b c h w"], params: Params) -> Float[Tensor, "b c h w"]:
        operation = operation_named(self.policy.operations[number].operation)
        magnitude = torch.from_numpy(params["magnitude"][:, number].copy()).to(x.device)
        noise = _noise(x, params["noise"]) if operation.noisy else None
        return operation.apply(x, magnitude, noise)


def _noise(x: Float[Tensor, "b c h w"], seeds: np.ndarray) -> Float[Tensor, "b c h w"]:
    """Normal numbers for each picture, drawn on the CPU so that they are the same on every device."""
    drawn = [torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    return torch.stack(drawn).to(x.device)
