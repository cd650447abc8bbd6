"""What better data is worth: students on CIFAR-10, told apart by their data alone.

    python benchmarks/upgrade_backbones.py CIFAR10 CACHE --only new --seed 0    # and 1, 2: the teacher
    python benchmarks/data_quality.py CIFAR10 CACHE               # trains what CACHE lacks; hours on a CPU
    python benchmarks/data_quality.py CIFAR10 CACHE --measure     # measures what is there
    python benchmarks/render_data_quality.py                      # writes docs/data-quality.md

CIFAR10 is a folder with `train/<class>/*.jpg` and `test/<class>/*.jpg`.

Students are the small MobileOne, on 10,000 of the 50,000 pictures, by one recipe. The teacher is an ensemble
of the three ResNets of `upgrade_backbones.py`, which saw all 50,000. The pictures are the same for all seeds,
so that a table is recorded once; weights and order are the seed's.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from record import append, environment
from regraft.data.stream import Order
from regraft.nn.reparam import fuse
from regraft.recipes.augmentation import variation_of
from regraft.recipes.policies import with_policy
from regraft.recipes.preprocessing import preprocessing_of
from regraft.recipes.recipe import Augmentation, Ranges, Recipe
from regraft.recipes.reinforcement import SETTINGS, settings_of, views_of
from regraft.recipes.small import mobileone_mini
from regraft.recipes.training import grow
from regraft.tables.table import Table
from regraft.train.loop import fit
from regraft.train.progress import ProgressLines
from regraft.train.run import Run
from regraft.train.schedule import Schedule, param_groups
from regraft.vision.batches import ImageBatches, OrderedBatches
from regraft.vision.corrupted_batches import CorruptedBatches
from regraft.vision.corruptions import CORRUPTIONS
from regraft.vision.data import ImageSet, from_folder
from regraft.vision.evaluation import evaluate_classifier
from regraft.vision.metrics import num_correct
from regraft.vision.modelfile import load_model
from regraft.vision.models import create_model
from regraft.vision.preprocess import Preprocess
from regraft.vision.reinforce import record
from regraft.vision.tasks import Distil
from regraft.vision.teachers import Ensemble, Teacher, judge_of
from upgrade_backbones import PREPROCESS, ResNet, ten_thousand

RESULTS = Path(__file__).parent / "results" / "data_quality.jsonl"
EPOCHS, BATCH, DRAWS, TOP_K = 20, 128, 20, 5
TARGETS_DB = {"learned_ranges": 20.0, "weaker_ranges": 30.0}
SEVERITIES = (1, 3, 5)
NUM_CORRUPTED = 500


@dataclass(frozen=True)
class Place:
    """Pictures, and where what is made of them is kept."""

    train: ImageSet
    test: ImageSet
    cache: Path

    def run(self, name: str, seed: int) -> Path:
        return self.cache / "quality" / f"{name}-{seed}"


def student(seed: int, steps: int, augment: Augmentation) -> Recipe:
    recipe = mobileone_mini()
    schedule = Schedule(
        steps=steps,
        peak_lr=0.1,
        warmup_steps=steps // 20,
        weight_decay=5e-4,
        final_weight_decay=5e-5,
        checkpoint_every=200,
        seed=seed,
    )
    # Labels are smoothed nowhere, so that students without a teacher are not told to be unsure.
    return replace(
        recipe, schedule=schedule, batch_size=BATCH, label_smoothing=0.0, augment=augment, seed=seed
    )


PLAIN = Augmentation(pad_px=4, flip=True)
RANDOM = replace(PLAIN, rand_augment=9)


def plain(place: Place, recipe: Recipe, run: Path) -> None:
    grow(recipe, place.train, place.test, run, watchers=[lines()])


def rand_augment(place: Place, recipe: Recipe, run: Path) -> None:
    plain(place, replace(recipe, augment=RANDOM), run)


def learned_ranges(place: Place, recipe: Recipe, run: Path) -> None:
    plain(place, replace(recipe, ranges=Ranges(target_db=TARGETS_DB["learned_ranges"])), run)


def weaker_ranges(place: Place, recipe: Recipe, run: Path) -> None:
    plain(place, replace(recipe, ranges=Ranges(target_db=TARGETS_DB["weaker_ranges"])), run)


def distilled(place: Place, recipe: Recipe, run: Path) -> None:
    """The teacher is asked in every step."""
    preprocess = preprocessing_of(recipe)
    samples, held_out = place.train, OrderedBatches(place.test, preprocess, batch_size=500)
    torch.manual_seed(recipe.seed)
    model = create_model(recipe.model, num_classes=len(samples.classes))
    model.to(memory_format=torch.channels_last)
    task = Distil(model, lambda: held_out, teacher(place), preprocess)
    batches = ImageBatches(
        samples, Order(len(samples), BATCH, recipe.seed), preprocess, variation=variation_of(recipe)
    )
    optimizer = torch.optim.SGD(param_groups(model), lr=0.1, momentum=recipe.momentum)
    settings = {"distilled": True, "seed": recipe.seed, "steps": recipe.schedule.steps}
    fit(task, batches, optimizer, recipe.schedule, Run(run, settings, watchers=[lines()]))
    torch.save(model.state_dict(), run / "model.pt")


def reinforced(place: Place, recipe: Recipe, run: Path) -> None:
    grow(recipe, place.train, place.test, run, table=table(place, recipe, "reinforced"), watchers=[lines()])


def reinforced_after_ranges(place: Place, recipe: Recipe, run: Path) -> None:
    recipe = after_ranges(place, recipe)
    made = table(place, recipe, "reinforced_after_ranges")
    grow(recipe, place.train, place.test, run, table=made, watchers=[lines()])


def after_ranges(place: Place, recipe: Recipe) -> Recipe:
    """Varied by what the first seed's run has learned."""
    return with_policy(recipe, place.run("learned_ranges", 0) / "policy.json")


