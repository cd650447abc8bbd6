"""Growing a classifier from a recipe and a set of pictures."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
from lightning_fabric import Fabric
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel

from regraft.data.stream import Order
from regraft.errors import RecipeError, SampleError
from regraft.recipes.augmentation import picture_augment, variation_of
from regraft.recipes.preprocessing import framing_of, preprocessing_of
from regraft.recipes.recipe import Imitation, Recipe
from regraft.recipes.reinforcement import targets_of
from regraft.tables.table import Table
from regraft.train import processes
from regraft.train.average import moving_average
from regraft.train.journal import Watcher
from regraft.train.loop import fit
from regraft.train.run import Run
from regraft.train.schedule import param_groups
from regraft.train.task import Task
from regraft.vision.backbone import Backbone
from regraft.vision.batches import ImageBatches, OrderedBatches
from regraft.vision.data import ImageSet, identity
from regraft.vision.left_out import LeftOut
from regraft.vision.modelfile import ModelCard, save_model
from regraft.vision.models import create_model
from regraft.vision.preprocess import Preprocess
from regraft.vision.range_operations import operation_named
from regraft.vision.range_targets import DecibelTarget
from regraft.vision.range_task import Varied, WithLearnedRanges, range_group
from regraft.vision.ranges import LearnedRanges
from regraft.vision.tasks import Classify, HeldOut, Imitate


def grow(
    recipe: Recipe,
    samples: ImageSet,
    held_out: ImageSet,
    run: Path,
    *,
    table: Table | None = None,
    workers: int = 0,
    watchers: Sequence[Watcher] = (),
    fabric: Fabric | None = None,
) -> LeftOut:
    """Train a classifier, or go on with it, and write `run/model.safetensors`.

    Where ranges are learned, `run/policy.json` holds what they became. The model file holds the weights'
    moving average where the recipe keeps one, and a card. Its branches are
    intact: `fuse` comes next.

    Args:
        samples: Trained on.
        held_out: Evaluated on.
        run: The run directory.
        table: A teacher's answers to learn from in place of the labels, about the views that the recipe
            shows.
        workers: Processes that prepare pictures which do not fit into memory.
        watchers: Who follows, such as a progress bar.
        fabric: Device, precision and processes; `None` asks the machine.

    Returns:
        Pictures that turned bad in the course of the run, in any process and at any start.

    Raises:
        SampleError: Nothing is held out.
        RecipeError: The recipe says how to imitate, and there is no table.
        RunError: The run directory belongs to another recipe or other pictures.
        RegraftError: As `train.fit` and `vision.batches` do.
    """
    if not len(held_out):
        raise SampleError("There are no held-out pictures; expected some to judge the network by.")
    if table is None and recipe.imitation != Imitation():
        raise RecipeError(
            f"The recipe says how to learn from a table, {recipe.imitation}, and there is none.",
            hint="--table TABLE, or leave imitation as it is.",
        )
    fabric = fabric or processes.launch(precision=recipe.precision)
    preprocess = preprocessing_of(recipe)
    left_out = LeftOut(run / "left_out.jsonl")
    batches = _batches(recipe, samples, table, fabric, workers, left_out)
    model = _network(recipe, len(samples.classes), fabric)
    pictures = OrderedBatches(
        held_out, preprocess, batch_size=recipe.batch_size, workers=workers, left_out=left_out
    )
    task, optimizer = _task(recipe, model, lambda: pictures, preprocess, learns_from_table=table is not None)
    average = moving_average(task.model, decay=recipe.average_decay) if recipe.average_decay else None
    decisive = {
        "recipe": asdict(recipe),
        "classes": samples.classes,
        "trained_on": identity(samples),
        "held_out": identity(held_out),
        **({} if table is None else {"table": table.fingerprint}),
    }
    watched = Run(run, decisive, watchers=watchers)
    fit(task, batches, optimizer, recipe.schedule, watched, fabric=fabric, average=average)
    processes.only_first(fabric, lambda: _save(run, recipe, task, average, samples.classes))
    return left_out


def _task(
    recipe: Recipe,
    model: Backbone,
    held_out: HeldOut,
    preprocess: Preprocess,
    *,
    learns_from_table: bool,
) -> tuple[Task, Optimizer]:
    """What the network is trained to do, and the optimizer of all that is trained."""
    groups = param_groups(model)
    imitation = recipe.imitation
    if learns_from_table:
        task = Imitate(
            model,
            held_out,
            label_weight=imitation.label_weight,
            hard=imitation.hard,
            label_smoothing=recipe.label_smoothing,
        )
    else:
        task = Classify(model, held_out, label_smoothing=recipe.label_smoothing)
    if recipe.ranges.target_db is not None:
        ranges = LearnedRanges([operation_named(name) for name in recipe.ranges.operations])
        target = DecibelTarget(
            end_db=recipe.ranges.target_db,
            start_db=recipe.ranges.start_db,
            # The rest is for the ranges to come to rest.
            steps=max(1, recipe.schedule.steps * 4 // 5),
        )
        gradient = recipe.ranges.task_gradient
        task = WithLearnedRanges(task, ranges, preprocess, target, task_gradient=gradient)
        groups.append(range_group(ranges, recipe.optimizer))
    return task, _optimizer(recipe, groups)


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
    table: Table | None,
    fabric: Fabric,
    workers: int,
    left_out: LeftOut,
) -> ImageBatches:
    if len(samples) < recipe.batch_size:
        raise RecipeError(
            f"batch_size is {recipe.batch_size}, and there are only {len(samples)} pictures to train on.",
            hint=f"--set batch_size={len(samples)}, or more pictures.",
        )
    targets, view_seed = None, None
    if table is not None:
        targets, view_seed = targets_of(recipe, samples, table, seed=recipe.seed)
    return ImageBatches(
        samples,
        Order(len(samples), recipe.batch_size, recipe.seed),
        framing_of(recipe),
        variation=variation_of(recipe),
        augment=picture_augment(recipe),
        targets=targets,
        view_seed=view_seed,
        sizes=recipe.sizes,
        rank=fabric.global_rank,
        world=fabric.world_size,
        workers=workers,
        left_out=left_out,
    )


def _optimizer(recipe: Recipe, groups: list[dict[str, object]]) -> Optimizer:
    if recipe.optimizer == "sgd":
        return SGD(groups, lr=recipe.schedule.peak_lr, momentum=recipe.momentum)
    return AdamW(groups, lr=recipe.schedule.peak_lr)


def _save(
    run: Path, recipe: Recipe, task: Task, average: AveragedModel | None, classes: tuple[str, ...]
) -> None:
    if isinstance(task, WithLearnedRanges):
        assert recipe.ranges.target_db is not None
        task.model.ranges.policy(recipe.ranges.target_db).save(run / "policy.json")
    best = task.model if average is None else average.module
    network = best.network if isinstance(best, Varied) else best
    assert isinstance(network, Backbone)
    card = ModelCard(
        architecture=recipe.model,
        num_classes=len(classes),
        in_channels=recipe.channels,
        preprocess=preprocessing_of(recipe),
        labels=classes,
    )
    save_model(run / "model.safetensors", network, card)
