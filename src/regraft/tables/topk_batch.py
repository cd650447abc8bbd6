"""Distributions over many classes, of which the most probable are listed."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float32, Int64

from regraft.errors import RecipeError


@final
@dataclass(frozen=True)
class TopKBatch:
    """What a teacher said of some samples: its most probable classes, and how much is left for the others.

    The rest is spread evenly over the classes that are not listed.
    """

    ids: Int64[np.ndarray, "n k"]
    """The most probable class first, the lower id first among equals."""
    probabilities: Float32[np.ndarray, "n k"]
    rest: Float32[np.ndarray, " n"]
    """Mass of all other classes together. With it the probabilities of a row add up to 1."""
    num_classes: int

    def tempered(self, temperature: float) -> "TopKBatch":
        """Every class's probability to the power of 1 / `temperature`, made to add up to 1 again.

        As if the logits had been divided by it: above 1 the answer is softer, below 1 harder.

        Raises:
            RecipeError: The temperature is not a number above 0.
        """
        if not 0 < temperature < math.inf:
            raise RecipeError(f"temperature is {temperature}, expected a number above 0.")
        # In logarithms, where no power vanishes.
        with np.errstate(divide="ignore"):
            listed = np.log(self.probabilities, dtype=np.float64) / temperature
            other = np.log(self.rest / self._num_sharing, dtype=np.float64) / temperature
        largest = np.maximum(listed.max(axis=1), other)
        listed = np.exp(listed - largest[:, None])
        rest = np.exp(other - largest) * self._num_sharing
        total = listed.sum(axis=1) + rest
        probabilities = (listed / total[:, None]).astype(np.float32)
        return TopKBatch(self.ids, probabilities, (rest / total).astype(np.float32), self.num_classes)

    def dense(self) -> Float32[np.ndarray, "n num_classes"]:
        """The probabilities of all classes."""
        every = np.repeat((self.rest / self._num_sharing)[:, None], self.num_classes, axis=1)
        np.put_along_axis(every, self.ids, self.probabilities, axis=1)
        return every

    @property
    def _num_sharing(self) -> int:
        """Classes that share the rest; where all are listed there is none to share."""
        return max(1, self.num_classes - self.ids.shape[1])
