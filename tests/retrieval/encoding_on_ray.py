"""Backfills galleries here and on a cluster of two nodes; `test_on_ray.py` runs it and reads what it prints.

Usage: encoding_on_ray.py FOLDER
"""

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import ray
import torch
from ray.cluster_utils import Cluster
from torch import nn
from upgrade_toys import NEW, NEW_DIMENSION, PLAN, Toy, contents, fill_gallery, transform

from regraft.data.on_ray import Cluster as Workers
from regraft.errors import SampleError
from regraft.retrieval.backfill import backfill_rows
from regraft.retrieval.batches import Budget
from regraft.retrieval.encoding import Encoded, Executor, here
from regraft.retrieval.ledger import Ledger
from regraft.retrieval.ledger_entries import Progress
from regraft.retrieval.on_ray import OnRay
from regraft.retrieval.store.memory import MemoryStore
from regraft.retrieval.upgrade import switch

NUM_ITEMS, BATCH_ITEMS = 150, 7
WIDTH = 96


class Network:
    """An encoder with a network whose last bits depend on the batch. Notes which process encodes what."""

    def __init__(self, log: Path) -> None:
        torch.manual_seed(0)
        layers = [nn.Conv1d(1, 16, 5), nn.GELU(), nn.Flatten(), nn.Linear(16 * (WIDTH - 4), NEW_DIMENSION)]
        self.network = nn.Sequential(*layers).eval()
        self.contents = Toy(NEW, WIDTH)
        self.log = log

    def __call__(self, ids: Sequence[str], sources: Sequence[str | None]) -> Encoded:
        node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "here"
        with self.log.open("a") as log:
            log.write("".join(f"{os.getpid()} {node} {name}\n" for name in ids))
        items = torch.from_numpy(np.stack([self.contents.vector(str(source)) for source in sources]))
        with torch.no_grad():
            vectors = self.network(items[:, None])
        return Encoded(list(ids), vectors.numpy())


class Losing:
    """An encoder that loses an item of every batch."""

    def __call__(self, ids: Sequence[str], sources: Sequence[str | None]) -> Encoded:
        return Encoded(list(ids[1:]), np.ones((len(ids) - 1, NEW_DIMENSION), np.float32))


def switched(folder: Path, name: str) -> tuple[MemoryStore, Ledger]:
    store = MemoryStore()
    fill_gallery(store, NUM_ITEMS)
    ledger = Ledger.create(folder / f"{name}.sqlite", PLAN)
    switch(store, ledger, transform)
    return store, ledger


def encoders(log: Path) -> list[tuple[int, str, str]]:
    return [
        (int(process), node, name) for process, node, name in map(str.split, log.read_text().splitlines())
    ]


def backfilled(folder: Path, name: str, executor: Executor, *, kill_after: int | None = None) -> dict:
    store, ledger = switched(folder, name)
    log = folder / f"{name}.log"
    killed: list[int] = []

    def watch(progress: Progress) -> None:
        if kill_after is not None and progress.batches_done == kill_after:
            killed.append(encoders(log)[-1][0])
            os.kill(killed[0], signal.SIGKILL)

    ending = backfill_rows(
        store, ledger, Network(log), executor=executor, batch_items=BATCH_ITEMS, watch=watch
    )
    assert ending == "done"
    found = encoders(log)
    return {
        "contents": contents(store),
        "processes": {process for process, _, _ in found},
        "nodes": {node for _, node, _ in found},
        "encoded": [item for _, _, item in found],
        "killed": killed,
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    local = backfilled(folder, "local", here)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    listening = signal.getsignal(signal.SIGTERM)
    on_ray = OnRay(Workers(num_workers=2, address=cluster.address))
    remote = backfilled(folder, "remote", on_ray, kill_after=3)

    paused_store, paused = switched(folder, "paused")
    budget = Budget(items=3 * BATCH_ITEMS)
    log = folder / "paused.log"
    ending = backfill_rows(
        paused_store, paused, Network(log), executor=on_ray, batch_items=BATCH_ITEMS, budget=budget
    )
    rows = backfill_rows(paused_store, paused, Network(log), executor=here)
    try:
        backfill_rows(*switched(folder, "losing"), Losing(), executor=on_ray)
        error = None
    except SampleError as raised:
        error = str(raised)
    report = {
        "remote_equals_local": remote["contents"] == local["contents"],
        "continued_here_equals_local": contents(paused_store) == local["contents"],
        "endings": [ending, rows],
        "error": error,
        "num_local_processes": len(local["processes"]),
        "num_processes": len(remote["processes"]),
        "num_nodes": len(remote["nodes"]),
        "num_killed": len(remote["killed"]),
        "encoded": sorted({*remote["encoded"]}) == sorted(local["encoded"]),
        "num_encoded_again": len(remote["encoded"]) - NUM_ITEMS,
        "usage_reported": os.environ["RAY_USAGE_STATS_ENABLED"] != "0",
        "listens_as_before": signal.getsignal(signal.SIGTERM) == listening,
    }
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps(report))


if __name__ == "__main__":
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # the cluster is started before the executor can say so
    main(Path(sys.argv[1]))
