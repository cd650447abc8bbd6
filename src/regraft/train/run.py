"""A run: one recipe, one directory, and everything that came of it.

recipe.json        what was asked for; a directory belongs to one recipe
environment.json   one entry a start: versions, commit, device
events.jsonl       one line a step
checkpoints/       the newest two
"""

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from filelock import FileLock, Timeout
from lightning_fabric import Fabric

from regraft.errors import RecipeError, RunError
from regraft.files import replacing
from regraft.train import checkpoint
from regraft.train.checkpoint import Trained
from regraft.train.environment import describe_environment
from regraft.train.journal import Event, Journal, Watcher
from regraft.train.processes import only_first


@final
class Run:
    """A run directory and the recipe that it belongs to.

    Args:
        directory: Made if missing. Several processes must all see it.
        recipe: The resolved recipe, as JSON values. Seeds, schedules, sizes, paths: what decides the result.
        watchers: Who else follows the events, such as a progress bar. `events.jsonl` is always written.

    Raises:
        RecipeError: If the recipe cannot be written as JSON.
    """

    def __init__(
        self, directory: Path, recipe: Mapping[str, object], *, watchers: Sequence[Watcher] = ()
    ) -> None:
        self.directory = directory
        self.recipe = _as_json(recipe)
        self.checkpoints = directory / "checkpoints"
        self._watchers = tuple(watchers)

    @contextmanager
    def session(self, fabric: Fabric, trained: Trained, num_steps: int) -> Generator["Session"]:
        """Take the directory, restore the newest checkpoint into `trained`, follow the steps that come.

        Raises:
            RunError: If another process trains here, the recipe is another one than the directory's, or
                the newest checkpoint cannot be restored.
        """
        with ExitStack() as stack:
            only_first(fabric, lambda: self._claim(fabric, stack))
            step = checkpoint.restore(self.checkpoints, trained)
            journal = Journal()
            if fabric.is_global_zero:
                for watcher in (journal, *self._watchers):
                    watcher.start(self.directory, step, num_steps)
                    stack.callback(watcher.stop)
            yield Session(step, fabric, trained, self.checkpoints, journal, self._watchers)

    def _claim(self, fabric: Fabric, stack: ExitStack) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.directory / ".lock")
        try:
            stack.enter_context(lock.acquire(timeout=0))
        except Timeout as error:
            raise RunError(
                f"Another process is training in {self.directory}.",
                hint="Wait for it, or use another directory.",
            ) from error
        self._settle_recipe()
        _append_json(self.directory / "environment.json", describe_environment(fabric))
        checkpoint.remove_partial(self.checkpoints)

    def _settle_recipe(self) -> None:
        path = self.directory / "recipe.json"
        if not path.exists():
            _replace(path, json.dumps(self.recipe, indent=2))
            return
        try:
            kept = json.loads(path.read_bytes())
        except ValueError as error:
            raise RunError(f"{path} is damaged: {error}.", hint="Use another directory.") from error
        differences = _differences(kept, self.recipe)
        if differences:
            raise RunError(
                f"{self.directory} belongs to another recipe: {'; '.join(differences)}.",
                hint="Use another directory, or go back to the recipe in its recipe.json.",
            )


@final
@dataclass(frozen=True)
class Session:
    """A run that is going on."""

    step: int
    """Steps made when it began."""
    fabric: Fabric
    trained: Trained
    checkpoints: Path
    journal: Journal
    watchers: tuple[Watcher, ...]

    def record(self, event: Event) -> None:
        """Tell everyone who follows."""
        if self.fabric.is_global_zero:
            for watcher in (self.journal, *self.watchers):
                watcher.record(event)

    def save(self, step: int) -> None:
        """Write a checkpoint; when this returns, it and the events before it are on the disk."""
        only_first(self.fabric, lambda: self._save(step))

    def _save(self, step: int) -> None:
        self.journal.sync()
        checkpoint.save(self.checkpoints, step, self.trained)


def _as_json(recipe: Mapping[str, object]) -> dict[str, object]:
    try:
        return json.loads(json.dumps(dict(recipe), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise RecipeError(f"The recipe cannot be written as JSON: {error}.") from error


def _differences(old: object, new: object, name: str = "") -> list[str]:
    """Where two JSON values differ, by dotted name."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = [*old, *(key for key in new if key not in old)]
        missing = "(not set)"
        return [
            difference
            for key in names
            for difference in _differences(
                old.get(key, missing), new.get(key, missing), f"{name}.{key}" if name else key
            )
        ]
    return [] if old == new else [f"{name} was {old!r} and is {new!r}"]


def _append_json(path: Path, entry: Mapping[str, object]) -> None:
    entries = json.loads(path.read_bytes()) if path.exists() else []
    _replace(path, json.dumps([*entries, entry], indent=2))


def _replace(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text + "\n")
