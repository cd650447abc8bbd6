"""The diary of a run: `events.jsonl`, one JSON object a line, one line a step."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, final, runtime_checkable

from regraft.errors import RunError

EVENTS = "events.jsonl"


@dataclass(frozen=True, kw_only=True)
class Event:
    """What is worth knowing of one step. A function of the recipe, so there is no time in it."""

    step: int
    """Steps made, from 1."""
    loss: float
    """Sum of the terms, over all processes, before the step."""
    terms: Mapping[str, float]
    lr: float
    gradient_norm: float
    """Before clipping."""
    evaluation: Mapping[str, float] = field(default_factory=dict[str, float])
    """Metrics after the step; empty where it was not evaluated."""


@runtime_checkable
class Watcher(Protocol):
    """Someone who follows a run. Called in process 0 only."""

    def start(self, directory: Path, step: int, num_steps: int) -> None:
        """Training is at `step` of `num_steps`; events of later steps are about to be made, perhaps again."""
        ...

    def record(self, event: Event) -> None:
        """A step was made."""
        ...

    def stop(self) -> None:
        """Training ended, well or not."""
        ...


@final
class Journal:
    """Writes `events.jsonl`. Each line reaches the system before the next step, a kill tears at most one."""

    def __init__(self) -> None:
        self._file: BinaryIO | None = None

    def start(self, directory: Path, step: int, num_steps: int) -> None:
        """Open the file and drop the lines after `step`, which are about to be written again."""
        path = directory / EVENTS
        path.touch()
        os.truncate(path, _size_until(path, step))
        self._file = path.open("ab", buffering=0)

    def record(self, event: Event) -> None:
        """Append one line."""
        assert self._file is not None
        self._file.write(_line(event))

    def stop(self) -> None:
        """Force the lines to the disk and close."""
        self.sync()
        if self._file is not None:
            self._file.close()

    def sync(self) -> None:
        """Force the lines to the disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())


def read_events(directory: Path) -> list[Event]:
    """The events of the run in `directory`, also while it runs. A torn last line is left out.

    Raises:
        RunError: If another line cannot be read.
    """
    path = directory / EVENTS
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [_parse(path, number, line) for number, line in enumerate(lines, start=1)]


def _line(event: Event) -> bytes:
    # JSON has no word for NaN; `null` says that there was no number.
    evaluation = {name: value if math.isfinite(value) else None for name, value in event.evaluation.items()}
    return (json.dumps(asdict(event) | {"evaluation": evaluation}, allow_nan=False) + "\n").encode()


def _parse(path: Path, number: int, line: bytes) -> Event:
    try:
        values = json.loads(line)
        evaluation = {
            name: math.nan if value is None else value for name, value in values["evaluation"].items()
        }
        return Event(**values | {"evaluation": evaluation})
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"Line {number} of {path} is not an event: {line[:60]!r}.", hint="Restore the file, or remove it."
        ) from error


def _size_until(path: Path, step: int) -> int:
    """Bytes of the lines up to `step`."""
    size = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n") or _parse(path, number, line).step > step:
                break
            size += len(line)
    return size
