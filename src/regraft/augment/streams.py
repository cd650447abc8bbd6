"""Random numbers that depend on nothing but what they are for.

A number is a hash of (seed, sample, draw, slot). So the same sample gets the same view in any order, in any
batch, on any worker, in any process and after any interruption, and a view that was shown once can be shown
again without anything having been stored of it.
"""

from collections.abc import Iterable
from typing import final

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt64

from regraft.data.stream import counter_seed, random_words


def keys_of(ids: Iterable[str]) -> UInt64[np.ndarray, " n"]:
    """A number for each sample id, the same on every machine."""
    return np.fromiter((counter_seed(name) for name in ids), np.uint64)


@final
class Streams:
    """A row of random numbers for each of n samples: the generator that augmentations draw from.

    Args:
        seeds: Where each sample's row starts. Rows of different seeds have nothing in common.
    """

    def __init__(self, seeds: UInt64[np.ndarray, " n"]) -> None:
        self.seeds = seeds

    @classmethod
    def of(cls, seed: int, keys: UInt64[np.ndarray, " n"], draws: Int[np.ndarray, " n"]) -> "Streams":
        """The rows of some samples' draws.

        Args:
            seed: Any integer; another seed is another augmentation.
            keys: Of the samples, from `keys_of`.
            draws: Which view of each sample, from 0.
        """
        start = np.uint64(counter_seed("augment", seed))
        return cls(random_words(random_words(keys ^ start, 0) + draws.astype(np.uint64), 0))

    def __len__(self) -> int:
        return len(self.seeds)

    def uniform(self, slot: str) -> Float[np.ndarray, " n"]:
        """A float64 in [0, 1) for each sample; another `slot` is another number."""
        return (self._words(slot) >> np.uint64(11)) * 2.0**-53

    def below(self, slot: str, num: int) -> Int[np.ndarray, " n"]:
        """An integer from 0 to `num` - 1 for each sample. Its bias, `num` / 2^64, cannot be seen."""
        return (self._words(slot) % np.uint64(num)).astype(np.int64)

    def chance(self, slot: str, probability: float) -> Shaped[np.ndarray, " n"]:
        """True with a probability, for each sample."""
        return self.uniform(slot) < probability

    def child(self, name: str) -> "Streams":
        """Rows of their own for a part that chooses its slots itself."""
        return Streams(self._words(name))

    def take(self, rows: Int[np.ndarray, " m"]) -> "Streams":
        """The rows of some of the samples."""
        return Streams(self.seeds[rows])

    def _words(self, slot: str) -> UInt64[np.ndarray, " n"]:
        return random_words(self.seeds, counter_seed(slot))
