"""Nothing that was acknowledged is lost or doubled, whenever the process is killed."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("killed.py")
NUM_KILLS = 30


def test_a_killed_recording_becomes_the_uninterrupted_table(tmp_path: Path):
    command = [sys.executable, str(SCRIPT), str(tmp_path), str(NUM_KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tables = [[int(num) for num in line.split()] for line in done.stdout.splitlines()]
    assert sum(map(sum, tables)) >= NUM_KILLS
    assert sum(while_recording for _, while_recording, _ in tables) >= NUM_KILLS // 3
