import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_toys import Regression, lines, sgd

from regraft.errors import RecipeError, RunError
from regraft.train.journal import Event, Journal, read_events
from regraft.train.loop import fit
from regraft.train.run import Run
from regraft.train.schedule import Schedule


def train(directory: Path, recipe: dict[str, object]) -> None:
    task = Regression()
    fit(task, lines, sgd(task.model), Schedule(steps=3, peak_lr=0.05), Run(directory, recipe))


def event(step: int, **evaluation: float) -> Event:
    return Event(step=step, loss=0.5, terms={"error": 0.5}, lr=0.1, gradient_norm=1.0, evaluation=evaluation)


def test_a_directory_tells_what_was_run_and_on_what(tmp_path: Path) -> None:
    recipe = {"schedule": {"steps": 3}, "sizes_px": (32, 64), "seed": None}
    train(tmp_path, recipe)
    train(tmp_path, recipe)
    assert json.loads((tmp_path / "recipe.json").read_text()) == recipe | {"sizes_px": [32, 64]}
    starts = json.loads((tmp_path / "environment.json").read_text())
    assert len(starts) == 2
    assert starts[0]["versions"]["torch"] == str(torch.__version__)
    assert starts[0]["num_processes"] == 1
    assert starts[0].keys() >= {"commit", "platform", "device", "num_threads", "precision", "started"}


def test_another_recipe_is_refused_by_the_names_that_differ(tmp_path: Path) -> None:
    train(tmp_path, {"schedule": {"steps": 3, "peak_lr": 0.05}, "old": 1})
    with pytest.raises(RunError) as caught:
        train(tmp_path, {"schedule": {"steps": 3, "peak_lr": 0.5}, "new": 2})
    for words in ("schedule.peak_lr was 0.05 and is 0.5", "old was 1", "new was '(not set)' and is 2"):
        assert words in str(caught.value)
    assert "schedule.steps" not in str(caught.value)


def test_a_recipe_is_data(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="JSON"):
        Run(tmp_path, {"model": Regression()})


def test_two_processes_cannot_train_in_one_directory(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom filelock import FileLock\n"
        f"with FileLock({str(tmp_path / '.lock')!r}):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="Another process is training"):
            train(tmp_path, {})
        other.kill()
    train(tmp_path, {})


def test_events_survive_json_to_the_bit(tmp_path: Path) -> None:
    journal = Journal()
    journal.start(tmp_path, 0, 2)
    written = [event(1), event(2, accuracy=1 / 3)]
    for one in written:
        journal.record(one)
    assert read_events(tmp_path) == written, "also while the run goes on"
    journal.stop()


def test_a_metric_may_be_no_number(tmp_path: Path) -> None:
    journal = Journal()
    journal.start(tmp_path, 0, 1)
    journal.record(event(1, recall=math.nan))
    journal.stop()
    assert json.loads((tmp_path / "events.jsonl").read_text())["evaluation"] == {"recall": None}
    assert math.isnan(read_events(tmp_path)[0].evaluation["recall"])


def test_later_and_torn_lines_are_dropped_when_a_run_goes_on(tmp_path: Path) -> None:
    journal = Journal()
    journal.start(tmp_path, 0, 5)
    for step in (1, 2, 3, 4):
        journal.record(event(step))
    journal.stop()
    path = tmp_path / "events.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    assert [one.step for one in read_events(tmp_path)] == [1, 2, 3]
    journal.start(tmp_path, 2, 5)
    journal.record(event(3))
    journal.stop()
    assert [one.step for one in read_events(tmp_path)] == [1, 2, 3]


def test_a_line_in_the_middle_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("what\n")
    with pytest.raises(RunError, match="Line 1 of"):
        read_events(tmp_path)
    with pytest.raises(RunError, match="Line 1 of"):
        Journal().start(tmp_path, 3, 5)


def test_there_are_no_events_before_a_run(tmp_path: Path) -> None:
    assert read_events(tmp_path) == []
