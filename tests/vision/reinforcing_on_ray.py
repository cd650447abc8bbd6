"""Records a table here and on a cluster of two nodes, a worker of which is killed; `test_reinforce_on_ray.py`
runs it and reads what it prints.

Usage: reinforcing_on_ray.py FOLDER
"""

import json
import os
import signal
import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from reinforcing import teacher, views, write_pictures
from torch import Tensor

from regraft.data.on_ray import Cluster as Workers
from regraft.errors import RecipeError
from regraft.vision.blocks_on_ray import OnRay
from regraft.vision.reinforce import record
from regraft.vision.teachers import Teacher

NUM_DRAWS = 200


class Noting:
    """A teacher that notes which process asks it."""

    def __init__(self, teacher: Teacher, log: Path) -> None:
        self.teacher, self.log = teacher, log
        self.labels, self.fingerprint = teacher.labels, teacher.fingerprint

    def __call__(self, pixels: Tensor) -> Tensor:
        node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "here"
        with self.log.open("a") as log:
            log.write(f"{os.getpid()} {node}\n")
        return self.teacher(pixels)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def main(folder: Path) -> None:
    samples = write_pictures(folder / "pictures")
    told = teacher(samples)
    record(folder / "here", views(samples), told, num_draws=NUM_DRAWS, top_k=3)

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    log, killed = folder / "log", list[int]()

    def watch(num_done: int, num_total: int) -> None:
        if num_done >= 2 * 2 * NUM_DRAWS and not killed:
            killed.append(int(log.read_text().split()[-2]))
            os.kill(killed[0], signal.SIGKILL)

    run = OnRay(Workers(num_workers=2, address=cluster.address))
    noting = Noting(told, log)
    record(folder / "there", views(samples), noting, num_draws=NUM_DRAWS, top_k=3, run=run, watch=watch)
    try:
        next(Workers(num_gpus=1, address=cluster.address).map(abs, iter([1])))
        refused = ""
    except RecipeError as error:
        refused = str(error)
    asked = [line.split() for line in log.read_text().splitlines()]
    report = {
        "same": contents(folder / "here") == contents(folder / "there"),
        "num_killed": len(killed),
        "num_processes": len({process for process, _ in asked}),
        "refused": refused,
        "num_nodes": len({node for _, node in asked}),
    }
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
