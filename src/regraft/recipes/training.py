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
from regraft.recipes.augmentation import mix_transform, picture_transform, pixel_transform
from regraft.recipes.recipe import Recipe
from regraft.train import processes
from regraft.train.average import moving_average
from regraft.train.journal import Watcher
from regraft.train.loop import fit
from regraft.train.run import Run
from regraft.train.schedule import param_groups
from regraft.vision.backbone import Backbone
from regraft.vision.batches import ImageBatches, LeftOut, OrderedBatches
from regraft.vision.data import ImageSet, from_folder, from_manifest
from regraft.vision.inspection import Inspection, inspect
from regraft.vision.modelfile import ModelCard, save_model
from regraft.vision.models import create_model
from regraft.vision.preprocess import Preprocess
from regraft.vision.tasks import Classify

GREY = Preprocess(channels=1, mean=(0.449,), std=(0.226,))
"""ImageNet's mean and deviation, averaged over the colours."""
HELD_OUT_SHARE = 0.1


def open_pictures(path: Path) -> ImageSet:
    """Pictures by class, from a folder or a CSV manifest."""
    return from_manifest(path) if path.suffix.lower() == ".csv" else from_folder(path)


def prepare(
    data: Path, held_out: Path | None, run: Path, *, max_bad_share: float, seed: int
) -> tuple[ImageSet, ImageSet, list[Inspection]]:
    """Open and inspect the pictures of a run, and hold some out if no others are given.

    What the inspection finds is kept beside the run, so that a second start is quick.

    Raises:
        SampleError: Too many pictures are bad, or the held-out ones have other classes.
    """
    cache = run / "inspection.json"
    samples, first = inspect(open_pictures(data), max_bad_share=max_bad_share, cache=cache)
    if held_out is None:
        kept, rest = samples.split(HELD_OUT_SHARE, seed)
        return kept, rest, [first]
    rest, second = inspect(
        open_pictures(held_out), max_bad_share=max_bad_share, cache=run / "inspection_held_out.json"
    )
    if rest.classes != samples.classes:
        raise SampleError(
            f"{held_out} has the classes {', '.join(rest.classes)}; {data} has {', '.join(samples.classes)}.",
            hint="Both need the same class names.",
        )
    return samples, rest, [first, second]


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
        Pictures that turned bad while training.

    Raises:
        RegraftError: As `train.fit` and `vision.batches` do.
    """
    fabric = fabric or processes.launch(precision=recipe.precision)
    preprocess = preprocessing_of(recipe)
    batches = _batches(recipe, samples, preprocess, fabric, workers)
    model = _network(recipe, len(samples.classes), fabric)
    average = moving_average(model, decay=recipe.average_decay) if recipe.average_decay else None
    pictures = OrderedBatches(held_out, preprocess, batch_size=recipe.batch_size, workers=workers)
    task = Classify(model, lambda: pictures, label_smoothing=recipe.label_smoothing)
    watched = Run(run, {"recipe": asdict(recipe), "classes": list(samples.classes)}, watchers=watchers)
    fit(task, batches, _optimizer(recipe, model), recipe.schedule, watched, fabric=fabric, average=average)
    processes.only_first(fabric, lambda: _save(run, recipe, model, average, samples.classes))
    return batches.report()


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
    recipe: Recipe, samples: ImageSet, preprocess: Preprocess, fabric: Fabric, workers: int
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
        augment=picture_transform(recipe),
        augment_pixels=pixel_transform(recipe.augment),
        mix=mix_transform(recipe.augment, len(samples.classes)),
        sizes=recipe.sizes,
        rank=fabric.global_rank,
        world=fabric.world_size,
        workers=workers,
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
