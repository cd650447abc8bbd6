"""The backfilling curves of `upgrade.py` as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

SHOWN = (
    ("ridge", "random", "ridge, at random"),
    ("fct", "random", "FCT, at random"),
    ("fastfill", "random", "FastFill, at random"),
    ("fastfill", "sigma", "FastFill, by sigma"),
    ("fastfill+side_b", "sigma", "FastFill with side-information, by sigma"),
    ("by_class", "sigma", "by class, by sigma"),
    ("fastfill", "oracle benefit", "FastFill, by true benefit (oracle)"),
)


def draw(lines: Sequence[Mapping[str, object]], path: Path) -> None:
    """Mean average precision by cosine, over the seeds, against the share backfilled; a panel a setting."""
    mpl.rcParams["svg.hashsalt"] = "regraft"
    figure = Figure(figsize=(10, 4))
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (setting, title) in zip(
        panels, (("A", "five classes to ten"), ("B", "10,000 pictures to 50,000")), strict=True
    ):
        for method, order, label in SHOWN:
            values = _mean(lines, setting, method, order)
            if values is not None:
                style = ":" if "oracle" in order else "-"
                panel.plot(np.linspace(0, 100, len(values)), 100 * values, style, label=label)
        panel.set_title(f"{setting}: {title}")
        panel.set_xlabel("backfilled, %")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("mean average precision, %")
    panels[1].legend(fontsize=7, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)


def _mean(lines: Sequence[Mapping[str, object]], setting: str, method: str, order: str) -> np.ndarray | None:
    found = []
    for line in lines:
        curves = line.get("curves")
        same = (line.get("setting"), line.get("metric"), line.get("method")) == (setting, "cosine", method)
        if same and isinstance(curves, Mapping) and order in curves:
            found.append(np.array(curves[order]))
    return np.mean(found, axis=0) if found else None
