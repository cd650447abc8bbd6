"""Growing a classifier from a recipe and a set of pictures."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import torch
from lightning_fabric import Fabric
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel

from regraft.data.stream import Order
from regraft.errors import RecipeError, SampleError
from regraft.recipes.augmentation import picture_augment, variation_of
from regraft.recipes.pictures import identity
from regraft.recipes.recipe import Recipe
from regraft.train import processes
from regraft.train.average import moving_average
from regraft.train.journal import Watcher
from regraft.train.loop import fit
from regraft.train.run import Run
from regraft.train.schedule import param_groups
from regraft.vision.backbone import Backbone
from regraft.vision.batches import ImageBatches, OrderedBatches
from regraft.vision.data import ImageSet
from regraft.vision.left_out import LeftOut
from regraft.vision.modelfile import ModelCard, save_model
from regraft.vision.models import create_model
from regraft.vision.preprocess import Preprocess
from regraft.vision.tasks import Classify

GREY = Preprocess(channels=1, mean=(0.449,), std=(0.226,))
"""ImageNet's mean and deviation, averaged over the colours."""


def grow(
    recipe: Recipe,
    samples: ImageSet,
    held_out: ImageSet,
    run: Path,
    *,
    workers: int = 0,
    watchers: Sequence[Watcher] = (),
    fabric: Fabric | None = None,
) -> LeftOut:
    """Train a classifier, or go on with it, and write `run/model.safetensors`.

    The file holds the weights' moving average where the recipe keeps one, and a card. Its branches are
    intact: `fuse` comes next.

    Args:
        samples: Trained on.
        held_out: Evaluated on.
        run: The run directory.
        workers: Processes that prepare pictures which do not fit into memory.
        watchers: Who follows, such as a progress bar.
        fabric: Device, precision and processes; `None` asks the machine.

    Returns:
        Pictures that turned bad in the course of the run, in any process and at any start.

    Raises:
        SampleError: Nothing is held out.
        RunError: The run directory belongs to another recipe or other pictures.
        RegraftError: As `train.fit` and `vision.batches` do.
    """
    if not len(held_out):
        raise SampleError("There are no held-out pictures; expected some to judge the network by.")
    fabric = fabric or processes.launch(precision=recipe.precision)
    preprocess = preprocessing_of(recipe)
    left_out = LeftOut(run / "left_out.jsonl")
    batches = _batches(recipe, samples, preprocess, fabric, workers, left_out)
    model = _network(recipe, len(samples.classes), fabric)
    average = moving_average(model, decay=recipe.average_decay) if recipe.average_decay else None
    pictures = OrderedBatches(
        held_out, preprocess, batch_size=recipe.batch_size, workers=workers, left_out=left_out
    )
    task = Classify(model, lambda: pictures, label_smoothing=recipe.label_smoothing)
    decisive = {
        "recipe": asdict(recipe),
        "classes": samples.classes,
        "trained_on": identity(samples),
        "held_out": identity(held_out),
    }
    watched = Run(run, decisive, watchers=watchers)
    fit(task, batches, _optimizer(recipe, model), recipe.schedule, watched, fabric=fabric, average=average)
    processes.only_first(fabric, lambda: _save(run, recipe, model, average, samples.classes))
    return left_out


def preprocessing_of(recipe: Recipe) -> Preprocess:
    """What a network trained by `recipe` expects of a picture."""
    start = GREY if recipe.channels == 1 else Preprocess()
    return replace(start, size_px=recipe.size_px, crop=recipe.crop, interpolation=recipe.interpolation)


def _network(recipe: Recipe, num_classes: int, fabric: Fabric) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = create_model(
            recipe.model,
            num_classes=num_classes,
            in_channels=recipe.channels,
            drop_path=recipe.drop_path,
        )
    if recipe.synchronize_norms:
        model = cast(Backbone, processes.synchronize_batch_norm(model, fabric))
    # A training step took 0.59 of the processor time in this layout, where it was measured on a CPU.
    return model.to(memory_format=torch.channels_last)


def _batches(
    recipe: Recipe,
    samples: ImageSet,
    preprocess: Preprocess,
    fabric: Fabric,
    workers: int,
    left_out: LeftOut,
) -> ImageBatches:
    if len(samples) < recipe.batch_size:
        raise RecipeError(
            f"batch_size is {recipe.batch_size}, and there are only {len(samples)} pictures to train on.",
            hint=f"--set batch_size={len(samples)}, or more pictures.",
        )
    # A random crop already decides what is seen, so the centre crop after it keeps everything.
    seen = replace(preprocess, crop=1.0) if recipe.augment.crop_area else preprocess
    return ImageBatches(
        samples,
        Order(len(samples), recipe.batch_size, recipe.seed),
        seen,
        variation=variation_of(recipe),
        augment=picture_augment(recipe),
        sizes=recipe.sizes,
        rank=fabric.global_rank,
        world=fabric.world_size,
        workers=workers,
        left_out=left_out,
    )


def _optimizer(recipe: Recipe, model: Backbone) -> Optimizer:
    groups = param_groups(model)
    if recipe.optimizer == "sgd":
        return SGD(groups, lr=recipe.schedule.peak_lr, momentum=recipe.momentum)
    return AdamW(groups, lr=recipe.schedule.peak_lr)


def _save(
    run: Path, recipe: Recipe, model: Backbone, average: AveragedModel | None, classes: tuple[str, ...]
) -> None:
    best = model if average is None else average.module
    assert isinstance(best, Backbone)
    card = ModelCard(
        architecture=recipe.model,
        num_classes=len(classes),
        in_channels=recipe.channels,
        preprocess=preprocessing_of(recipe),
        labels=classes,
    )
    save_model(run / "model.safetensors", best, card)
