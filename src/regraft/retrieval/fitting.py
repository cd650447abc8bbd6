"""A ladder of transformations, from the simplest to the most learned, fitted on pairs and judged."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regraft.errors import ShapeError
from regraft.retrieval import methods
from regraft.retrieval.curve import Curve
from regraft.retrieval.head import Head
from regraft.retrieval.judging import Judge
from regraft.retrieval.linear import procrustes, ridge
from regraft.retrieval.methods import Lesson
from regraft.retrieval.metrics import Evaluation
from regraft.retrieval.objectives import NearOrthogonal
from regraft.retrieval.pairs import Pairs
from regraft.retrieval.training import Training
from regraft.retrieval.transform import Transformation, UncertainTwoBranch
from regraft.retrieval.uncertainty import with_error_estimate
from regraft.train.journal import Watcher

HELD_OUT = 0.15
"""Share of the pairs that error estimates are learned from, and share that everything is judged on."""
MOST_HELD_OUT = 2000
PAIRS_PER_DIMENSION = 4
"""Below this a network fits noise, and a closed form is better."""
MARGIN = 0.003
"""By how much a more learned transformation must be better to be chosen."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One rung of the ladder."""

    name: str
    transformation: Transformation | None
    """Fitted, with an estimate of its error; `None` if it does not apply."""
    curve: Curve | None
    """How held-out pairs are answered from nothing to everything backfilled, the most uncertain first."""
    quality: Mapping[str, float]
    """`start`, before anything is backfilled, and `mean`, over the whole curve: from 0 to 1."""
    seconds: float
    """Time that fitting took."""
    why_not: str | None = None
    """Why it does not apply; `None` if it does."""


@dataclass(frozen=True, eq=False)
class Ladder:
    """All rungs, the simplest first, and what they were judged on."""

    candidates: list[Candidate]
    judge: Judge
    before: Evaluation
    """Old vectors searched by the old model."""
    after: Evaluation
    """New vectors searched by the new model."""


@dataclass(frozen=True)
class _Rung:
    name: str
    fit: Callable[[Lesson], Transformation]
    why_not: str | None


def fit_ladder(
    pairs: Pairs,
    *,
    head: Head | None = None,
    seed: int = 0,
    training: Training | None = None,
    folder: Path | None = None,
    watchers: Sequence[Watcher] = (),
    began: Callable[[str], None] = lambda name: None,
) -> Ladder:
    """Fit every transformation that the pairs allow, and judge all of them on the same held-out pairs.

    Args:
        pairs: What is known. Labels and side-information are used where they help.
        head: Classifier of the new model, if it has one.
        seed: Decides which pairs are held out and every random number.
        training: Numbers of the trained ones; `None` takes the defaults.
        folder: Where interrupted trainings go on from; `None` keeps nothing.
        watchers: Follow each training.
        began: Called with the name of each rung, before it is fitted.

    Raises:
        SampleError: There are too few pairs to hold any out.
        ShapeError: The head reads vectors of another dimension.
    """
    if head is not None and head.dimension != pairs.new.shape[1]:
        raise ShapeError(
            f"The head reads {head.dimension} numbers, but the new vectors have {pairs.new.shape[1]}.",
            hint="Give the classifier of the new model.",
        )
    share = min(HELD_OUT, MOST_HELD_OUT / len(pairs))
    rest, judged = pairs.split(share, seed)
    fitted_on, estimated_on = rest.split(share / (1 - share), seed)
    lesson = Lesson(
        pairs=fitted_on,
        held_out=estimated_on,
        training=training or Training(),
        seed=seed,
        folder=folder,
        watchers=watchers,
    )
    judge = Judge.of(judged)
    candidates = [_climb(rung, lesson, judge, began) for rung in _rungs(fitted_on, head)]
    return Ladder(candidates, judge, judge.before(), judge.after())


def choose(candidates: Sequence[Candidate]) -> tuple[Candidate, str]:
    """The transformation to use, and why, in one sentence.

    It is the best over the whole curve; or a simpler one that is as good but for `MARGIN`.
    """
    fitted = [candidate for candidate in candidates if candidate.transformation is not None]
    best = max(fitted, key=lambda candidate: candidate.quality["mean"])
    chosen = next(one for one in fitted if one.quality["mean"] >= best.quality["mean"] - MARGIN)
    score = f"{100 * chosen.quality['mean']:.1f} on average over the upgrade"
    if chosen is best:
        return chosen, f"{chosen.name} is the best of {len(fitted)} on held-out pairs: {score}."
    gap = 100 * (best.quality["mean"] - chosen.quality["mean"])
    return chosen, f"{chosen.name} is simpler than {best.name}, which is better by only {gap:.1f}: {score}."


def _climb(rung: _Rung, lesson: Lesson, judge: Judge, began: Callable[[str], None]) -> Candidate:
    if rung.why_not is not None:
        return Candidate(rung.name, None, None, {}, 0.0, rung.why_not)
    began(rung.name)
    start = time.perf_counter()
    transformation = rung.fit(lesson)
    known = _knowing(transformation, lesson)
    seconds = time.perf_counter() - start
    curve = judge.curve(known)
    qualities = [judge.quality(evaluation) for evaluation in curve.evaluations]
    quality = {"start": qualities[0], "mean": float(np.mean(qualities))}
    return Candidate(rung.name, known, curve, quality, seconds)


def _knowing(transformation: Transformation, lesson: Lesson) -> Transformation:
    if isinstance(transformation, UncertainTwoBranch):
        return transformation
    pairs = lesson.held_out if transformation.side_dimension else lesson.held_out.without_side()
    return with_error_estimate(transformation, pairs, seed=lesson.seed)


def _rungs(pairs: Pairs, head: Head | None) -> Iterator[_Rung]:
    few = _too_few(pairs)
    no_head = (
        None if head is not None else "the new model's classifier, or how long its inputs are, is not known"
    )
    yield _Rung("procrustes", lambda lesson: procrustes(lesson.pairs), None)
    yield _Rung("ridge", lambda lesson: ridge(lesson.pairs, seed=lesson.seed), None)
    yield _Rung("near_orthogonal", lambda lesson: methods.near_orthogonal(lesson, NearOrthogonal()), few)
    yield _Rung("residual_mlp", methods.residual_mlp, few)
    yield _Rung("fct", methods.fct, few)
    yield _Rung("head_free", methods.head_free, few)
    yield _Rung("label_free", lambda lesson: methods.label_free(lesson, _given(head)), few or no_head)
    yield _Rung(
        "fastfill",
        lambda lesson: methods.fastfill(lesson, _given(head)),
        few or no_head or _unlabelled(pairs, head),
    )
    yield _Rung("by_class", methods.by_class, few or _unlabelled(pairs, None))


def _given(head: Head | None) -> Head:
    assert head is not None, "a rung that needs a head says so"
    return head


def _too_few(pairs: Pairs) -> str | None:
    old, _, side = pairs.dimensions
    needed = PAIRS_PER_DIMENSION * (old + side)
    if len(pairs) >= needed:
        return None
    return (
        f"{len(pairs)} pairs to fit on are fewer than {PAIRS_PER_DIMENSION} a dimension, which are {needed}"
    )


def _unlabelled(pairs: Pairs, head: Head | None) -> str | None:
    if pairs.labels is None:
        return "the pairs have no labels"
    largest = int(pairs.labels.max())
    if head is not None and largest >= head.num_classes:
        return f"label {largest} is none of the {head.num_classes} classes of the new model's classifier"
    return None
