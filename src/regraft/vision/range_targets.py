"""How far pictures are meant to be from themselves: the one number that is searched, and the way to it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from regraft.errors import RecipeError
from regraft.vision.ranges import LearnedRanges

LEAST_ERROR = 1e-7
"""Added to a mean squared error before its logarithm is taken: 70 dB stand for no difference at all."""
LARGEST_DB = 50.0
"""At this target `LEAST_ERROR` still counts for less than 0.05 dB."""
LEAST_SLOPE = 0.5
"""Decibels that a unit of strength is taken to be worth where it is worth less, as for black pictures."""

Way = Callable[[float], float]
"""The share of the way made, in [0, 1], after a share of the time, in [0, 1]."""


def straight(time: float) -> float:
    """As much of the way as of the time."""
    return time


def half_cosine(time: float) -> float:
    """Slowly at first, and again at the end, so that the ranges do not lag behind when they arrive."""
    return 0.5 * (1 - math.cos(math.pi * time))


def psnr_db(error: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Peak signal-to-noise ratio of a mean squared error of values in [0, 1]; smooth at 0, where it is 70."""
    return -10 * (error + LEAST_ERROR).log10()


@runtime_checkable
class Target(Protocol):
    """What pictures are to be varied by in each step, and the punishment of missing it."""

    def db(self, step: int) -> float:
        """The peak signal-to-noise ratio wanted in step `step`, from 0."""
        ...

    def loss(self, errors: Float[Tensor, " b"], ranges: LearnedRanges, step: int) -> Float[Tensor, ""]:
        """The punishment.

        Args:
            errors: Mean squared error of each picture of a batch that `ranges` varied, of values in [0, 1].
        """
        ...


@dataclass(frozen=True, kw_only=True)
class DecibelTarget:
    """The batch's peak signal-to-noise ratio, led from weak to strong in decibels.

    A departure from RangeAugment (arXiv 2212.10553) as it was published (`ReleasedTarget`), which compares
    each picture's error with the target's. That comes to rest where as many are above as below: short of the
    target, as few pictures make up most of the mean. And its slope depends on where the target is.

    Args:
        end_db: Where to go, in (0, 50]; less is stronger.
        steps: Steps until then; after them the target stays. Four fifths of a run let ranges come to rest.
        start_db: Where to begin, in (0, 50].
        way: How to get there.

    Raises:
        RecipeError: A number out of its range.
    """

    end_db: float
    steps: int
    start_db: float = 40.0
    way: Way = half_cosine

    def __post_init__(self) -> None:
        _check(self.start_db, self.end_db, self.steps)

    def db(self, step: int) -> float:
        """The ratio wanted in step `step`, from 0."""
        made = self.way(min(1.0, step / self.steps))
        return self.start_db + (self.end_db - self.start_db) * made

    def loss(self, errors: Float[Tensor, " b"], ranges: LearnedRanges, step: int) -> Float[Tensor, ""]:
        """How many units of strength the target is missed by, squared and halved, and how far ends are apart.

        It is the smooth L1 of the decibels missed, quadratic up to 1, over the square of the slope: how many
        decibels a unit of strength is worth to this batch. Plain gradient descent thus closes the same share
        of the gap in each step, at 40 dB and at 10, where white gets no whiter and the slope is a fifth.

        Raises:
            RecipeError: The ranges share no strength.
        """
        if not ranges.strength.requires_grad:
            raise RecipeError(
                "The ranges have no strength in common, expected those of HALF_WIDTHS.",
                hint="RELEASED goes with ReleasedTarget.",
            )
        reached = psnr_db(errors.mean())
        (slope,) = torch.autograd.grad(reached, ranges.strength, retain_graph=True)
        missed = F.smooth_l1_loss(reached, torch.full_like(reached, self.db(step)))
        return missed / slope.square().clamp(min=LEAST_SLOPE**2) + ranges.parting()


@dataclass(frozen=True, kw_only=True)
class ReleasedTarget:
    """Target and loss of RangeAugment's published code, to compare with; train with `DecibelTarget`.

    Args:
        end_db: Where to go, in (0, 50].
        steps: Steps until then (epochs there).
        start_db: Where to begin, in (0, 50].

    Raises:
        RecipeError: A number out of its range.
    """

    end_db: float
    steps: int
    start_db: float = 40.0

    def __post_init__(self) -> None:
        _check(self.start_db, self.end_db, self.steps)

    def error(self, step: int) -> float:
        """The mean squared error wanted in step `step`, of values in [0, 255]: half a cosine in the error."""
        start, end = (255**2 * 10 ** (-db / 10) for db in (self.start_db, self.end_db))
        time = min(step, self.steps) / (self.steps + 1)
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * time))

    def db(self, step: int) -> float:
        """The ratio wanted in step `step`, from 0."""
        return 10 * math.log10(255**2 / self.error(step))

    def loss(self, errors: Float[Tensor, " b"], ranges: LearnedRanges, step: int) -> Float[Tensor, ""]:
        """Smooth L1 of each picture's error of values in [0, 255], times 100 / 255^2."""
        wanted = torch.full_like(errors, self.error(step))
        return 100 / 255**2 * F.smooth_l1_loss(255**2 * errors, wanted)


def _check(start_db: float, end_db: float, steps: int) -> None:
    if not all(0 < db <= LARGEST_DB for db in (start_db, end_db)):
        raise RecipeError(
            f"The target goes from {start_db:g} to {end_db:g} dB, expected both in (0, {LARGEST_DB:g}].",
            hint="40 dB is hardly visible, and at 10 dB little is recognised.",
        )
    if steps < 1:
        raise RecipeError(f"The target is reached in {steps} steps, expected at least 1.")
