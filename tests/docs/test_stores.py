"""The page on stores says what their classes declare and what was measured."""

import subprocess
import sys
from pathlib import Path

RENDER = Path(__file__).parents[2] / "benchmarks" / "render_stores.py"


def test_the_page_on_stores_is_rendered() -> None:
    done = subprocess.run([sys.executable, RENDER, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
