"""Put the newest measurements of students into docs/data-quality.md.

    python benchmarks/render_data_quality.py [--check]

With --check nothing is written, and the exit code is 1 if the page is not what they say.
"""

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from render import put

PAGE = Path(__file__).parents[1] / "docs" / "data-quality.md"
RESULTS = Path(__file__).parent / "results" / "data_quality.jsonl"
NAMES = {
    "plain": "labels; shifted and mirrored pictures",
    "rand_augment": "and RandAugment (14 operations)",
    "learned_ranges": "and learned ranges (3 operations, to 20 dB)",
    "weaker_ranges": "and learned ranges (3 operations, to 30 dB)",
    "distilled": "the teacher, asked in every step",
    "reinforced": "the teacher, stored once",
    "reinforced_after_ranges": "the same, with the ranges learned before",
}
NEEDS = {
    "distilled": ("teacher_training",),
    "reinforced": ("teacher_training", "table"),
    "reinforced_after_ranges": ("teacher_training", "table", "learned_ranges"),
}
"""What is paid once for a row."""
SCALES = ("small", "large")
Line = dict[str, Any]


def main() -> None:
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    values: dict[str, str] = {}
    for scale in SCALES:
        judged = newest(line for line in lines if "arm" in line and line.get("scale") == scale)
        values |= {f"{scale}-where": where(judged), f"{scale}-students": students(judged)}
    values["costs"] = costs(newest(line for line in lines if "cost" in line and line["scale"] == "small"))
    put(PAGE, values, description=__doc__)


def newest(lines: Iterable[Line]) -> list[Line]:
    """Those of the last measurement."""
    chosen = list(lines)
    return [line for line in chosen if line["date"] == chosen[-1]["date"]]


def of(lines: list[Line], arm: str) -> list[Line]:
    return [line for line in lines if line["arm"] == arm]


def where(lines: list[Line]) -> str:
    trained = sorted({line["trained_on"].removeprefix("cpu: ") for line in lines})
    return (
        f"Trained on {' and '.join(trained)}, {lines[0]['epochs']} epochs; judged on {lines[0]['device']}, "
        f"{lines[0]['date'][:10]}, torch {lines[0]['versions']['torch']}.\n"
    )


def students(lines: list[Line]) -> str:
    rows = [
        "| learned from | top-1 | over plain | ECE | error, corrupted | seeds |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    plain = {line["seed"]: line["top1"] for line in of(lines, "plain")}
    for arm, name in NAMES.items():
        found = of(lines, arm)
        if not found:
            continue
        shared = [100 * (line["top1"] - plain[line["seed"]]) for line in found if line["seed"] in plain]
        over = f"{statistics.mean(shared):+.1f}" if arm != "plain" and shared else ""
        cells = (spread(found, name) for name in ("top1", "ece", "corruption_error"))
        top1, ece, corrupted = cells
        rows.append(f"| {name} | {top1} | {over} | {ece} | {corrupted} | {len(found)} |")
    (teacher,) = of(lines, "teacher")
    rows.append(
        f"| *the teacher* | {100 * teacher['top1']:.1f} | | {100 * teacher['ece']:.1f} "
        f"| {100 * teacher['corruption_error']:.1f} | |"
    )
    return "\n".join([*rows, ""])


def spread(lines: list[Line], name: str) -> str:
    values = [100 * line[name] for line in lines]
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def costs(lines: list[Line]) -> str:
    cost = {line["cost"]: line for line in lines}
    whole = {name: line["cpu_s"] * line["times"] for name, line in cost.items()}
    one = cost["plain"]
    rows = [
        f"Processor seconds, of steps taken in turns ({one['device']}, 1 thread, {one['date'][:10]}):\n",
        "| learned from | a step, to plain | an epoch | by the clock | all epochs | and what is paid once |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for arm, name in NAMES.items():
        step_s, steps_an_epoch = cost[arm]["cpu_s"], cost[arm]["steps_an_epoch"]
        once = sum(whole[what] for what in NEEDS.get(arm, ()))
        rows.append(
            f"| {name} | {step_s / one['cpu_s']:.2f} | {step_s * steps_an_epoch:.1f} "
            f"| {cost[arm]['wall_s'] * steps_an_epoch:.1f} | {whole[arm]:.0f} | {whole[arm] + once:.0f} |"
        )
    for what, name in {
        "table": f"storing the teacher: {cost['table']['times']:,} views",
        "teacher_training": "training the teacher",
    }.items():
        rows.append(f"| *once:* {name} | | | | | {whole[what]:.0f} |")
    return "\n".join([*rows, ""])


if __name__ == "__main__":
    main()
