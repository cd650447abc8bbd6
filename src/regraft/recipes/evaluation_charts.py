"""Charts of an evaluation: whether confidences can be believed, and what corruptions cost."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from regraft.recipes.charts import AMBER, BLUE, FAINT, GREEN, INK, LOOK, svg_of
from regraft.vision.calibration import Bins
from regraft.vision.corruption_errors import CorruptionErrors
from regraft.vision.corruptions import FAMILIES

DASHES = (0, (4, 3))
BAR_SHARE = 0.92
"""How much of a bin's width its bar takes."""
ROW_INCHES = 0.27
FAMILY_GAP = 1.7
"""Rows from the last corruption of one kind to the first of the next."""


def reliability_chart(bins: Bins, *, name: str = "reliability") -> str:
    """How often answers are right over how sure they are, beside how many are how sure, as SVG.

    Args:
        bins: Of equal width, as `calibration.confidence_bins` makes them.
        name: Keeps its ids apart from those of other charts on the page.
    """
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(9, 4.2), layout=ConstrainedLayoutEngine(wspace=0.06))
        reliability, histogram = figure.subplots(1, 2)
        _draw_reliability(reliability, bins)
        _draw_histogram(histogram, bins)
        return svg_of(figure, name)


def corruption_chart(errors: CorruptionErrors, *, name: str = "corruptions") -> str:
    """A row a corruption with a dot a severity, the darker the stronger, beside the clean error, as SVG.

    Args:
        errors: What was measured.
        name: Keeps its ids apart from those of other charts on the page.
    """
    rows = [[name for name in names if name in errors.errors] for names in FAMILIES.values()]
    families = [names for names in rows if names]
    num_rows = len(errors.errors) + len(families)
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(9, 1.3 + ROW_INCHES * num_rows), layout="constrained")
        axes = figure.subplots()
        _draw_corruptions(axes, errors, families)
        axes.axvline(100 * errors.clean, color=GREEN, linewidth=1.4, linestyle=DASHES)
        _severity_legend(axes, errors.severities)
        return svg_of(figure, name)


def _draw_reliability(axes: Axes, bins: Bins) -> None:
    edges, width = _edges(bins)
    there = bins.num > 0
    left, bar_width = edges[there], BAR_SHARE * width
    axes.bar(left, 100 * bins.accuracy[there], bar_width, align="edge", color=BLUE, label="named right")
    confidence = 100 * bins.confidence[there]
    axes.hlines(confidence, left, left + bar_width, color=AMBER, linewidth=2.2, label="mean confidence")
    axes.plot([0, 100], [0, 100], color=INK, linewidth=1.0, linestyle=DASHES)
    axes.set(title="Named right (%)", ylim=(0, 100))
    _over_confidence(axes)


def _draw_histogram(axes: Axes, bins: Bins) -> None:
    edges, width = _edges(bins)
    total = bins.num.sum()
    axes.bar(edges, 100 * bins.num / total, BAR_SHARE * width, align="edge", color=INK, alpha=FAINT)
    right, sure = 100 * bins.num_right.sum() / total, 100 * bins.total_confidence.sum() / total
    axes.axvline(right, color=BLUE, linewidth=1.8, label=f"named right {right:.1f} %")
    axes.axvline(sure, color=AMBER, linewidth=1.8, linestyle=DASHES, label=f"mean confidence {sure:.1f} %")
    axes.set(title="Pictures (%)")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    _over_confidence(axes)


def _over_confidence(axes: Axes) -> None:
    axes.set(xlabel="confidence", xlim=(0, 100), xticks=range(0, 101, 20))
    axes.set_box_aspect(1)
    axes.xaxis.set_major_formatter(PercentFormatter())
    axes.legend(
        frameon=False, fontsize=9, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.17),
        handlelength=1.2, columnspacing=1.4,
    )  # fmt: skip


def _edges(bins: Bins) -> tuple[np.ndarray, float]:
    """The left edge of each bin, and the width of all, in per cent."""
    width = 100 / len(bins.num)
    return width * np.arange(len(bins.num)), width


def _draw_corruptions(axes: Axes, errors: CorruptionErrors, families: Sequence[Sequence[str]]) -> None:
    places: dict[str, float] = {}
    for names in families:
        start = max(places.values(), default=-FAMILY_GAP) + FAMILY_GAP
        places |= {name: start + row for row, name in enumerate(names)}
    for name, place in places.items():
        shares = {severity: 100 * error for severity, error in errors.errors[name].items()}
        axes.hlines(place, min(shares.values()), max(shares.values()), color=INK, alpha=FAINT, linewidth=1.0)
        for severity, share in shares.items():
            axes.plot(share, place, **_dot(severity))
        _annotate(axes, f"{100 * errors.by_corruption[name]:.1f}", place)
    _annotate(axes, "mean", -1.0)
    axes.set_yticks(list(places.values()), [name.replace("_", " ") for name in places])
    axes.set(xlabel="pictures named wrongly", ylim=(max(places.values()) + 0.8, -0.8))
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.grid(axis="x", color=INK, alpha=FAINT / 2, linewidth=0.6)
    axes.spines["left"].set_visible(False)


def _annotate(axes: Axes, text: str, place: float) -> None:
    """Write a text at the right end of a row."""
    axes.annotate(
        text, (1, place), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="center", fontsize=9, annotation_clip=False,
    )  # fmt: skip


def _severity_legend(axes: Axes, severities: Sequence[int]) -> None:
    dots = [Line2D([], [], **_dot(severity)) for severity in severities]
    clean = Line2D([], [], color=GREEN, linewidth=1.4, linestyle=DASHES)
    names = ["severity " * (severity == severities[0]) + str(severity) for severity in severities]
    axes.legend(
        [*dots, clean], [*names, "clean"], frameon=False, fontsize=9, ncols=len(dots) + 1, handletextpad=0.3,
        columnspacing=1.2, loc="lower left", bbox_to_anchor=(-0.01, 1.0), borderaxespad=0.2,
    )  # fmt: skip


def _dot(severity: int) -> dict[str, Any]:
    """A mark whose opacity tells the severity, which looks alike on light and on dark pages."""
    mark = {"marker": "o", "linestyle": "", "color": BLUE, "markersize": 6.5, "markeredgewidth": 0}
    return mark | {"alpha": 0.1 + 0.18 * severity}
