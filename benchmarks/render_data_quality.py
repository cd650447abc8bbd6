"""Put the newest measurements of students into docs/data-quality.md.

    python benchmarks/render_data_quality.py [--check]

With --check nothing is written, and the exit code is 1 if the page is not what they say.
"""

import json
import statistics
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
Line = dict[str, Any]


def main() -> None:
    newest = lines_of_newest()
    put(
        PAGE,
        {"where": where(newest), "students": students(newest), "costs": costs(newest)},
        description=__doc__,
    )


def lines_of_newest() -> list[Line]:
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return [line for line in lines if line["date"] == lines[-1]["date"]]


def of(lines: list[Line], arm: str) -> list[Line]:
    return [line for line in lines if line["arm"] == arm]


def where(lines: list[Line]) -> str:
    one = lines[0]
    epochs = next(line["epochs"] for line in lines if "epochs" in line)
    return (
        f"Measured on {one['device']}, 1 thread, {one['date'][:10]}, torch {one['versions']['torch']}, "
        f"{epochs} epochs.\n"
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
    rows = [
        "| learned from | processor seconds an epoch | of all epochs |",
        "|---|--:|--:|",
    ]
    for arm, name in NAMES.items():
        if found := of(lines, arm):
            whole = statistics.mean(line["cpu_s"] for line in found)
            rows.append(f"| {name} | {whole / found[0]['epochs']:.1f} | {whole:.0f} |")
    for arm, name in {
        "table_reinforced": "*once:* storing the teacher",
        "table_reinforced_after_ranges": "*once:* storing it with learned ranges",
        "teacher_training": "*once:* training the teacher (a step, measured, times its steps)",
    }.items():
        rows.extend(f"| {name} | | {line['cpu_s']:.0f} |" for line in of(lines, arm))
    return "\n".join([*rows, ""])


if __name__ == "__main__":
    main()
