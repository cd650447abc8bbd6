import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from regraft.train.journal import read_events

SCRIPT = Path(__file__).with_name("killed.py")
STEPS = 60


@dataclass(frozen=True)
class Killed:
    directory: Path
    ends: dict[str, list[int]]
    shown: list[str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    directory = tmp_path_factory.mktemp("runs")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(directory)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ends = {name: [int(end) for end in rest] for name, *rest in map(str.split, done.stdout.splitlines())}
    return Killed(directory, ends, done.stderr.splitlines())


def contents(run: Path) -> dict[str, bytes]:
    """Every file that a recipe decides: weights, average, optimizer, state, events."""
    files = [*run.glob("checkpoints/*/*"), run / "events.jsonl", run / "recipe.json"]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def test_attempts_were_really_killed(runs: Killed) -> None:
    assert runs.ends["killed"].count(-signal.SIGKILL) >= 3
    assert runs.ends["terminated"].count(3) >= 3
    assert runs.ends["killed"][-1] == runs.ends["terminated"][-1] == 0


@pytest.mark.parametrize("name", ["killed", "terminated"])
def test_resumed_run_is_the_uninterrupted_one_to_the_bit(runs: Killed, name: str) -> None:
    last = f"checkpoints/step-{STEPS:08d}"
    whole, resumed = contents(runs.directory / "whole"), contents(runs.directory / name)
    files = [f"{last}/{stem}.safetensors" for stem in ("model", "average", "optimizer")]
    for file in [*files, f"{last}/state.json", "events.jsonl", "recipe.json"]:
        assert resumed[file] == whole[file], file


@pytest.mark.parametrize("name", ["killed", "terminated"])
def test_each_step_appears_once(runs: Killed, name: str) -> None:
    assert [event.step for event in read_events(runs.directory / name)] == list(range(1, STEPS + 1))


def test_nothing_half_written_is_left(runs: Killed) -> None:
    assert not list(runs.directory.glob("*/checkpoints/*.partial"))
    assert len(list((runs.directory / "killed" / "checkpoints").iterdir())) == 2


def test_a_pipe_gets_one_line_an_evaluation_and_no_bar(runs: Killed) -> None:
    whole = runs.shown[: STEPS // 10]
    assert [line.split("  ")[0] for line in whole] == [f"step {step}" for step in range(10, STEPS + 1, 10)]
    assert all("accuracy" in line and "loss" in line and "left" in line for line in whole)
    assert all(line.startswith(("step", "continuing")) for line in runs.shown)
    assert not any("\x1b" in line or "\r" in line for line in runs.shown)
