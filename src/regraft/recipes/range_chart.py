"""Learned ranges over training as a chart: how strongly pictures were varied, and by what."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from regraft.files import replacing
from regraft.recipes.charts import AMBER, BLUE, FAINT, GREEN, INK, LOOK, svg_of
from regraft.train.journal import read_events
from regraft.vision.range_operations import OPERATIONS

Evaluations = Sequence[tuple[int, Mapping[str, float]]]
"""Steps and the metrics of `WithLearnedRanges` after them."""

NUM_COLUMNS = 4


def evaluations_of(run: Path) -> Evaluations:
    """What was seen of a training run, each time that it was evaluated."""
    return [(event.step, event.evaluation) for event in read_events(run) if event.evaluation]


def write_range_chart(path: Path, evaluations: Evaluations) -> None:
    """Write the chart of a run that learned ranges, all or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(range_chart(evaluations), encoding="utf-8")


def range_chart(evaluations: Evaluations, *, name: str = "ranges") -> str:
    """The peak signal-to-noise ratio and its target, and a panel for each operation's range, as SVG.

    Args:
        evaluations: Of a training run; those without learned ranges are left out.
        name: Keeps its ids apart from those of other charts on the page.
    """
    drawn = [(step, metrics) for step, metrics in evaluations if "range_psnr_db" in metrics]
    operations = [known for known in OPERATIONS if drawn and f"range_{known}_low" in drawn[-1][1]]
    with matplotlib.rc_context(LOOK):
        num_rows = -(-(1 + len(operations)) // NUM_COLUMNS)
        figure = Figure(figsize=(9, 2.3 * num_rows), layout="constrained")
        panels = [
            figure.add_subplot(num_rows, NUM_COLUMNS, 1 + place) for place in range(1 + len(operations))
        ]
        _draw_strength(panels[0], drawn)
        for axes, operation in zip(panels[1:], operations, strict=True):
            _draw_range(axes, operation, drawn)
        return svg_of(figure, name)


def _draw_strength(axes: Axes, drawn: Evaluations) -> None:
    steps = [step for step, _ in drawn]
    wanted, reached = ([metrics[key] for _, metrics in drawn] for key in ("range_target_db", "range_psnr_db"))
    axes.plot(steps, wanted, color=AMBER, linewidth=1.4, label="target")
    axes.plot(steps, reached, color=BLUE, linewidth=1.8, label="reached")
    axes.set_title("PSNR (dB)")
    axes.legend(frameon=False, fontsize=9)
    _finish(axes)


def _draw_range(axes: Axes, operation: str, drawn: Evaluations) -> None:
    steps = [step for step, _ in drawn]
    low, high = ([metrics[f"range_{operation}_{end}"] for _, metrics in drawn] for end in ("low", "high"))
    axes.fill_between(steps, low, high, color=GREEN, alpha=FAINT, linewidth=0)
    for end in (low, high):
        axes.plot(steps, end, color=GREEN, linewidth=1.4)
    axes.axhline(OPERATIONS[operation].identity, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.set_title(operation)
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.grid(axis="y", color=INK, alpha=FAINT / 2, linewidth=0.6)
