"""Put the newest measurements of tables and ranges into docs/reinforce.md.

    python benchmarks/render_reinforce.py [--check]

With --check nothing is written, and the exit code is 1 if the page is not what they say.
"""

import json
from pathlib import Path
from typing import Any

from render import put

PAGE = Path(__file__).parents[1] / "docs" / "reinforce.md"
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    put(PAGE, {"reinforce": reinforced(), "ranges": ranges()}, description=__doc__)


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RESULTS / f"{name}.jsonl").read_text().splitlines()]


def reinforced() -> str:
    one = lines("reinforce")[-1]
    rows = {
        "a record": f"{one['record_bytes']} bytes",
        "a record with its share of ids and checksums": f"{one['bytes_a_draw']:.1f} bytes",
        f"writing, {one['block_rows']:,} at a time, each time synced": (
            f"{one['records_a_wall_s'] / 1e6:.1f} million records a second"
        ),
        f"choosing and rounding the best {one['k']} on a CPU": f"{one['encode_us']:.1f} us an answer",
        f"reading a random batch of {one['batch']} as targets": f"{one['read_us']:.2f} us of processor time "
        "a sample",
        "**a reinforced epoch, to a plain one of such views**": f"**{one['epoch_ratio']:.3f} times**",
    }
    return "\n".join(
        [
            f"Measured on {one['device']}, 1 thread, {one['date'][:10]}, torch {one['versions']['torch']}:",
            f"{one['num_rows']:,} answers over {one['num_classes']:,} classes, the best {one['k']} of each.",
            "`python benchmarks/reinforce.py` repeats it.",
            "",
            "| | |",
            "|---|--:|",
            *(f"| {what} | {figure} |" for what, figure in rows.items()),
            "",
            "The last line is of a small MobileOne on pictures of 32 pixels in memory "
            f"({one['plain_step_ms']:.0f} ms a step of 128),",
            "steps taken in turns; larger networks and pictures make it smaller.",
            "",
        ]
    )


def ranges() -> str:
    """The newest measurement of each case."""
    newest = {
        (line["parameterisation"], line["optimizer"], line["operations"], line["target_db"]): line
        for line in lines("ranges")
    }
    one = next(iter(newest.values()))
    rows = {
        "ours, with SGD": ("half_widths", "sgd", "paper"),
        "ours, with AdamW": ("half_widths", "adamw", "paper"),
        "ours, six operations, with SGD": ("half_widths", "sgd", "all"),
        "ours, six operations, with AdamW": ("half_widths", "adamw", "all"),
        "as published": ("released", "sgd", "paper"),
    }
    targets = sorted({case[-1] for case in newest}, reverse=True)
    told = {
        name: [newest.get((*case, target)) for target in targets]
        for name, case in rows.items()
        if any((*case, target) in newest for target in targets)
    }
    return "\n".join(
        [
            f"Reached at the end of {one['steps']} steps on CIFAR-10, over {len(one['seeds'])} seeds, "
            f"{one['device']}, {one['date'][:10]}.",
            "`python benchmarks/ranges.py --images FOLDER` repeats it.",
            "",
            f"| target | {' | '.join(f'{target:g} dB' for target in targets)} |",
            f"|---|{'--:|' * len(targets)}",
            *(f"| {name} | {' | '.join(map(_reached, found))} |" for name, found in told.items()),
            "",
        ]
    )


def _reached(line: dict[str, Any] | None) -> str:
    if line is None:
        return ""
    low, high = min(line["reached_db"]), max(line["reached_db"])
    return f"{low:.1f} to {high:.1f}"


if __name__ == "__main__":
    main()
