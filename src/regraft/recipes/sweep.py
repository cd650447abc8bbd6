"""How strongly to vary pictures: one scalar, searched in a straight line (RangeAugment, arXiv 2212.10553)."""

import json
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from regraft.errors import RecipeError
from regraft.files import replacing
from regraft.nn.device import best_device
from regraft.nn.reparam import fuse
from regraft.recipes.evaluation import random_subset
from regraft.recipes.recipe import Recipe
from regraft.recipes.training import grow
from regraft.train import processes
from regraft.train.journal import Watcher, read_events
from regraft.vision.corruption_errors import corruption_errors
from regraft.vision.corruptions import CORRUPTIONS, load_corruptions
from regraft.vision.data import ImageSet
from regraft.vision.left_out import LeftOut
from regraft.vision.modelfile import load_model

TARGETS_DB = (40.0, 30.0, 20.0, 10.0)
NOT_VARIED = "not varied"
TRIAL = "trial.json"
SEVERITIES = (1, 3, 5)
NUM_CORRUPTED = 500
Bar = Callable[[], AbstractContextManager[Callable[[str, int, int], object]]]
"""Opens something that is told what is being done, batches done, and batches in all."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One strength, and what came of it."""

    target_db: float | None
    """The peak signal-to-noise ratio that pictures were varied to; `None` if they were not."""
    reached_db: float | None
    """The ratio over the last batches."""
    top1: float
    """Share of held-out pictures named right, in [0, 1]."""
    nll: float | None
    """Their mean loss, in nats; `None` if it was not finite."""
    corrupted_top1: float | None
    """Share of corrupted ones named right, over fifteen corruptions; `None` if that was not asked for."""
    run: str
    """The run directory."""

    @property
    def name(self) -> str:
        """What to call it."""
        return NOT_VARIED if self.target_db is None else f"{self.target_db:g} dB"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What each strength is worth."""

    trials: tuple[Trial, ...]
    """The weakest first, beginning with none at all."""
    left_out: tuple[LeftOut, ...] = ()
    """Pictures that turned bad, run by run where there were any."""

    @property
    def best(self) -> Trial:
        """The trial with the most held-out pictures named right; the weaker one if two are equal."""
        return max(self.trials, key=lambda trial: trial.top1)

    def to_json(self) -> dict[str, object]:
        """All figures as JSON values."""
        return {"trials": [asdict(trial) for trial in self.trials], "best": self.best.name}


def sweep(
    recipe: Recipe,
    samples: ImageSet,
    held_out: ImageSet,
    out: Path,
    *,
    targets_db: Sequence[float] = TARGETS_DB,
    corrupt: bool = True,
    watchers: Sequence[Watcher] = (),
    bar: Bar | None = None,
    workers: int = 0,
    fabric: Fabric | None = None,
) -> Sweep:
    """Train once without learned ranges and once for each target, and compare; or go on with that.

    Choosing by held-out pictures uses them up: judge the winner on others.

    Args:
        recipe: Of every run; its own target is replaced.
        samples: Trained on.
        held_out: Compared on; at most 500 of them are corrupted.
        out: A folder with a run directory for each target, and `sweep.json`.
        targets_db: Peak signal-to-noise ratios, in (0, 50].
        corrupt: Whether to measure robustness too, which needs the extra `corruptions`.
        watchers: Who follows each training.
        bar: Opened while pictures are corrupted; `None` shows nothing.
        workers: Processes that prepare pictures which do not fit into memory.
        fabric: As in `grow`; under `torchrun` the first process corrupts and writes.

    Raises:
        RecipeError: No target, one twice, or one out of range.
        MissingExtra: `corrupt` without the package for it.
        RegraftError: As `grow` does.
    """
    if not targets_db or len(set(targets_db)) < len(targets_db):
        raise RecipeError(f"The targets are {list(targets_db)}, expected one or more, each once.")
    if corrupt:
        load_corruptions()
    fabric = fabric or processes.launch(precision=recipe.precision)
    recipes = {
        target: replace(recipe, ranges=replace(recipe.ranges, target_db=target))
        for target in (None, *sorted(targets_db, reverse=True))
    }
    trials: list[Trial] = []
    left_out: list[LeftOut] = []
    for target, chosen in recipes.items():
        run = out / ("not_varied" if target is None else f"{target:g}dB")
        left_out.append(
            grow(chosen, samples, held_out, run, workers=workers, watchers=watchers, fabric=fabric)
        )
        processes.only_first(
            fabric, partial(_judge, target, run, held_out, bar, corrupt=corrupt, workers=workers)
        )
        trials.append(Trial(**json.loads((run / TRIAL).read_bytes())))
    found = Sweep(trials=tuple(trials), left_out=tuple(filter(len, left_out)))
    processes.only_first(fabric, lambda: _write(out / "sweep.json", found.to_json()))
    return found


def _judge(
    target_db: float | None, run: Path, held_out: ImageSet, bar: Bar | None, *, corrupt: bool, workers: int
) -> None:
    """Write the trial of a finished run; what was corrupted for it before is not corrupted again."""
    path = run / TRIAL
    if path.exists() and _suffices(json.loads(path.read_bytes()), corrupt=corrupt):
        return
    last = read_events(run)[-1].evaluation
    trial = Trial(
        target_db=target_db,
        reached_db=last.get("range_psnr_db"),
        top1=last["top1"],
        nll=last["nll"] if math.isfinite(last["nll"]) else None,
        corrupted_top1=_corrupted_top1(run, held_out, bar, workers) if corrupt else None,
        run=str(run),
    )
    _write(path, asdict(trial))


def _suffices(fields: Mapping[str, Any], *, corrupt: bool) -> bool:
    return not corrupt or fields["corrupted_top1"] is not None


def _write(path: Path, fields: Mapping[str, object]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(fields, indent=2, allow_nan=False) + "\n")


def _corrupted_top1(run: Path, held_out: ImageSet, bar: Bar | None, workers: int) -> float:
    model, card = load_model(run / "model.safetensors")
    samples = random_subset(held_out, NUM_CORRUPTED) if len(held_out) > NUM_CORRUPTED else held_out
    with (bar or _no_bar)() as show:
        errors = corruption_errors(
            fuse(model).to(best_device()),
            samples,
            card.preprocess,
            corruptions=CORRUPTIONS,
            severities=SEVERITIES,
            workers=workers,
            watch=partial(show, f"corrupting for {run.name}"),
        )
    return 1 - errors.mean


@contextmanager
def _no_bar() -> Generator[Callable[[str, int, int], object]]:
    yield lambda what, num_done, num_total: None
