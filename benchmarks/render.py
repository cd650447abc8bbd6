"""Put the newest results into the README's tables.

    python benchmarks/render.py [--check]

With --check nothing is written, and the exit code is 1 if a table is not what the results say.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
INFERENCE = Path(__file__).parent / "results" / "inference.jsonl"
COLUMNS = {
    "timm_compile": "timm, compiled",
    "ours_eager": "ours, eager",
    "ours_onnxruntime": "ours, ONNX Runtime",
    "ours_openvino": "ours, OpenVINO",
    "ours_openvino_bfloat16": "ours, OpenVINO bfloat16",
}
Line = dict[str, Any]


def main() -> None:
    put(README, {"inference": table(newest(INFERENCE))}, description=__doc__)


def put(page: Path, texts: Mapping[str, str], *, description: str | None) -> None:
    """Put texts between the marks of their names; with --check on the command line, only look.

    Args:
        page: Where the marks are.
        texts: By name.
        description: Of the script, for its --help.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    old = new = page.read_text()
    for name, text in texts.items():
        new = placed(new, name, text)
    if new != old and check:
        sys.exit(f"{page.name} is not what it should be; run: python {sys.argv[0]}")
    page.write_text(new)


def placed(page: str, name: str, text: str) -> str:
    """The page with `text` between the marks of a name."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, rest = page.split(begin)
    return f"{before}{begin}\n{text}{end}{rest.split(end)[1]}"


def newest(path: Path) -> list[Line]:
    """The last line of each network and batch size, in the order of the networks' first appearance."""
    lines = [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
    return list({(line["model"], line["batch"]): line for line in lines}.values())


def table(lines: list[Line]) -> str:
    if not lines:
        return ""
    batches = sorted({line["batch"] for line in lines})
    tables = (rows([line for line in lines if line["batch"] == batch], batch) for batch in batches)
    return "\n".join([heading(lines), *tables])


def heading(lines: list[Line]) -> str:
    line = lines[-1]
    versions = ", ".join(f"{name} {number}" for name, number in line["versions"].items())
    units = " and ".join(line["bfloat16_units"]) or "no bfloat16 units"
    size = line["gemm_size"]
    threads = "1 thread" if line["threads"] == 1 else f"{line['threads']} threads"
    return (
        f"Measured on {line['device']} with {threads} ({units}), {line['date'][:10]}:\n"
        f"{versions}.\n\n"
        "Factors are processor time of timm's reparameterized network in eager mode (channels_last)\n"
        "divided by that of the candidate, taken in turns in one process: larger is faster. *GEMM* is the\n"
        f"speed of the best float32 candidate relative to torch's own {size} x {size} float32 matrix\n"
        "product in the same rounds; above 100% its kernels beat torch's.\n"
        "`python benchmarks/inference.py` repeats it.\n"
    )


def rows(lines: list[Line], batch: int) -> str:
    names = [name for name in COLUMNS if all(name in line["times"] for line in lines)]
    header = f"| batch {batch} | timm, eager | " + " | ".join(COLUMNS[name] for name in names) + " | GEMM |"
    rule = "|---|--:" + "|--:" * len(names) + "|--:|"
    return "\n".join([header, rule, *(row(line, names) for line in lines)]) + "\n"


def row(line: Line, names: list[str]) -> str:
    cpu_ms = {name: time["cpu_median_ms"] for name, time in line["times"].items()}
    base = cpu_ms["timm_eager"]
    factors = " | ".join(f"{base / cpu_ms[name]:.2f}x" for name in names)
    return f"| {line['model']} | {base:.1f} ms | {factors} | {relative_speed(line, cpu_ms):.0%} |"


def relative_speed(line: Line, cpu_ms: dict[str, float]) -> float:
    """Speed of the fastest float32 candidate, relative to torch's float32 matrix product."""
    best = min(cpu_ms[name] for name in ("ours_eager", "ours_onnxruntime", "ours_openvino"))
    gemm_speed = line["gemm_size"] ** 3 / cpu_ms["gemm_float32"]
    return line["multiply_adds"] * line["batch"] / best / gemm_speed


if __name__ == "__main__":
    main()
