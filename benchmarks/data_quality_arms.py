"""The students of `data_quality.py`, their teacher, and what is stored of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file

from regraft.augment.compose import Compose
from regraft.data.stream import Order
from regraft.nn.device import best_device
from regraft.recipes.augmentation import variation_of
from regraft.recipes.policies import with_policy
from regraft.recipes.preprocessing import preprocessing_of
from regraft.recipes.recipe import Augmentation, Ranges, Recipe
from regraft.recipes.reinforcement import SETTINGS, settings_of, views_of
from regraft.recipes.small import mobileone_mini
from regraft.recipes.training import grow
from regraft.tables.table import Table, open_table
from regraft.train.average import moving_average
from regraft.train.journal import Watcher
from regraft.train.loop import fit
from regraft.train.run import Run
from regraft.train.schedule import Schedule, param_groups
from regraft.vision.backbone import Backbone
from regraft.vision.batches import ImageBatches, OrderedBatches
from regraft.vision.crops import Flip, PadCrop
from regraft.vision.data import ImageSet
from regraft.vision.modelfile import ModelCard, save_model
from regraft.vision.models import create_model
from regraft.vision.reinforce import record
from regraft.vision.tasks import Classify, Distil
from regraft.vision.teachers import Ensemble, Teacher, judge_of
from regraft.vision.variation import Variation
from upgrade_backbones import PREPROCESS, ResNet, ten_thousand
from upgrade_backbones import grow as grow_teacher

DRAWS, TOP_K = 20, 5
SEEDS = (0, 1, 2)
TARGETS_DB = {"learned_ranges": 20.0, "weaker_ranges": 30.0}


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the comparison is."""

    name: str
    choose: Callable[[ImageSet], ImageSet]
    """The pictures of the students."""
    epochs: int
    batch: int
    peak_lr: float
    teacher_width: int
    teacher_epochs: int
    teacher_lr: float


SMALL = Scale(
    name="small",
    choose=lambda samples: ten_thousand(samples, 0),
    epochs=20,
    batch=128,
    peak_lr=0.1,
    teacher_width=24,
    teacher_epochs=5,
    teacher_lr=0.2,
)
LARGE = Scale(
    name="large",
    choose=lambda samples: samples,
    epochs=20,
    batch=512,
    peak_lr=0.3,
    teacher_width=64,
    teacher_epochs=24,
    teacher_lr=0.2,
)


