"""Showing a run to a person: a bar in a terminal, a line an evaluation elsewhere."""

import time
from datetime import timedelta
from pathlib import Path
from typing import final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from regraft.train.journal import Event, Watcher


def progress() -> Watcher:
    """A watcher that writes to stderr what suits it: a bar to a terminal, plain lines to a pipe or file."""
    console = Console(stderr=True)
    return ProgressBar(console) if console.is_terminal else ProgressLines(console)


@final
class ProgressBar:
    """One line that fills, with the time left, the loss and the rate; evaluations scroll above it."""

    def __init__(self, console: Console) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=console)
        self._console = console
        self._task = TaskID(0)

    def start(self, directory: Path, step: int, num_steps: int) -> None:
        """Draw the bar."""
        if step:
            self._console.print(_continuing(directory, step), highlight=False, markup=False)
        self._task = self._progress.add_task("", total=num_steps, completed=step)
        self._progress.start()

    def record(self, event: Event) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=event.step, description=_numbers(event))
        if event.evaluation:
            self._console.print(_evaluation(event), highlight=False, markup=False)

    def stop(self) -> None:
        """Leave the bar as it is."""
        self._progress.stop()


@final
class ProgressLines:
    """One line an evaluation."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._num_steps = 0
        self._first_step = 0
        self._started_s = 0.0

    def start(self, directory: Path, step: int, num_steps: int) -> None:
        """Note the time; say so if the run goes on from a checkpoint."""
        self._num_steps, self._first_step, self._started_s = num_steps, step, time.monotonic()
        if step:
            self._print(_continuing(directory, step))

    def record(self, event: Event) -> None:
        """Print evaluated steps."""
        if not event.evaluation:
            return
        per_step_s = (time.monotonic() - self._started_s) / (event.step - self._first_step)
        left = timedelta(seconds=round(per_step_s * (self._num_steps - event.step)))
        self._print(f"{_evaluation(event)}  {_numbers(event)}  {left} left")

    def stop(self) -> None:
        """Nothing is left to say."""

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _continuing(directory: Path, step: int) -> str:
    return f"continuing {directory} from step {step}"


def _evaluation(event: Event) -> str:
    return "  ".join(
        [f"step {event.step}", *(f"{name} {value:.4g}" for name, value in event.evaluation.items())]
    )


def _numbers(event: Event) -> str:
    return f"loss {event.loss:.4g}  lr {event.lr:.3g}"
