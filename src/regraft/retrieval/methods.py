"""The trained transformations, each a way from pairs to a network."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from regraft.retrieval.head import Head
from regraft.retrieval.linear import procrustes, ridge
from regraft.retrieval.objectives import (
    ClassError,
    DirectionError,
    NearOrthogonal,
    NeighbourError,
    Objective,
    SameClass,
    SoftClassError,
    SquaredError,
)
from regraft.retrieval.pairs import Pairs
from regraft.retrieval.tasks import Align, AlignNearOrthogonal, AlignWithVariance
from regraft.retrieval.training import Training, seeded, train
from regraft.retrieval.transform import Affine, ResidualMLP, Transformation, TwoBranch, UncertainTwoBranch
from regraft.train.journal import Watcher
from regraft.train.task import Task


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """Pairs to learn from and to judge on, and how to go about it."""

    pairs: Pairs
    held_out: Pairs
    training: Training = field(default_factory=Training)
    seed: int = 0
    folder: Path | None = None
    """Where interrupted trainings go on from, each in a folder of its own; `None` keeps nothing."""
    watchers: Sequence[Watcher] = ()


def residual_mlp(lesson: Lesson) -> ResidualMLP:
    """Ridge regression and a small network for the rest (Drift-Adapter, arXiv 2509.23471)."""
    unit = typical_number(lesson.pairs.new)
    linear = ridge(lesson.pairs, seed=lesson.seed)
    model = seeded(lesson.seed, lambda: ResidualMLP(linear, lesson.training.width, unit=unit))
    _align(lesson, "residual_mlp", model, [SquaredError(unit)])
    return model


def fct(lesson: Lesson) -> TwoBranch:
    """FCT (arXiv 2112.02805): two branches and a trunk, squared error. Needs pairs alone."""
    unit = typical_number(lesson.pairs.new)
    model = _two_branch(lesson, unit)
    _align(lesson, "fct", model, [SquaredError(unit)])
    return model


def fastfill(lesson: Lesson, head: Head) -> UncertainTwoBranch:
    """FastFill (arXiv 2303.04766): the true class must be seen through the new head. Needs labels."""
    unit = 1 / head.length
    return uncertain(lesson, "fastfill", [SquaredError(unit), ClassError(head)], unit=unit)


def by_class(lesson: Lesson) -> UncertainTwoBranch:
    """FastFill with classes for what they are and no head: the nearest new vectors must be of the same class.

    Galleries are searched by cosine. A head reads lengths too, and a vector can satisfy it by its length; the
    contrastive term cannot be satisfied but by direction. Needs labels.
    """
    return uncertain(lesson, "by_class", [DirectionError(), SameClass()])


def label_free(lesson: Lesson, head: Head) -> UncertainTwoBranch:
    """FastFill without labels: the new head must hold the transformed vector for what it holds the new."""
    unit = 1 / head.length
    return uncertain(lesson, "label_free", [SquaredError(unit), SoftClassError(head)], unit=unit)


def head_free(lesson: Lesson) -> UncertainTwoBranch:
    """FastFill without a head: the transformed vector must have the neighbours that the new one has."""
    return uncertain(lesson, "head_free", [SquaredError(typical_number(lesson.pairs.new)), NeighbourError()])


def near_orthogonal(lesson: Lesson, penalty: NearOrthogonal) -> Affine:
    """A linear map that stays near an orthogonal one (arXiv 2509.16664), by class where labels are known."""
    unit = typical_number(lesson.pairs.new)
    model = procrustes(lesson.pairs.without_side())
    objectives: list[Objective] = [SquaredError(unit)]
    if lesson.pairs.labels is not None:
        objectives.append(SameClass())
    task = AlignNearOrthogonal(model, objectives, penalty, lesson.held_out.without_side())
    _train(lesson, "near_orthogonal", task, lesson.pairs.without_side())
    return model


def typical_number(vectors: Float32[np.ndarray, "n d"]) -> float:
    """Root mean square of the numbers in vectors: the unit in which a network had best make them."""
    return float(np.sqrt(np.square(vectors, dtype=np.float64).mean()))


def _two_branch(lesson: Lesson, unit: float) -> TwoBranch:
    old, new, side = lesson.pairs.dimensions
    return seeded(lesson.seed, lambda: TwoBranch(old, new, side, width=lesson.training.width, unit=unit))


def uncertain(
    lesson: Lesson, name: str, objectives: Sequence[Objective], *, unit: float | None = None
) -> UncertainTwoBranch:
    """FCT's network and FastFill's log-variance, for any objectives.

    Args:
        lesson: What to learn from.
        name: Of the folder in which an interrupted training is kept.
        objectives: What each row is judged by.
        unit: See `TwoBranch`; `None` for that of the new vectors.
    """
    two_branch = _two_branch(lesson, typical_number(lesson.pairs.new) if unit is None else unit)
    model = seeded(lesson.seed, lambda: UncertainTwoBranch(two_branch))
    freeze_after = lesson.training.steps(len(lesson.pairs)) // 2
    task = AlignWithVariance(model, objectives, lesson.held_out, freeze_norms_after=freeze_after)
    _train(lesson, name, task, lesson.pairs)
    return model


def _align(lesson: Lesson, name: str, model: Transformation, objectives: Sequence[Objective]) -> None:
    freeze_after = lesson.training.steps(len(lesson.pairs)) // 2
    task = Align(model, objectives, lesson.held_out, freeze_norms_after=freeze_after)
    _train(lesson, name, task, lesson.pairs)


def _train(lesson: Lesson, name: str, task: Task, pairs: Pairs) -> None:
    folder = None if lesson.folder is None else lesson.folder / name
    train(task, pairs, lesson.training, seed=lesson.seed, folder=folder, watchers=lesson.watchers)
