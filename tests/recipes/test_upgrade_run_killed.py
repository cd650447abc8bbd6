"""`upgrade.run`, killed at any instant and run again, ends to the bit like one that is left alone."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from galleries import write_model, write_pictures

from regraft.recipes.gallery import add
from regraft.recipes.pairing import FromGallery
from regraft.recipes.upgrade_plan import plan

SCRIPT = Path(__file__).with_name("killed_run.py")
NUM_PICTURES, NUM_KNOWN = 300, 40
NUM_KILLS = 12


def rows_after(gallery: Path, num_kills: int) -> tuple[dict[str, Any], dict[str, int]]:
    command = [sys.executable, str(SCRIPT), str(gallery), str(num_kills)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return pickle.loads(Path(f"{gallery}.rows").read_bytes()), json.loads(done.stdout)


def test_a_run_survives_any_kill(tmp_path: Path) -> None:
    old, new = (write_model(tmp_path / f"{seed}.safetensors", seed) for seed in (0, 1))
    write_pictures(tmp_path / "pictures", NUM_PICTURES)
    add(tmp_path / "left alone", [tmp_path / "pictures"], model=old)
    plan(tmp_path / "left alone", new, pairs=FromGallery(NUM_KNOWN))
    shutil.copytree(tmp_path / "left alone", tmp_path / "killed")
    expected, none = rows_after(tmp_path / "left alone", 0)
    found, kills = rows_after(tmp_path / "killed", NUM_KILLS)
    print(kills)
    assert none == {}
    assert sum(kills.values()) >= NUM_KILLS // 2
    assert len(kills) > 1, "killed in one phase only"
    assert len(expected) == NUM_PICTURES
    assert {origin for _, origin in expected.values()} == {"native"}
    assert found == expected