TABLES: dict[str, Callable[[Place, Recipe], Recipe]] = {
    "reinforced": lambda place, recipe: recipe,
    "reinforced_after_ranges": after_ranges,
}
ARMS: dict[str, Callable[[Place, Recipe, Path], None]] = {
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


def teacher(place: Place) -> Teacher:
    """The ensemble, of runs that `upgrade_backbones.py` has finished."""
    members: list[Teacher] = []
    for seed in range(3):
        model = ResNet(24, len(place.train.classes))
        newest = max((place.cache / "runs" / f"new-{seed}" / "checkpoints").iterdir())
        model.load_state_dict(load_file(newest / "model.safetensors"))
        model.to(memory_format=torch.channels_last)
        members.append(judge_of(model, PREPROCESS, place.train.classes))
    return Ensemble(members)


def table(place: Place, recipe: Recipe, name: str) -> Table:
    views = views_of(recipe, place.train, seed=0)
    out = place.cache / "quality" / f"table_{name}"
    started_s = time.process_time()
    made = record(
        out,
        views,
        teacher(place),
        num_draws=DRAWS,
        top_k=TOP_K,
        notes={SETTINGS: settings_of(recipe)},
    )
    if not (cost := out.with_suffix(".json")).exists():
        cost.write_text(json.dumps({"cpu_s": time.process_time() - started_s, "num_rows": made.num_rows}))
    return made


def lines() -> ProgressLines:
    from rich.console import Console

    return ProgressLines(Console(file=sys.stderr))


def train_arm(place: Place, arm: str, seed: int, epochs: int) -> None:
    run = place.run(arm, seed)
    if (run / "cost.json").exists():
        return
    print(arm, seed, flush=True)
    steps = epochs * (len(place.train) // BATCH)
    recipe = student(seed, steps, PLAIN)
    if arm in TABLES:
        table(place, TABLES[arm](place, recipe), arm)  # before the clock starts
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    ARMS[arm](place, recipe, run)
    cost = {
        "wall_s": time.perf_counter() - wall_s,
        "cpu_s": time.process_time() - cpu_s,
        "epochs": epochs,
        "threads": torch.get_num_threads(),
    }
    (run / "cost.json").write_text(json.dumps(cost))


def measure(place: Place, seeds: list[int], arms: list[str]) -> None:
    """Every finished student and the teacher, on the same pictures, clean and corrupted."""
    found = [
        (arm, seed, place.run(arm, seed))
        for arm, seed in product(arms, seeds)
        if (place.run(arm, seed) / "cost.json").exists()
    ]
    students = {f"{arm}-{seed}": classifier(run) for arm, seed, run in found}
    told = teacher(place)
    preprocess = preprocessing_of(mobileone_mini())
    students["teacher"] = lambda image: told(preprocess.pixels_of(image))
    corrupted = corrupted_errors(students, place.test, preprocess)
    where = environment("torch", "numpy", "imagecorruptions-imaug")
    lines: list[dict[str, object]] = []
    for name, judged in students.items():
        scores = evaluate_classifier(judged, place.test, preprocess)
        arm, _, seed = name.partition("-")
        lines.append(
            where
            | {
                "arm": arm,
                "seed": int(seed) if seed else None,
                "top1": scores.top1,
                "nll": scores.nll,
                "ece": scores.reliability.error,
                "corruption_error": corrupted[name],
                **(json.loads((place.run(arm, int(seed)) / "cost.json").read_bytes()) if seed else {}),
            }
        )
    for name in TABLES:
        cost = place.cache / "quality" / f"table_{name}.json"
        if cost.exists():
            lines.append(where | {"arm": f"table_{name}", **json.loads(cost.read_bytes())})
    lines.append(where | {"arm": "teacher_training", **teacher_cost(place)})
    append(RESULTS, lines)


def classifier(run: Path) -> Callable[[Tensor], Tensor]:
    if (run / "model.pt").exists():
        model = create_model("mobileone_mini", num_classes=10)
        model.load_state_dict(torch.load(run / "model.pt"))
    else:
        model, _ = load_model(run / "model.safetensors")
    return fuse(model.eval())


def corrupted_errors(
    students: dict[str, Callable[[Tensor], Tensor]], test: ImageSet, preprocess: Preprocess
) -> dict[str, float]:
    """The mean error over corruptions and severities; every picture is corrupted once for all students."""
    samples = test.take(range(0, len(test), len(test) // NUM_CORRUPTED))
    settings = list(product(CORRUPTIONS, SEVERITIES))
    wrong, seen = Counter[str](), 0
    for setting, batch in CorruptedBatches(samples, preprocess, settings, batch_size=250):
        if setting is None:
            continue
        seen += len(batch["label"])
        for name, judged in students.items():
            with torch.inference_mode():
                wrong[name] += len(batch["label"]) - num_correct(judged(batch["image"]), batch["label"])
    return {name: wrong[name] / seen for name in students}


def teacher_cost(place: Place) -> dict[str, float]:
    """Processor seconds of training the three members: of a step, measured now, times their steps."""
    model = ResNet(24, len(place.train.classes)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    batch = torch.randn(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
    label = torch.zeros(BATCH, dtype=torch.int64)
    steps = 12
    started_s = 0.0
    for number in range(steps + 2):
        if number == 2:
            started_s = time.process_time()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch), label).backward()
        optimizer.step()
    step_s = (time.process_time() - started_s) / steps
    recipes = [place.cache / "runs" / f"new-{seed}" / "recipe.json" for seed in range(3)]
    num_steps = sum(json.loads(path.read_bytes())["steps"] for path in recipes)
    return {"cpu_s": step_s * num_steps, "steps": num_steps}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cifar10", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--measure", action="store_true", help="measure, and append to the results")
    arguments = parser.parse_args()
    train, test = from_folder(arguments.cifar10 / "train"), from_folder(arguments.cifar10 / "test")
    place = Place(ten_thousand(train, 0), test, arguments.cache)
    if arguments.measure:
        measure(place, arguments.seeds, arguments.arms)
        return
    for seed, arm in product(arguments.seeds, arguments.arms):
        train_arm(place, arm, seed, arguments.epochs)


if __name__ == "__main__":
    main()
