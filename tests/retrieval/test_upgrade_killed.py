"""Upgrades that are killed at any instant end like one that is left alone, and are right all the while.

`REGRAFT_NUM_KILLS` sets the number of kills at random instants on every store; without it there are a hundred
on LanceDB, which keeps galleries by itself, and fewer on the others.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killed_upgrade.py")
NUM_KILLS = {"lance": 100, "pgvector": 15, "qdrant-edge": 15}
STEPS = {"transform", "switch", "backfill", "half", "roll_back", "finish"}


@pytest.fixture(params=NUM_KILLS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def place(kind: str, tmp_path: Path) -> str:
    if kind == "pgvector":
        from pgvector_here import postgres_here

        return postgres_here().url("{}")
    if kind == "qdrant-edge":
        pytest.importorskip("qdrant_edge", reason="needs the extra qdrant")
    return str(tmp_path / "galleries")


def test_upgrades_survive_any_kill(kind: str, place: str, tmp_path: Path) -> None:
    num_kills = int(os.environ.get("REGRAFT_NUM_KILLS", NUM_KILLS[kind]))
    (tmp_path / "galleries").mkdir()
    command = [sys.executable, str(SCRIPT), kind, place, str(tmp_path), str(num_kills)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    print(report)
    assert sum(report["kills"].values()) >= num_kills
    assert {*report["kills"], *report["between_commits"]} == STEPS
    assert report["answers"] > report["upgrades"]
