"""Which item is encoded first."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import numpy as np

from regraft.errors import RunError


@runtime_checkable
class Order(Protocol):
    """Arranges the items of a backfill. It must not depend on anything but its arguments."""

    @property
    def name(self) -> str:
        """What tells it from other orders."""
        ...

    def arrange(self, ids: Sequence[str], uncertainty: Mapping[str, float]) -> list[str]:
        """Return all of `ids`, the first to be encoded first.

        Args:
            ids: Items whose vectors are transformed.
            uncertainty: Log-variance of the transformed vectors, where the transformation gave one.
        """
        ...


@final
@dataclass(frozen=True)
class BySigma:
    """The most uncertain first, equals by id (FastFill, 2303.04766)."""

    name = "sigma"

    def arrange(self, ids: Sequence[str], uncertainty: Mapping[str, float]) -> list[str]:
        """Return all of `ids`; those of unknown uncertainty come first.

        Raises:
            RunError: No item has an uncertainty.
        """
        if ids and not uncertainty:
            raise RunError(
                "The transformation did not say how uncertain it is; expected a log-variance of each item.",
                hint="Backfill in another order, such as Shuffled(seed=0).",
            )
        return sorted(ids, key=lambda name: (-uncertainty.get(name, np.inf), name))


@final
@dataclass(frozen=True)
class Shuffled:
    """In random order, the same for the same ids and seed."""

    seed: int

    @property
    def name(self) -> str:
        """What tells it from other orders."""
        return f"shuffled({self.seed})"

    def arrange(self, ids: Sequence[str], uncertainty: Mapping[str, float]) -> list[str]:
        """Return all of `ids`."""
        places = np.random.default_rng(self.seed).permutation(len(ids))
        ordered = sorted(ids)
        return [ordered[place] for place in places]


@final
@dataclass(frozen=True, eq=False)
class Given:
    """As listed, without those that need nothing; items that are not listed come last, by id."""

    ids: Sequence[str]

    @property
    def name(self) -> str:
        """What tells it from other orders."""
        digest = hashlib.sha256("\n".join(self.ids).encode("utf-8", "surrogateescape")).hexdigest()
        return f"given({digest[:12]})"

    def arrange(self, ids: Sequence[str], uncertainty: Mapping[str, float]) -> list[str]:
        """Return all of `ids`."""
        waiting = set(ids)
        listed = [name for name in dict.fromkeys(self.ids) if name in waiting]
        return listed + sorted(waiting.difference(listed))
