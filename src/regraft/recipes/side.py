"""Side-information: a second encoder, trained without labels, whose vectors are kept for the next upgrade.

A model that tells classes apart forgets whatever does not help it to. What it forgot, a later model may
need, and FCT (arXiv 2112.02805) stores it today: the vectors of an encoder that learned to tell every
picture from every other (SimCLR, arXiv 2002.05709), which are read once, when the next model comes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, cast

import torch
from lightning_fabric import Fabric
from torch.optim import SGD

from regraft.data.sample import number_copies
from regraft.data.stream import Order
from regraft.errors import RecipeError
from regraft.recipes.intake import count_files, picture_files
from regraft.recipes.preprocessing import GREY
from regraft.train import processes
from regraft.train.journal import Watcher
from regraft.train.loop import fit
from regraft.train.run import Run
from regraft.train.schedule import Schedule, param_groups
from regraft.vision.backbone import Backbone
from regraft.vision.batches import ImageBatches, OrderedBatches
from regraft.vision.contrast import Projected, RandomView, TellApart
from regraft.vision.data import ImageSet, identity
from regraft.vision.left_out import LeftOut
from regraft.vision.modelfile import ModelCard, save_model
from regraft.vision.models import create_model
from regraft.vision.preprocess import Preprocess

BATCHES_TO_JUDGE_BY = 8
"""Recognising one of few is easy, so the held-out pictures are judged in whole batches, and not in many."""


@dataclass(frozen=True, kw_only=True)
class SideRecipe:
    """Everything that decides the training of a side encoder, as data."""

    model: str
    """A name that `regraft.create_model` knows."""
    schedule: Schedule
    size_px: int
    """Height and width of the pictures it sees."""
    channels: Literal[1, 3] = 3
    """1 turns pictures grey."""
    batch_size: int
    """Pictures that each one is told from, in two views each."""
    momentum: float = 0.9
    temperature: float = 0.5
    """Cosines of views are divided by this."""
    crop_area: tuple[float, float] = (0.2, 1.0)
    """Smallest and largest share of a picture that a view shows."""
    jitter: float = 0.4
    """Largest relative change of brightness, contrast and saturation."""
    grey: float = 0.2
    """Chance that a view has no colour."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    seed: int = field(default=0)
    """Of the weights, the order of the pictures and their views. Which are held out does not change."""

    def __post_init__(self) -> None:
        if wrong := list(self._problems()):
            raise RecipeError(f"The recipe cannot be used: {'; '.join(wrong)}.")

    def _problems(self) -> Iterator[str]:
        if self.size_px < 1:
            yield f"size_px is {self.size_px}, expected at least 1"
        if self.batch_size < 2:
            yield f"batch_size is {self.batch_size}, expected at least 2 pictures to tell apart"
        if not 0 <= self.momentum < 1:
            yield f"momentum is {self.momentum:g}, expected a share in [0, 1)"


def side_mini() -> SideRecipe:
    """A small MobileOne for pictures of 28 to 64 pixels that needs no labels and runs on a laptop."""
    return SideRecipe(
        model="mobileone_mini",
        schedule=Schedule(
            steps=1000,
            peak_lr=0.1,
            warmup_steps=100,
            weight_decay=5e-4,
            evaluate_every=250,
            checkpoint_every=50,
        ),
        size_px=32,
        batch_size=128,
    )


def unlabelled(place: Path) -> ImageSet:
    """Every picture in a folder at any depth, all of one class.

    Raises:
        SampleError: There is no such folder, or no picture in it.
    """
    count_files([place])
    files = tuple(picture_files([place]))
    names = number_copies(
        file.relative_to(place).as_posix() if file != place else file.name for file in files
    )
    return ImageSet(names, files, (0,) * len(files), ("pictures",))


def grow_side(
    recipe: SideRecipe,
    samples: ImageSet,
    held_out: ImageSet,
    run: Path,
    *,
    workers: int = 0,
    watchers: Sequence[Watcher] = (),
    fabric: Fabric | None = None,
) -> LeftOut:
    """Train a side encoder, or go on with it, and write `run/model.safetensors`. No label is read.

    Args:
        samples: Trained on; best those that the model of the gallery was trained on.
        held_out: Evaluated on: how many are recognised in another view, among a batch of others.
        run: The run directory.
        workers: Processes that prepare pictures which do not fit into memory.
        watchers: Who follows, such as a progress bar.
        fabric: Device, precision and processes; `None` asks the machine.

    Returns:
        Pictures that turned bad in the course of the run.

    Raises:
        RecipeError: There are fewer pictures than a batch has.
        RunError: The run directory belongs to another recipe or other pictures.
        RegraftError: As `train.fit` and `vision.batches` do.
    """
    if len(samples) < recipe.batch_size:
        raise RecipeError(
            f"batch_size is {recipe.batch_size}, and there are only {len(samples)} pictures to train on.",
            hint=f"--set batch_size={len(samples)}, or more pictures.",
        )
    fabric = fabric or processes.launch(precision=recipe.precision)
    left_out = LeftOut(run / "left_out.jsonl")
    model = _network(recipe)
    optimizer = SGD(param_groups(model), lr=recipe.schedule.peak_lr, momentum=recipe.momentum)
    decisive = {"recipe": asdict(recipe), "trained_on": identity(samples), "held_out": identity(held_out)}
    fit(
        _task(recipe, model, held_out, workers, left_out),
        _batches(recipe, samples, fabric, workers, left_out),
        optimizer,
        recipe.schedule,
        Run(run, decisive, watchers=watchers),
        fabric=fabric,
    )
    processes.only_first(fabric, lambda: _save(run, recipe, model))
    return left_out


def preprocessing_of(recipe: SideRecipe) -> Preprocess:
    """What a side encoder trained by `recipe` expects of a picture."""
    start = GREY if recipe.channels == 1 else Preprocess()
    return Preprocess(
        size_px=recipe.size_px, crop=1.0, mean=start.mean, std=start.std, channels=recipe.channels
    )


def _network(recipe: SideRecipe) -> Projected:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        encoder = create_model(recipe.model, num_classes=0, in_channels=recipe.channels)
        model = Projected(encoder, encoder.num_features)
    return model.to(memory_format=torch.channels_last)


def _task(
    recipe: SideRecipe, model: Projected, held_out: ImageSet, workers: int, left_out: LeftOut
) -> TellApart:
    preprocess = preprocessing_of(recipe)
    view = RandomView(preprocess, area=recipe.crop_area, jitter=recipe.jitter, grey=recipe.grey)
    judged = OrderedBatches(
        held_out.take(range(min(len(held_out), BATCHES_TO_JUDGE_BY * recipe.batch_size))),
        preprocess,
        batch_size=recipe.batch_size,
        workers=workers,
        left_out=left_out,
    )
    return TellApart(model, view, lambda: judged, temperature=recipe.temperature)


def _batches(
    recipe: SideRecipe, samples: ImageSet, fabric: Fabric, workers: int, left_out: LeftOut
) -> ImageBatches:
    return ImageBatches(
        samples,
        Order(len(samples), recipe.batch_size, recipe.seed),
        preprocessing_of(recipe),
        rank=fabric.global_rank,
        world=fabric.world_size,
        workers=workers,
        left_out=left_out,
    )


def _save(run: Path, recipe: SideRecipe, model: Projected) -> None:
    card = ModelCard(
        architecture=recipe.model,
        num_classes=0,
        in_channels=recipe.channels,
        preprocess=preprocessing_of(recipe),
    )
    save_model(run / "model.safetensors", cast(Backbone, model.encoder), card)
