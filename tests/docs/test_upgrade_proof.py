"""The page on what upgrades are worth says what was measured."""

import subprocess
import sys
from pathlib import Path

RENDER = Path(__file__).parents[2] / "benchmarks" / "render_upgrade.py"


def test_the_proof_of_upgrades_is_rendered() -> None:
    done = subprocess.run([sys.executable, RENDER, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
