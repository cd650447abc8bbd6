"""Both networks of `regraft demo` put to the test: how sure they are, how right, and how robust."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from regraft.errors import MissingExtra
from regraft.recipes.demo_steps import Earlier
from regraft.recipes.evaluation import random_subset
from regraft.recipes.parts import load_parts
from regraft.recipes.story import Facts, Follower, Result, Story
from regraft.vision.calibration import Bins
from regraft.vision.corruption_errors import CorruptionErrors, corruption_errors
from regraft.vision.corruptions import CORRUPTIONS, load_corruptions
from regraft.vision.data import ImageSet
from regraft.vision.evaluation import evaluate_classifier
from regraft.vision.modelfile import load_model

NUM_CORRUPTED = 100
SEVERITIES = (1, 3, 5)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a network is worth on unseen pictures."""

    top1: float
    """Share named right, in [0, 1]."""
    reliability: Bins
    corruption: CorruptionErrors | None
    """`None` where the package that corrupts is not installed."""

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "top1": self.top1,
            "calibration_error": self.reliability.error,
            "overconfidence": self.reliability.overconfidence,
            "reliability": self.reliability.to_json(),
            "corruption": self.corruption and self.corruption.to_json(),
        }

    @classmethod
    def from_json(cls, written: Facts) -> "Judged":
        """What `to_json` wrote."""
        corruption = written["corruption"]
        return cls(
            top1=written["top1"],
            reliability=Bins.from_json(written["reliability"]),
            corruption=corruption and CorruptionErrors.from_json(corruption),
        )


def judge(story: Story, earlier: Earlier, follower: Follower) -> Result:
    """Compare confidence with correctness on all unseen pictures, and corrupt some of them."""
    unseen = load_parts(story.parts).unseen
    corrupted = random_subset(unseen, NUM_CORRUPTED) if _can_corrupt() else None
    first, second = (_judged(model, unseen, corrupted, follower) for model in (story.fused, story.second))
    facts = {
        "first": first.to_json(),
        "second": second.to_json(),
        "num_corrupted": 0 if corrupted is None else len(corrupted),
        "severities": list(SEVERITIES),
    }
    headline = (
        f"calibration error {100 * first.reliability.error:.1f} % and {100 * second.reliability.error:.1f} %"
    )
    if first.corruption and second.corruption:
        wrong = [100 * errors.mean for errors in (first.corruption, second.corruption)]
        headline += f"; {wrong[0]:.1f} % and {wrong[1]:.1f} % of corrupted pictures named wrongly"
    return Result(headline, facts)


def _can_corrupt() -> bool:
    try:
        load_corruptions()
    except MissingExtra:
        return False
    return True


def _judged(model: Path, unseen: ImageSet, corrupted: ImageSet | None, follower: Follower) -> Judged:
    network, card = load_model(model)
    scores = evaluate_classifier(network, unseen, card.preprocess)
    test = partial(corruption_errors, corruptions=CORRUPTIONS, severities=SEVERITIES, watch=follower.advance)
    return Judged(
        top1=scores.top1,
        reliability=scores.reliability,
        corruption=None if corrupted is None else test(network, corrupted, card.preprocess),
    )
