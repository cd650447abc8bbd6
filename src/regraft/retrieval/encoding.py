"""Encoding batches of items: what an encoder must give, and where it runs."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from regraft.errors import SampleError


@dataclass(frozen=True, eq=False)
class Encoded:
    """What an encoder made of a batch. Every id that it was given is either in `ids` or in `gone`."""

    ids: list[str]
    vectors: Float[np.ndarray, "n d"]
    gone: Mapping[str, str] = field(default_factory=dict[str, str])
    """Items that cannot be encoded, because their source is lost or unreadable, and why."""


Encode = Callable[[Sequence[str], Sequence[str | None]], Encoded]
"""Encodes items by their ids and sources, all of one call as one batch."""


@dataclass(frozen=True)
class Job:
    """Items that are to be encoded as one batch."""

    ids: list[str]
    sources: list[str | None]


@dataclass(frozen=True, eq=False)
class Finished:
    """An encoded batch."""

    encoded: Encoded
    seconds: float
    """What the encoder took."""


Executor = Callable[[Encode, Iterator[Job]], Iterator[Finished]]
"""Encodes jobs and yields what came of them, in their order. It may take jobs before it has yielded the ones
before them, but should not take more than it can hold: their number may be large."""


def here(encode: Encode, jobs: Iterator[Job]) -> Iterator[Finished]:
    """Encode in this process, one job after the other."""
    return (timed(encode, job) for job in jobs)


def timed(encode: Encode, job: Job) -> Finished:
    """Encode one job.

    Raises:
        SampleError: The encoder lost an item or made one up.
    """
    if not job.ids:
        return Finished(Encoded([], np.zeros((0, 1), np.float32)), 0.0)
    start_s = time.perf_counter()
    encoded = encode(job.ids, job.sources)
    seconds = time.perf_counter() - start_s
    if sorted([*encoded.ids, *encoded.gone]) != sorted(job.ids) or len(encoded.vectors) != len(encoded.ids):
        raise SampleError(
            f"The encoder was given {len(job.ids)} items and returned {len(encoded.ids)} ids, "
            f"{len(encoded.vectors)} vectors and {len(encoded.gone)} items that are gone; expected each id "
            "once, with a vector or with the reason why there is none."
        )
    return Finished(encoded, seconds)
