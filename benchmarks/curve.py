"""What a whole backfilling curve costs, against one exact evaluation and the matrix product within it.

    OMP_NUM_THREADS=1 python benchmarks/curve.py [--rows 1000000] [--queries 2000] [--classes 1000]

Expected beforehand: the 22 points of a curve on a million vectors of 256 numbers cost at most 2.5 times one
exact evaluation of the same code, as long as a query has some thousand relevant items; with hundreds of
thousands, the 22 rankings themselves weigh in.

All candidates take turns in one process, so that the machine's load falls on all alike; the ratio is the
result. With one thread, processor time is what they cost however busy the machine is. The vectors are made
up: a direction for each class, and noise. One JSON line is appended to results/curve.jsonl.
"""

import argparse
import json
import resource
from pathlib import Path

import numpy as np
import torch

from record import append, environment
from regraft.deploy.latency import Latency, measure
from regraft.retrieval.curve import backfilling_curve
from regraft.retrieval.metrics import evaluate
from regraft.retrieval.ranking import BLOCK_QUERIES
from regraft.retrieval.relevance import Relevance

RESULTS = Path(__file__).parent / "results" / "curve.jsonl"
CHUNK_ROWS = 10_000


def main() -> None:
    arguments = parse()
    line = bench(arguments)
    append(RESULTS, [line])
    print(json.dumps(line, indent=2))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def bench(arguments: argparse.Namespace) -> dict[str, object]:
    draw = np.random.default_rng(0)
    num_rows, num_queries = arguments.rows, arguments.queries
    labels = draw.integers(0, arguments.classes, num_rows)
    native, transformed = galleries(labels, arguments.dimension, draw)
    ids = [str(row) for row in range(num_rows)]
    relevance = Relevance.by_labels(ids[:num_queries], ids, labels[:num_queries], labels)
    order, queries = draw.permutation(num_rows), native[:num_queries].copy()

    def product() -> None:
        block = np.empty((min(BLOCK_QUERIES, num_queries), num_rows), np.float32)
        for start in range(0, num_queries, BLOCK_QUERIES):
            some = queries[start : start + BLOCK_QUERIES]
            np.matmul(some, native.T, out=block[: len(some)])

    times = measure(
        {
            "product": product,
            "evaluation": lambda: evaluate(queries, native, relevance),
            "curve": lambda: backfilling_curve(queries, transformed, native, order, relevance),
        },
        repeats=arguments.repeats,
        warmup=0,
    )
    return {
        "case": "curve",
        "rows": num_rows,
        "dimension": arguments.dimension,
        "queries": num_queries,
        "classes": arguments.classes,
        "curve_per_evaluation": ratio(times["curve"], times["evaluation"]),
        "evaluation_per_product": ratio(times["evaluation"], times["product"]),
        "times": {name: latency.to_json() for name, latency in times.items()},
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        **environment("torch", "numpy"),
        "threads": torch.get_num_threads(),
    }


def galleries(labels: np.ndarray, dimension: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Native vectors around a direction a class, and transformed ones around the native."""
    centres = 0.5 * draw.standard_normal((labels.max() + 1, dimension), np.float32)
    native = np.empty((len(labels), dimension), np.float32)
    transformed = np.empty_like(native)
    for start in range(0, len(labels), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        shape = centres[labels[rows]].shape
        native[rows] = centres[labels[rows]] + draw.standard_normal(shape, np.float32)
        transformed[rows] = native[rows] + draw.standard_normal(shape, np.float32)
    return native, transformed


def ratio(one: Latency, other: Latency) -> dict[str, float]:
    return {
        "cpu": one.cpu_median_ms / other.cpu_median_ms,
        "wall": one.wall_median_ms / other.wall_median_ms,
    }


if __name__ == "__main__":
    main()