@dataclass(frozen=True)
class Place:
    """Pictures, and where what is made of them is kept."""

    scale: Scale
    train: ImageSet
    everything: ImageSet
    test: ImageSet
    cache: Path

    def run(self, name: str, seed: int) -> Path:
        return self.folder / f"{name}-{seed}"

    def table(self, name: str) -> Path:
        return self.folder / f"table_{name}"

    @property
    def folder(self) -> Path:
        return self.cache / f"quality_{self.scale.name}"

    def steps(self, epochs: int) -> int:
        return epochs * (len(self.train) // self.scale.batch)


def student(place: Place, seed: int, steps: int) -> Recipe:
    recipe = mobileone_mini()
    schedule = Schedule(
        steps=steps,
        peak_lr=place.scale.peak_lr,
        warmup_steps=steps // 20,
        weight_decay=5e-4,
        final_weight_decay=5e-5,
        checkpoint_every=200,
        seed=seed,
    )
    # Labels are smoothed nowhere, so that students without a teacher are not told to be unsure.
    return replace(
        recipe,
        schedule=schedule,
        batch_size=place.scale.batch,
        label_smoothing=0.0,
        augment=PLAIN,
        seed=seed,
    )


PLAIN = Augmentation(pad_px=4, flip=True)
RANDOM = replace(PLAIN, rand_augment=9)


def plain(place: Place, recipe: Recipe, run: Path, watcher: Watcher) -> None:
    grow(recipe, place.train, place.test, run, watchers=[watcher])


def rand_augment(place: Place, recipe: Recipe, run: Path, watcher: Watcher) -> None:
    plain(place, replace(recipe, augment=RANDOM), run, watcher)


def learned_ranges(place: Place, recipe: Recipe, run: Path, watcher: Watcher) -> None:
    plain(place, replace(recipe, ranges=Ranges(target_db=TARGETS_DB["learned_ranges"])), run, watcher)


def weaker_ranges(place: Place, recipe: Recipe, run: Path, watcher: Watcher) -> None:
    plain(place, replace(recipe, ranges=Ranges(target_db=TARGETS_DB["weaker_ranges"])), run, watcher)


def distilled(place: Place, recipe: Recipe, run: Path, watcher: Watcher) -> None:
    """The teacher is asked in every step."""
    preprocess = preprocessing_of(recipe)
    samples, held_out = place.train, OrderedBatches(place.test, preprocess, batch_size=500)
    torch.manual_seed(recipe.seed)
    model = create_model(recipe.model, num_classes=len(samples.classes))
    model.to(memory_format=torch.channels_last)
    assert recipe.average_decay
    task = Distil(model, lambda: held_out, teacher(place), preprocess)
    order = Order(len(samples), recipe.batch_size, recipe.seed)
    batches = ImageBatches(samples, order, preprocess, variation=variation_of(recipe))
    optimizer = torch.optim.SGD(param_groups(model), lr=recipe.schedule.peak_lr, momentum=recipe.momentum)
    settings = {"distilled": True, "seed": recipe.seed, "steps": recipe.schedule.steps}
    average = moving_average(model, decay=recipe.average_decay)
    fit(task, batches, optimizer, recipe.schedule, Run(run, settings, watchers=[watcher]), average=average)
    card = ModelCard(
        architecture=recipe.model,
        num_classes=len(samples.classes),
        in_channels=recipe.channels,
        preprocess=preprocess,
        labels=samples.classes,
    )
    save_model(run / "model.safetensors", cast(Backbone, average.module), card)


def reinforced(place: Place, recipe: Recipe, run: Path, watcher: Watcher) -> None:
    told = open_table(place.table("reinforced"))
    grow(recipe, place.train, place.test, run, table=told, watchers=[watcher])


def reinforced_after_ranges(place: Place, recipe: Recipe, run: Path, watcher: Watcher) -> None:
    told = open_table(place.table("reinforced_after_ranges"))
    grow(after_ranges(place, recipe), place.train, place.test, run, table=told, watchers=[watcher])


def after_ranges(place: Place, recipe: Recipe) -> Recipe:
    """Varied by what the first seed's run has learned."""
    return with_policy(recipe, place.run("learned_ranges", 0) / "policy.json")


TABLES: dict[str, Callable[[Place, Recipe], Recipe]] = {
    "reinforced": lambda place, recipe: recipe,
    "reinforced_after_ranges": after_ranges,
}
ARMS: dict[str, Callable[[Place, Recipe, Path, Watcher], None]] = {
    arm.__name__: arm
    for arm in (
        plain,
        rand_augment,
        learned_ranges,
        weaker_ranges,
        reinforced,
        reinforced_after_ranges,
        distilled,
    )
}


def teach(place: Place, seed: int) -> None:
    """Train one member of the teacher."""
    torch.manual_seed(seed)
    scale = place.scale
    judged = OrderedBatches(place.test, PREPROCESS, batch_size=500)
    task = Classify(member(place), lambda: judged, label_smoothing=0.1)
    grow_teacher(
        task,
        place.everything,
        seed,
        place.run("teacher", seed),
        epochs=scale.teacher_epochs,
        peak_lr=scale.teacher_lr,
        variation=Variation(steps=Compose((PadCrop(), Flip()))),
        batch=scale.batch,
    )


def member(place: Place) -> ResNet:
    return ResNet(place.scale.teacher_width, len(place.train.classes))


def teacher(place: Place) -> Teacher:
    """The ensemble, of runs that have finished."""
    members: list[Teacher] = []
    for seed in SEEDS:
        model = member(place)
        newest = max((place.run("teacher", seed) / "checkpoints").iterdir())
        model.load_state_dict(load_file(newest / "model.safetensors"))
        model.to(best_device(), memory_format=torch.channels_last)
        members.append(judge_of(model, PREPROCESS, place.train.classes))
    return Ensemble(members)


def store(place: Place, name: str) -> Table:
    """Record what the teacher says of the views that an arm shows, or go on with that."""
    recipe = TABLES[name](place, student(place, 0, place.steps(place.scale.epochs)))
    return record(
        place.table(name),
        views_of(recipe, place.train, seed=0),
        teacher(place),
        num_draws=DRAWS,
        top_k=TOP_K,
        notes={SETTINGS: settings_of(recipe)},
    )
