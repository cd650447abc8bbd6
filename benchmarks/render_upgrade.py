"""Put the newest measurement of `upgrade.py` into docs/upgrade-proof.md.

    python benchmarks/render_upgrade.py [--check]

With --check nothing is written, and the exit code is 1 if the page is not what was measured.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from render import put
from upgrade_fits import METRICS, SETTINGS

PAGE = Path(__file__).parents[1] / "docs" / "upgrade-proof.md"
RESULTS = Path(__file__).parent / "results" / "upgrade.jsonl"
ORDERS = (
    "random",
    "sigma",
    "estimate",
    "entropy",
    "margin",
    "benefit",
    "oracle distance",
    "oracle benefit",
)
TITLES = {"A": "A: five classes to ten", "B": "B: 10,000 pictures to 50,000"}
WORDS = {"cosine": "by cosine", "l2": "by Euclidean distance"}

Line = dict[str, Any]


def main() -> None:
    lines = newest()
    texts = {"methods": methods(lines), "orders": orders(lines), "bars": bars(lines)}
    put(PAGE, texts, description=__doc__)


def newest() -> list[Line]:
    """The lines of the last run, over all of its seeds."""
    lines = [json.loads(text) for text in RESULTS.read_text().splitlines()]
    return [line for line in lines if line["date"] == lines[-1]["date"]]


def methods(lines: list[Line]) -> str:
    first, seeds = lines[0], sorted({line["seed"] for line in lines if "seed" in line})
    text = [
        f"Means over {len(seeds)} seeds of networks and transformations, in per cent; behind +-, half the",
        f"range of the seeds. {first['device']}, torch {first['versions']['torch']}, {first['date'][:10]}.",
        "",
    ]
    for metric in METRICS:
        for setting in SETTINGS:
            text += [f"### {TITLES[setting]}, {WORDS[metric]}", ""]
            text += method_table([line for line in lines if _of(line, setting, metric)])
            text.append("")
    return "\n".join(text)


def method_table(lines: list[Line]) -> list[str]:
    rows = [
        "| | mAP, nothing backfilled | gap closed | CMC@1 | CMC@5 | AUC of mAP, random | AUC, own order | "
        "own over random, 95 % | negative flips | exposure |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in dict.fromkeys(line["method"] for line in lines if "map" in line):
        same = [line for line in lines if line["method"] == name]
        cells = [spread(same, "map"), spread(same, "gap_closed"), mean(same, "cmc@1"), mean(same, "cmc@5")]
        if "auc" in same[0]:
            own = same[0]["own_order"]
            low, high = (
                100 * np.mean([line["own_order_over_random"][end] for line in same])
                for end in ("low", "high")
            )
            cells += [
                f"{100 * np.mean([line['auc']['random'] for line in same]):.1f}",
                f"{100 * np.mean([line['auc'][own] for line in same]):.1f} ({own})",
                f"{low:+.1f} to {high:+.1f}",
            ]
        else:
            cells += ["", "", ""]
        cells.append(mean(same, "negative_flips"))
        exposures = [line["exposure@10"] for line in same if "exposure@10" in line]
        cells.append(f"{np.mean(exposures):.2f}" if exposures else "")
        rows.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    return rows


def orders(lines: list[Line]) -> str:
    text: list[str] = []
    for metric in METRICS:
        for setting in SETTINGS:
            found = [
                line for line in lines if _of(line, setting, metric) and "entropy" in line.get("auc", {})
            ]
            if not found:
                continue
            text += [f"### {TITLES[setting]}, {WORDS[metric]}", ""]
            text += [f"| AUC of mAP (of CMC@1) | {' | '.join(ORDERS)} |", f"|---|{'--:|' * len(ORDERS)}"]
            for name in dict.fromkeys(line["method"] for line in found):
                same = [line for line in found if line["method"] == name]
                cells = [area(same, order) for order in ORDERS]
                text.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
            text.append("")
    return "\n".join(text)


def area(lines: list[Line], order: str) -> str:
    if order not in lines[0]["auc"]:
        return ""
    precision, first = (
        100 * np.mean([line[field][order] for line in lines]) for field in ("auc", "auc_cmc@1")
    )
    return f"{precision:.1f} ({first:.1f})"


def bars(lines: list[Line]) -> str:
    text = ["| bar | by cosine | by Euclidean distance |", "|---|---|---|"]
    found = [line for line in lines if line["case"] == "upgrade bar"]
    for name in dict.fromkeys(line["bar"] for line in found):
        cells = []
        for metric in METRICS:
            (line,) = [one for one in found if (one["bar"], one["metric"]) == (name, metric)] or [None]
            cells.append("" if line is None else f"{100 * line['value']:+.1f}: {line['verdict']}")
        text.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*text, ""])


def _of(line: Line, setting: str, metric: str) -> bool:
    return line["case"] == "upgrade" and (line["setting"], line["metric"]) == (setting, metric)


def mean(lines: list[Line], field: str) -> str:
    values = [line[field] for line in lines if field in line]
    return f"{100 * np.mean(values):.1f}" if values else ""


def spread(lines: list[Line], field: str) -> str:
    values = [100 * line[field] for line in lines if field in line]
    if not values:
        return ""
    return f"{np.mean(values):.1f} +- {(max(values) - min(values)) / 2:.1f}"


if __name__ == "__main__":
    main()
