"""A cluster records the same bytes. In a process of its own, because Ray leaves warnings behind."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("reinforcing_on_ray.py")


def test_a_cluster_records_the_same_bytes_though_a_worker_is_killed(tmp_path: Path) -> None:
    if find_spec("ray") is None:
        pytest.skip("needs the extra ray")
    command = [sys.executable, str(SCRIPT), str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["same"]
    assert report["num_killed"] == 1
    assert report["num_processes"] >= 3  # two, and the one in the place of the dead
    assert report["num_nodes"] == 2
    assert report["refused"].startswith("A worker wants 1 GPU, but the cluster has 0")
