"""A sweep over strengths as a page."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from regraft.recipes.charts import AMBER, BLUE, FAINT, INK, LOOK, svg_of
from regraft.recipes.pages import write_page
from regraft.recipes.range_chart import evaluations_of, range_chart
from regraft.recipes.sweep import Sweep, Trial


def write_sweep_page(path: Path, found: Sweep) -> None:
    """Write one HTML file that needs nothing beside it."""
    learned = {
        trial.name: Markup(range_chart(evaluations_of(Path(trial.run)), name=f"ranges{number}"))
        for number, trial in enumerate(found.trials)
        if trial.target_db is not None
    }
    chart = Markup(sweep_chart(found.trials))
    write_page(path, "sweep.html.j2", {"sweep": found, "chart": chart, "learned": learned})


def sweep_chart(trials: Sequence[Trial]) -> str:
    """Held-out pictures named right over the strength, clean and corrupted, beside no variation; SVG."""
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        axes = figure.subplots()
        lines = {
            "clean": (BLUE, {trial.target_db: trial.top1 for trial in trials}),
            "corrupted": (
                AMBER,
                {
                    trial.target_db: trial.corrupted_top1
                    for trial in trials
                    if trial.corrupted_top1 is not None
                },
            ),
        }
        for name, (colour, shares) in lines.items():
            points = sorted((db, 100 * share) for db, share in shares.items() if db is not None)
            if points:
                axes.plot(*zip(*points, strict=True), "o-", color=colour, markersize=5, linewidth=1.8)
                axes.annotate(name, points[0], (7, 0), textcoords="offset points", va="center", color=colour)
            if None in shares:
                axes.axhline(100 * shares[None], color=colour, linestyle="--", linewidth=1, alpha=0.7)
        axes.set(
            title="Held-out pictures named right (%); dashed: not varied",
            xlabel="target of the peak signal-to-noise ratio (dB): strong on the right",
        )
        axes.invert_xaxis()
        axes.margins(x=0.12, y=0.15)
        axes.grid(axis="y", color=INK, alpha=FAINT / 2, linewidth=0.6)
        return svg_of(figure, "sweep")
