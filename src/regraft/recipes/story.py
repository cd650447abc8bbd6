"""What the steps of a demo share: its settings, and the record that each step leaves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from regraft.train.journal import Watcher

Facts = Mapping[str, Any]
"""JSON values by name. `Any`, because only the report's template reads them."""


@runtime_checkable
class Follower(Protocol):
    """Someone who is told how the story goes."""

    @property
    def watchers(self) -> Sequence[Watcher]:
        """Who follows the training."""
        ...

    def begin(self, number: int, num_steps: int, step: "Step") -> None:
        """Step `number`, from 1, begins."""
        ...

    def advance(self, num_done: int, num_total: int) -> None:
        """So many pictures of the step are done."""
        ...

    def end(self, step: "Step", record: "Record", *, is_old: bool) -> None:
        """The step has ended, or had ended in an earlier run."""
        ...


@dataclass(frozen=True, kw_only=True)
class Story:
    """Where a demo is kept and what it was asked for."""

    out: Path
    """The folder of everything it writes."""
    images: Path | None = None
    """A folder of pictures by class; `None` takes the handwritten digits that come with scikit-learn."""
    steps: int | None = None
    """Optimizer steps of each training; `None` takes the recipes' own numbers."""

    @property
    def settings(self) -> dict[str, str | int]:
        """What must stay the same when a demo is continued."""
        images = str(self.images.resolve()) if self.images else "the handwritten digits"
        return {"images": images, "steps": self.steps or "the recipe's own"}

    @property
    def pictures(self) -> Path:
        """The folder of pictures by class."""
        return self.images or self.out / "images"

    @property
    def parts(self) -> Path:
        """Which picture is for what."""
        return self.out / "split.json"

    @property
    def run(self) -> Path:
        """The run directory of the training."""
        return self.out / "run"

    @property
    def fused(self) -> Path:
        """The model file without branches."""
        return self.out / "fused.safetensors"

    @property
    def varied_run(self) -> Path:
        """The run directory of the training that learns how strongly to vary pictures."""
        return self.out / "varied_run"

    @property
    def tables(self) -> Path:
        """The folder of what the first networks say of many views."""
        return self.out / "tables"

    @property
    def plain_run(self) -> Path:
        """The run directory of the second network's training on labels alone."""
        return self.out / "plain_run"

    @property
    def second_run(self) -> Path:
        """The run directory of the second training."""
        return self.out / "second_run"

    @property
    def second(self) -> Path:
        """The second model's file, without branches."""
        return self.out / "second.safetensors"

    @property
    def live(self) -> Path:
        """What was measured of the gallery while it was upgraded."""
        return self.out / "live.json"

    @property
    def drawing(self) -> Path:
        """The network before and after fusing."""
        return self.out / "graph.svg"

    @property
    def gallery(self) -> Path:
        """The gallery's folder."""
        return self.out / "gallery"

    def artifact(self, suffix: str) -> Path:
        """The exported model whose name ends in `suffix`."""
        return self.out / f"model{suffix}"


@dataclass(frozen=True)
class Result:
    """What a step found."""

    headline: str
    """The number that matters, in a sentence without its end."""
    facts: Facts


@dataclass(frozen=True, kw_only=True)
class Record:
    """A finished step as it is written down."""

    headline: str
    facts: Facts
    duration_s: float
    """Of the last start, if the step was interrupted before."""
    finished: str
    """Time in UTC, ISO 8601."""
    device: str
    """The processor this step ran on."""
    num_threads: int
    """Threads that torch could use."""


@dataclass(frozen=True)
class Step:
    """One step of a demo."""

    name: str
    title: str
    """What is being done, as a participle."""
    perform: Callable[[Story, Mapping[str, Record], Follower], Result]
    """Does it, given the records of the steps before. Done again, it continues or gives the same."""
