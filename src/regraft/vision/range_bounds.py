"""How numbers without bounds become the two ends of an operation's range."""

from collections.abc import Callable
from dataclasses import dataclass

from regraft.errors import RecipeError
from regraft.vision.range_operations import Operation


@dataclass(frozen=True)
class Ends:
    """Where the ends of a range may be: each goes from `a` to `b` as a sigmoid goes from 0 to 1.

    Args:
        low: `a` and `b` of the lower end.
        high: `a` and `b` of the upper end.
        theta: Arguments of the sigmoid that training begins with, of the lower and of the upper end, besides
            the strength that all ends share.
    """

    low: tuple[float, float]
    high: tuple[float, float]
    theta: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Parameterisation:
    """What learned ranges are made of.

    Args:
        ends: Where the ends of an operation's range may be.
        strength: What all ends share, at first; `None` if they share nothing.
    """

    ends: Callable[[Operation], Ends]
    strength: float | None


def _half_widths(operation: Operation) -> Ends:
    identity = operation.identity
    return Ends(low=(identity, operation.lowest), high=(identity, operation.highest))


HALF_WIDTHS = Parameterisation(_half_widths, strength=-4.0)
"""Each end begins near the identity and goes outwards, all of them together unless something parts them.

A departure from RangeAugment (arXiv 2212.10553) as it was published (`RELEASED`). Its ranges cannot narrow
to nothing, and begin with a brightness between 0.6 and 8.4; here they begin with 2 % of their way made. And a
target for the whole says nothing of its parts. Left to the gradient, the operation that is ahead gets all of
it; and so does one end of a range, as widening the other brings more pictures near the identity. What ends
share keeps them together, so that runs with other seeds and optimizers end with the same ranges.
"""

_PUBLISHED = {
    "brightness": Ends((0.1, 0.9), (1.1, 10.0), (0.5, 1.5)),
    "contrast": Ends((0.1, 0.9), (1.1, 10.0), (0.5, 1.5)),
    "noise": Ends((0.0, 5e-5), (1e-4, 1.0), (0.0, 0.1)),
}


def _released(operation: Operation) -> Ends:
    if operation.name not in _PUBLISHED:
        raise RecipeError(
            f"The released parameterisation has no {operation.name!r}, expected {', '.join(_PUBLISHED)}.",
            hint="Use HALF_WIDTHS.",
        )
    return _PUBLISHED[operation.name]


RELEASED = Parameterisation(_released, strength=None)
"""Ranges as in RangeAugment's published code, to compare with; train with `HALF_WIDTHS`.

Their thetas begin with what reads like the ends themselves (0.5 and 1.5); the sigmoid makes others of them.
"""
