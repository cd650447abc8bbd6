"""One augmentation after another."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from regraft.augment.protocol import Augmentation, Params, check_params
from regraft.augment.streams import Streams


@dataclass(frozen=True)
class Compose:
    """Apply `steps` in their order; none of them changes nothing.

    A step's numbers hang on its place, so that two steps of one kind draw apart.
    """

    steps: tuple[Augmentation, ...] = ()

    @property
    def dtype(self) -> np.dtype[np.void]:
        """A field a step, `0`, `1`, ..., which holds the step's own fields."""
        return np.dtype([(str(place), step.dtype) for place, step in enumerate(self.steps)])

    def sample(self, streams: Streams) -> Params:
        """Draw for every step."""
        params = np.zeros(len(streams), self.dtype)
        for place, step in enumerate(self.steps):
            params[str(place)] = step.sample(streams.child(str(place)))
        return params

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Apply every step in turn."""
        check_params(params, self.dtype, len(x))
        for place, step in enumerate(self.steps):
            x = step.apply(x, params[str(place)])
        return x
