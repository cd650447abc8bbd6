"""The bars that `upgrade.py` must clear, each read off its lines."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

Line = Mapping[str, object]
SLACK = 0.01
"""One point of mean average precision, for seeds."""
FASTFILL, FCT = ("fastfill", "sigma"), ("fct", "random")
"""Methods, and the orders they are known for."""


@dataclass(frozen=True)
class Bar:
    """A claim, the figure it is about, and the least it may be."""

    claim: str
    value: Callable[["Lines", str], float]
    least: float
    slack: float


class Lines:
    """What was measured, over all seeds.

    Args:
        lines: As `upgrade.py` writes them, one a seed, setting, metric and method.
    """

    def __init__(self, lines: list[Line]) -> None:
        self._lines = lines

    def mean(self, field: str, **where: str) -> float:
        """Mean of a field (with dots for depth) over the seeds; NaN if it was not measured."""
        chosen = [line for line in self._lines if all(line.get(key) == value for key, value in where.items())]
        values = [_field(line, field) for line in chosen]
        return float(np.mean(values)) if values else float("nan")


def _field(line: Line, path: str) -> float:
    value: object = line
    for key in path.split("."):
        assert isinstance(value, Mapping)
        value = value.get(key, float("nan"))
    assert isinstance(value, int | float)
    return float(value)


def closed(setting: str, method: str) -> Callable[[Lines, str], float]:
    return lambda lines, metric: lines.mean("gap_closed", setting=setting, metric=metric, method=method)


def area(lines: Lines, metric: str, setting: str, method: str, order: str) -> float:
    return lines.mean(f"auc.{order}", setting=setting, metric=metric, method=method)


def gains(
    claim: str, one: tuple[str, str], other: tuple[str, str], least: float, slack: float = 0.0
) -> Iterator[Bar]:
    """By how much the area of one method and order must be larger than that of another, in both settings."""
    for setting in "AB":

        def value(lines: Lines, metric: str, setting: str = setting) -> float:
            return area(lines, metric, setting, *one) - area(lines, metric, setting, *other)

        yield Bar(f"{setting}: {claim}", value, least, slack)


def bars() -> list[Bar]:
    """Gaps closed are shares, the rest mean average precision; a point of slack is 0.01 / gap of a share."""
    return [
        Bar("A: ridge closes 40 % of the gap", closed("A", "ridge"), 0.40, SLACK),
        Bar("A: FCT closes 48 %", closed("A", "fct"), 0.48, SLACK),
        Bar(
            "A: FCT with side-information (10,000 pictures of all classes) closes 62 %",
            closed("A", "fct+side_b"),
            0.62,
            SLACK,
        ),
        Bar(
            "A: FCT with side-information (the old model's pictures) closes 62 %",
            closed("A", "fct+side_a"),
            0.62,
            SLACK,
        ),
        Bar("B: Procrustes closes 52 %", closed("B", "procrustes"), 0.52, SLACK),
        Bar("B: FastFill closes 75 %", closed("B", "fastfill"), 0.75, SLACK),
        *gains("AUC of FastFill by sigma is FCT's at random + 2.0", FASTFILL, FCT, 0.02, SLACK),
        *gains("AUC of FastFill by sigma is its own at random + 1.0", FASTFILL, ("fastfill", "random"), 0.01),
        Bar("A: 150 pairs (Procrustes) close 15 %", closed("A", "procrustes@150"), 0.15, SLACK),
        Bar("B: 150 pairs (Procrustes) close 45 %", closed("B", "procrustes@150"), 0.45, SLACK),
        *gains(
            "stretch, AUC by predicted benefit is that by sigma + 0.5",
            ("fastfill", "benefit"),
            FASTFILL,
            0.005,
        ),
        *gains("stretch, label-free is within 0.5 of FastFill", ("label_free", "sigma"), FASTFILL, -0.005),
    ]


def ours() -> list[Bar]:
    """What takes the place of FastFill where it misses a bar because vectors are compared by cosine."""
    by_class, label_free, fct = ("by_class", "sigma"), ("label_free", "sigma"), ("fct", "estimate")
    return [
        Bar("B: learning by class closes 75 %", closed("B", "by_class"), 0.75, SLACK),
        *gains("AUC of learning by class, by sigma, is FCT's at random + 2.0", by_class, FCT, 0.02, SLACK),
        *gains("AUC of label-free FastFill by sigma is FCT's at random + 2.0", label_free, FCT, 0.02, SLACK),
        *gains("AUC of FCT by an estimate from held-out pairs is its own at random + 1.0", fct, FCT, 0.01),
    ]


def verdicts(lines: Lines, metric: str) -> list[dict[str, object]]:
    """Each bar, what was measured in one metric, and whether that clears it, with slack or without."""
    found = []
    for bar in [*bars(), *(ours() if metric == "cosine" else [])]:
        value = bar.value(lines, metric)
        setting = bar.claim[0]
        gap = lines.mean("gap", setting=setting, metric=metric, method="procrustes")
        slack = bar.slack / gap if "%" in bar.claim else bar.slack
        verdict = (
            "pass" if value >= bar.least else "pass with slack" if value >= bar.least - slack else "FAIL"
        )
        verdict = "not measured" if np.isnan(value) else verdict
        found.append(
            {"bar": bar.claim, "metric": metric, "value": value, "least": bar.least, "verdict": verdict}
        )
    return found
