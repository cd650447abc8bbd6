"""`upgrade.run`, killed at any instant and run again, ends to the bit like one that is left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

from galleries import write_model, write_pictures

from regraft.recipes.gallery import add
from regraft.recipes.pairing import FromGallery
from regraft.recipes.upgrade_plan import plan

SCRIPT = Path(__file__).with_name("killed_run.py")
NUM_PICTURES, NUM_KNOWN = 300, 40
NUM_KILLS = 12


def test_a_run_survives_any_kill(tmp_path: Path) -> None:
    old, new = (write_model(tmp_path / f"{seed}.safetensors", seed) for seed in (0, 1))
    write_pictures(tmp_path / "pictures", NUM_PICTURES)
    add(tmp_path / "gallery", [tmp_path / "pictures"], model=old)
    plan(tmp_path / "gallery", new, pairs=FromGallery(NUM_KNOWN))
    command = [sys.executable, str(SCRIPT), str(tmp_path / "gallery"), str(NUM_KILLS)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout)
    print(kills)
    assert sum(kills.values()) >= NUM_KILLS
    assert len(kills) >= 2, "killed in one phase only"
