"""The backfilling curve as a chart: what was expected, and what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from regraft.recipes.charts import AMBER, BLUE, FAINT, GREEN, INK, LOOK, svg_of
from regraft.recipes.forecast import Forecast


@dataclass(frozen=True)
class Measured:
    """The quality of the whole gallery at one share of native rows, searched by queries of its own."""

    share: float
    value: float


def curve_chart(
    forecast: Forecast,
    measured: Sequence[Measured] = (),
    *,
    old: float | None = None,
    full: float | None = None,
) -> str:
    """Expected quality over the share of rows that are encoded anew, with its interval, as SVG.

    Args:
        forecast: The curve of held-out pairs.
        measured: What was found of the gallery itself while it was backfilled.
        old: Quality of the gallery before the upgrade; `None` draws the forecast's.
        full: Quality measured with every row native; `None` draws none.
    """
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        axes = figure.subplots()
        shares = [100 * point.share for point in forecast.points]
        low, high = ([100 * value for value in column] for column in _ends(forecast))
        axes.fill_between(shares, low, high, color=BLUE, alpha=FAINT / 1.6, linewidth=0)
        means = [100 * point.mean for point in forecast.points]
        axes.plot(shares, means, color=BLUE, linewidth=1.8, label="expected, with its 95 % interval")
        before = 100 * (forecast.before.mean if old is None else old)
        axes.axhline(before, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), label="before the upgrade")
        if full is not None:
            axes.axhline(
                100 * full, color=GREEN, linewidth=1.0, linestyle=(0, (1, 2)), label="all rows native"
            )
        if measured:
            places = [100 * point.share for point in measured]
            values = [100 * point.value for point in measured]
            axes.plot(places, values, "o-", color=GREEN, markersize=5, linewidth=1.4, label="measured")
        axes.axvline(100 * forecast.stop, color=AMBER, linewidth=1.4, label="recommended stop")
        axes.set(title=f"{forecast.name} (%)", xlabel="rows encoded by the new model", xlim=(-1, 101))
        axes.xaxis.set_major_formatter(PercentFormatter())
        axes.margins(y=0.12)
        axes.grid(axis="y", color=INK, alpha=FAINT / 2, linewidth=0.6)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
        return svg_of(figure, "upgrade")


def _ends(forecast: Forecast) -> tuple[list[float], list[float]]:
    return [point.low for point in forecast.points], [point.high for point in forecast.points]
