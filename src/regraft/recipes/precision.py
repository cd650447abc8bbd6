"""How good the answers of a gallery are, where every picture has a class."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True)
class Labelled:
    """The answer to one query, in classes."""

    query: str
    """Path of the query."""
    label: int
    """Class of the query."""
    hits: tuple[str, ...]
    """Paths of the hits, best first."""
    hit_labels: tuple[int, ...]
    """Class of each hit."""
    scores: tuple[float, ...]
    """Cosine of each hit with the query."""

    @property
    def is_right(self) -> bool:
        """Whether the best hit is of the query's class."""
        return self.hit_labels[0] == self.label

    def precision(self, k: int) -> float:
        """Share of the first `k` hits, or of all if there are fewer, that are of the query's class."""
        first = self.hit_labels[:k]
        return first.count(self.label) / len(first)


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Mean precision over some queries, in [0, 1]."""

    num_queries: int
    at_1: float
    at_5: float
    chance: float
    """What pictures drawn from the gallery at random would score."""


def measure_precision(answers: Sequence[Labelled], gallery_labels: Sequence[int]) -> Precision:
    """Average over `answers`, of which there is at least one.

    Args:
        gallery_labels: The class of every picture in the gallery.
    """
    return Precision(
        num_queries=len(answers),
        at_1=fmean(answer.precision(1) for answer in answers),
        at_5=fmean(answer.precision(5) for answer in answers),
        chance=fmean(gallery_labels.count(answer.label) / len(gallery_labels) for answer in answers),
    )


def typical(answers: Sequence[Labelled], most: int) -> list[Labelled]:
    """The first right answer of a class, for up to `most` classes, spread evenly over those that have one."""
    first: dict[int, Labelled] = {}
    for answer in sorted(answers, key=lambda answer: (answer.label, answer.query)):
        if answer.is_right:
            first.setdefault(answer.label, answer)
    found = list(first.values())
    return [found[place * len(found) // most] for place in range(most)] if len(found) > most else found


def surest_mistakes(answers: Sequence[Labelled], most: int) -> list[Labelled]:
    """The wrong answers with the highest score: what the model is wrong about with the most confidence."""
    wrong = [answer for answer in answers if not answer.is_right]
    return sorted(wrong, key=lambda answer: (-answer.scores[0], answer.query))[:most]
