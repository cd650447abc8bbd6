"""Charts for a page that may be light or dark: transparent, their text and lines in the page's own ink."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from regraft.deploy.latency import Latency
from regraft.train.journal import Event

INK = "#010203"
"""Drawn in place of the page's ink, which only the page knows, and replaced afterwards."""
FAINT = 0.25
"""Opacity of grid lines and of what is behind a smoothed curve."""
BLUE, GREEN, AMBER = "#3b82f6", "#12a573", "#f0a020"
FONT = "DejaVu Sans"
"""Comes with matplotlib, for measuring text; the page's own font is shown."""
LOOK: dict[Any, object] = {
    "svg.fonttype": "none",
    "font.family": FONT,
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
}


def training_chart(events: Sequence[Event], *, name: str = "training") -> str:
    """Loss of every step, smoothed, beside the share of unseen pictures named right, as SVG.

    Args:
        events: Of a training run.
        name: Keeps its ids apart from those of other charts on the page.
    """
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(9, 3), layout="constrained")
        loss, top1 = figure.subplots(1, 2, width_ratios=(3, 2))
        _draw_loss(loss, events)
        _draw_top1(top1, [event for event in events if "top1" in event.evaluation])
        return svg_of(figure, name)


def latency_chart(latencies: Mapping[int, Mapping[str, Latency]]) -> str:
    """A bar a candidate, its median, with a line to the 95th percentile; one panel a batch size; SVG.

    Args:
        latencies: By batch size, then by candidate.
    """
    with matplotlib.rc_context(LOOK):
        rows = max(len(candidates) for candidates in latencies.values())
        figure = Figure(figsize=(9, 0.8 + 0.42 * rows), layout=ConstrainedLayoutEngine(wspace=0.08))
        panels = figure.subplots(1, len(latencies), sharey=True, squeeze=False)[0]
        for axes, (batch_size, candidates) in zip(panels, latencies.items(), strict=True):
            _draw_latency(axes, batch_size, candidates)
        return svg_of(figure, "latency")


def smoothed(values: Sequence[float], width: int) -> np.ndarray:
    """Mean of the last `width` values at each place; of fewer at the start."""
    sums = np.cumsum([0.0, *values])
    starts = np.maximum(np.arange(1, len(sums)) - width, 0)
    return (sums[1:] - sums[starts]) / (np.arange(1, len(sums)) - starts)


def _draw_loss(axes: Axes, events: Sequence[Event]) -> None:
    steps, losses = [event.step for event in events], [event.loss for event in events]
    axes.plot(steps, losses, color=BLUE, alpha=FAINT, linewidth=0.8)
    axes.plot(steps, smoothed(losses, max(1, len(losses) // 40)), color=BLUE, linewidth=1.8)
    axes.set(title="Training loss (nats)", xlabel="step", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.grid(axis="y", color=INK, alpha=FAINT / 2, linewidth=0.6)


def _draw_top1(axes: Axes, events: Sequence[Event]) -> None:
    shares = [100 * event.evaluation["top1"] for event in events]
    axes.plot([event.step for event in events], shares, "o-", color=GREEN, markersize=5, linewidth=1.8)
    axes.set(title="Unseen pictures named right (%)", xlabel="step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.margins(x=0.08, y=0.15)
    axes.grid(axis="y", color=INK, alpha=FAINT / 2, linewidth=0.6)
    if shares:
        axes.annotate(
            f"{shares[-1]:.1f}",
            (events[-1].step, shares[-1]),
            (0, 7),
            textcoords="offset points",
            ha="center",
        )


def _draw_latency(axes: Axes, batch_size: int, candidates: Mapping[str, Latency]) -> None:
    medians = [latency.wall_median_ms for latency in candidates.values()]
    tails = [latency.wall_p95_ms for latency in candidates.values()]
    colours = [AMBER, *[BLUE] * (len(candidates) - 1)]
    places = range(len(candidates))
    axes.barh(places, medians, height=0.62, color=colours)
    axes.hlines(places, medians, tails, color=INK, linewidth=1.2)
    for place, median, tail in zip(places, medians, tails, strict=True):
        axes.annotate(f"{median:.2f}", (tail, place), (5, 0), textcoords="offset points", va="center")
    axes.set(title=f"Batch of {batch_size}: milliseconds a call", ylim=(len(candidates) - 0.5, -0.5))
    axes.set_yticks(list(places), list(candidates))
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.15)


def svg_of(figure: Figure, name: str) -> str:
    """The figure as an SVG element to be put into a page; `name` keeps its ids apart from others'."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    text = (
        text[text.index("<svg") :].replace(INK, "currentColor").replace(f"'{FONT}'", "system-ui, sans-serif")
    )
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
