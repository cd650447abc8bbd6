"""A cluster encodes as this machine does. In a process of its own, because Ray leaves warnings behind."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from regraft.data.on_ray import Cluster
from regraft.errors import RecipeError

SCRIPT = Path(__file__).with_name("encoding_on_ray.py")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict:
    if find_spec("ray") is None:
        pytest.skip("needs the extra ray")
    command = [sys.executable, str(SCRIPT), str(tmp_path_factory.mktemp("ray"))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_cluster_gives_the_same_bits_though_a_worker_is_killed(report: dict) -> None:
    assert report["remote_equals_local"]
    assert report["num_killed"] == 1
    assert report["num_local_processes"] == 1
    assert report["num_processes"] >= 2
    assert report["num_nodes"] == 2
    assert report["encoded"]
    assert (
        report["num_encoded_again"] <= 3 * 7
    )  # what the dead worker had in its queue, not what it had given


def test_a_backfill_goes_on_elsewhere(report: dict) -> None:
    assert report["endings"] == ["budget", "done"]
    assert report["continued_here_equals_local"]


def test_errors_come_back_whole(report: dict) -> None:
    assert report["error"].startswith("The encoder was given 64 items and returned 63 ids")


def test_ray_is_a_guest(report: dict) -> None:
    assert not report["usage_reported"]
    assert report["listens_as_before"]


def test_settings_must_make_sense() -> None:
    with pytest.raises(RecipeError, match="num_workers=0"):
        Cluster(num_workers=0)
