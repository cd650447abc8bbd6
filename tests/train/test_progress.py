import io
from pathlib import Path

import pytest
from rich.console import Console
from training_toys import Regression, lines, sgd

from regraft.train.journal import Event, Watcher
from regraft.train.loop import fit
from regraft.train.progress import ProgressBar, ProgressLines, progress
from regraft.train.run import Run
from regraft.train.schedule import Schedule
from regraft.train.tensorboard import TensorBoard


def train(directory: Path, watcher: Watcher, steps: int = 6) -> None:
    task = Regression()
    schedule = Schedule(steps=steps, peak_lr=0.05, evaluate_every=2)
    fit(task, lines, sgd(task.model), schedule, Run(directory, {}, watchers=[watcher]))


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    screen = io.StringIO()
    train(tmp_path, ProgressBar(Console(file=screen, force_terminal=True, width=120)))
    shown = screen.getvalue()
    assert "━" in shown
    assert "6/6" in shown
    assert "held_out_error" in shown
    assert shown.endswith("\x1b[?25h"), "the cursor is back"


@pytest.mark.parametrize("kind", [ProgressBar, ProgressLines])
def test_a_continued_run_says_so(tmp_path: Path, kind: type[ProgressBar] | type[ProgressLines]) -> None:
    screen = io.StringIO()
    watcher = kind(Console(file=screen, force_terminal=True, width=120))
    watcher.start(tmp_path, 4, 6)
    event = Event(step=5, loss=1.0, terms={}, lr=0.1, gradient_norm=1.0, evaluation={"accuracy": 0.5})
    watcher.record(event)
    watcher.stop()
    assert "from step 4" in screen.getvalue()
    assert "accuracy 0.5" in screen.getvalue()


def test_what_suits_a_captured_stderr_is_lines() -> None:
    assert isinstance(progress(), ProgressLines)


def test_tensorboard_follows_and_forgets_what_is_done_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path, TensorBoard())
    again = TensorBoard()
    again.start(tmp_path, 4, 6)
    again.record(Event(step=5, loss=9.0, terms={"error": 9.0}, lr=0.1, gradient_norm=1.0))
    again.stop()
    curves = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"loss", "lr", "gradient_norm", "terms/error", "evaluation/held_out_error"} <= {
        *curves.Tags()["scalars"]
    }
    assert [point.step for point in curves.Scalars("loss")] == [1, 2, 3, 4, 5]
    assert curves.Scalars("loss")[-1].value == 9.0
