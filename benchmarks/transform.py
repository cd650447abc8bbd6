"""How fast a gallery is transformed, against copying it and against the matrix products alone.

    python benchmarks/transform.py [--rows 1000000] [--width 512] [--folder /tmp]

A memory-mapped file of rows x 256 float32 goes to another, through a linear map and through FCT's network,
block by block. Expected beforehand: the network takes at most 1.5 times as long as its matrix products, the
linear map is bound by memory, and neither needs more memory for more rows.

The rows go through all candidates in slices, in turns, so that the machine's load falls on all alike; the
ratio is the result. `copy` reads and writes the same files through the same blocks. One thread. One JSON line
is appended to results/transform.jsonl.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from record import append, environment
from regraft.retrieval.transform import BLOCK_ROWS, Affine, Transformation, TwoBranch

RESULTS = Path(__file__).parent / "results" / "transform.jsonl"
DIMENSION = 256
NUM_SLICES = 10
Pass = Callable[[np.ndarray, np.ndarray], None]


def through(transformation: Transformation) -> Pass:
    def run(source: np.ndarray, target: np.ndarray) -> None:
        start = 0
        for block in transformation.blocks(source):
            target[start : start + len(block)] = block.vectors
            start += len(block)

    return run


def copy(source: np.ndarray, target: np.ndarray) -> None:
    for start in range(0, len(source), BLOCK_ROWS):
        target[start : start + BLOCK_ROWS] = source[start : start + BLOCK_ROWS]


def products(transformation: Transformation) -> Pass:
    """The matrix products that a transformation is made of, on one block that stays in the cache."""
    linears = [part for part in transformation.modules() if isinstance(part, nn.Linear)]
    shapes = [tuple(part.weight.shape) for part in linears] or [
        tuple(transformation.get_parameter("weight").shape)
    ]
    pairs = [(torch.randn(BLOCK_ROWS, columns), torch.randn(columns, rows)) for rows, columns in shapes]

    def run(source: np.ndarray, target: np.ndarray) -> None:
        with torch.inference_mode():
            for _ in range(0, len(source), BLOCK_ROWS):
                for left, right in pairs:
                    torch.mm(left, right)

    return run


def own_memory_mb() -> float:
    """Memory of this process alone; pages of the mapped files are the system's to keep or drop."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def measure(rows: int, width: int, folder: Path) -> dict[str, object]:
    affine = Affine(torch.randn(DIMENSION, DIMENSION), torch.zeros(DIMENSION)).eval()
    network = TwoBranch(DIMENSION, DIMENSION, width=width).eval()
    candidates = {
        "copy": copy,
        "linear": through(affine),
        "linear_products": products(affine),
        "network": through(network),
        "network_products": products(network),
    }
    source = np.lib.format.open_memmap(folder / "old.npy", "w+", np.float32, (rows, DIMENSION))
    target = np.lib.format.open_memmap(folder / "new.npy", "w+", np.float32, (rows, DIMENSION))
    generator = np.random.default_rng(0)
    step = rows // NUM_SLICES
    for start in range(0, rows, step):
        source[start : start + step] = generator.standard_normal(
            (len(source[start : start + step]), DIMENSION)
        )
    seconds = dict.fromkeys(candidates, 0.0)
    memory = [own_memory_mb()]
    for start in range(0, rows, step):
        for name, run in candidates.items():
            before = time.process_time()
            run(source[start : start + step], target[start : start + step])
            seconds[name] += time.process_time() - before
            memory.append(own_memory_mb())
    half = len(memory) // 2
    return {
        "rows_per_cpu_s": {name: rows / taken for name, taken in seconds.items()},
        "copied_gb_per_cpu_s": 2 * 4 * DIMENSION * rows / seconds["copy"] / 1e9,
        "linear_over_copy": seconds["linear"] / seconds["copy"],
        "linear_over_products": seconds["linear"] / seconds["linear_products"],
        "network_over_products": seconds["network"] / seconds["network_products"],
        "own_memory_mb": max(memory),
        "own_memory_growth_mb": max(memory[half:]) - max(memory[:half]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        found = measure(arguments.rows, arguments.width, Path(folder))
    line = {
        "case": "transform",
        "rows": arguments.rows,
        "dimension": DIMENSION,
        "width": arguments.width,
        **found,
        "threads": 1,
        **environment("torch", "numpy"),
    }
    append(RESULTS, [line])
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
