"""The order samples come in: seeded, resumable at any step, the same on every machine.

Nothing here carries state from one step to the next. What batch 90,000 holds is computed from the
number 90,000, so a resumed run needs no saved position and several processes need not talk.
"""

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt64

from regraft.errors import RecipeError

_MASK_64 = 2**64 - 1
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15


def counter_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63) made from `parts`: the same in every process, machine and Python.

    Unlike `hash`, it is not salted, and unlike joined text it keeps `("a", "b")` and `("ab",)` apart.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        kind = b"s" if isinstance(part, str) else b"i"
        # File names that are not valid UTF-8 reach Python as lone surrogates.
        text = str(part).encode("utf-8", "surrogatepass")
        digest.update(kind + len(text).to_bytes(8, "little") + text)
    return int.from_bytes(digest.digest(), "little") >> 1


def random_words(seeds: UInt64[np.ndarray, " n"], draw: int) -> UInt64[np.ndarray, " n"]:
    """Number `draw` of the random stream that starts at each seed, all seeds at once.

    This is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014),
    whose n-th number costs no more than its first. NumPy's and torch's own generators may change
    their streams between versions; this one cannot.
    """
    state = seeds + np.uint64((draw + 1) * _GOLDEN_GAMMA & _MASK_64)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@functools.lru_cache(maxsize=4)
def _permutation(num_samples: int, seed: int, epoch: int) -> Int[np.ndarray, " n"]:
    """All samples in the order of one epoch: sorted by a random key each."""
    start = counter_seed("order", seed, epoch)
    counters = np.arange(num_samples, dtype=np.uint64) * np.uint64(_GOLDEN_GAMMA) + np.uint64(start)
    indices = np.argsort(random_words(counters, 0), kind="stable")
    indices.flags.writeable = False
    return indices


@dataclass(frozen=True)
class Order:
    """Which samples make up batch n: every epoch a fresh permutation, the short last batch dropped.

    Args:
        num_samples: Samples in the set.
        batch_size: Samples in a batch, over all processes together.
        seed: Any integer; another seed is another order.

    Raises:
        RecipeError: A number below one, or a batch larger than the set.
    """

    num_samples: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise RecipeError(f"batch_size is {self.batch_size}, expected at least 1.")
        if self.batch_size > self.num_samples:
            raise RecipeError(
                f"batch_size is {self.batch_size}, but there are only {self.num_samples} samples.",
                hint=f"Set batch_size to at most {max(1, self.num_samples)}.",
            )

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the samples."""
        return self.num_samples // self.batch_size

    def epoch(self, step: int) -> int:
        """The epoch that `step` belongs to, from 0."""
        return step // self.steps_per_epoch

    def batch(self, step: int) -> tuple[int, Int[np.ndarray, " batch"]]:
        """The epoch of batch `step` (from 0) and the indices of its samples, over all processes."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.batch_size
        indices = _permutation(self.num_samples, self.seed, epoch)[start : start + self.batch_size]
        return epoch, indices


def check_share(batch_size: int, rank: int, world: int) -> None:
    """Check that `world` processes can share a batch evenly, and that `rank` is one of them.

    Raises:
        RecipeError: They cannot, or it is not.
    """
    if not 0 <= rank < world:
        raise RecipeError(f"rank is {rank}, expected 0 to {world - 1} with {world} processes.")
    if batch_size % world:
        raise RecipeError(
            f"batch_size is {batch_size}, which {world} processes cannot share evenly.",
            hint=f"Set batch_size to a multiple of {world}, such as {-(-batch_size // world) * world}.",
        )


def share(indices: Int[np.ndarray, " batch"], rank: int, world: int) -> Int[np.ndarray, " share"]:
    """The part of a global batch that process `rank` of `world` takes: every `world`-th sample.

    Raises:
        RecipeError: See `check_share`.
    """
    check_share(len(indices), rank, world)
    return indices[rank::world]
