"""What better data is worth: students on CIFAR-10, told apart by their data alone.

    python benchmarks/data_quality.py CIFAR10 CACHE               # trains what CACHE lacks; hours on a CPU
    python benchmarks/data_quality.py CIFAR10 CACHE --time        # what a step of each costs, in turns
    python benchmarks/data_quality.py CIFAR10 CACHE --measure     # judges what is there, on a CPU
    python benchmarks/render_data_quality.py                      # writes docs/data-quality.md

CIFAR10 is a folder with `train/<class>/*.jpg` and `test/<class>/*.jpg`. With --large all of it is larger and
wants a GPU: all 50,000 pictures, more epochs, a wider teacher.

Students are the small MobileOne, by one recipe. The teacher is an ensemble of three ResNets that saw all
50,000 pictures. A student's pictures are the same for all seeds, so that a table is recorded once; weights
and order are the seed's.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path

from torch import Tensor

from data_quality_arms import ARMS, LARGE, SEEDS, SMALL, TABLES, Place, store, student, teach, teacher
from data_quality_time import measure_time
from record import append, environment
from regraft.nn.reparam import fuse
from regraft.recipes.preprocessing import preprocessing_of
from regraft.recipes.small import mobileone_mini
from regraft.train.progress import ProgressLines
from regraft.vision.corrupted_batches import CorruptedBatches
from regraft.vision.corruptions import CORRUPTIONS
from regraft.vision.data import ImageSet, from_folder
from regraft.vision.evaluation import evaluate_classifier
from regraft.vision.inference import logits_of
from regraft.vision.metrics import num_correct
from regraft.vision.modelfile import load_model
from regraft.vision.preprocess import Preprocess

RESULTS = Path(__file__).parent / "results" / "data_quality.jsonl"
SEVERITIES = (1, 3, 5)
NUM_CORRUPTED = 500


def train(place: Place, arms: list[str], seeds: list[int]) -> None:
    """Everything that is missing; teachers first, as far as an arm needs them."""
    if {"distilled", *TABLES} & set(arms):
        for seed in SEEDS:
            teach(place, seed)
    for seed, arm in product(seeds, arms):
        run = place.run(arm, seed)
        if (run / "model.safetensors").exists():
            continue
        print(arm, seed, flush=True)
        if arm in TABLES:
            store(place, arm)
        ARMS[arm](place, student(place, seed, place.steps(place.scale.epochs)), run, lines())


def lines() -> ProgressLines:
    from rich.console import Console

    return ProgressLines(Console(file=sys.stderr))


def measure(place: Place, arms: list[str], seeds: list[int]) -> list[dict[str, object]]:
    """Every finished student and the teacher, on the same pictures, clean and corrupted."""
    finished = [
        (arm, seed)
        for arm, seed in product(arms, seeds)
        if (place.run(arm, seed) / "model.safetensors").exists()
    ]
    judged: dict[tuple[str, int | None], Callable[[Tensor], Tensor]] = {}
    for arm, seed in finished:
        model, _ = load_model(place.run(arm, seed) / "model.safetensors")
        judged[arm, seed] = fuse(model.eval())
    told, preprocess = teacher(place), preprocessing_of(mobileone_mini())
    judged["teacher", None] = lambda image: told(preprocess.pixels_of(image))
    corrupted = corrupted_errors(judged, place.test, preprocess)
    where = environment("torch", "numpy", "imagecorruptions-imaug")
    found: list[dict[str, object]] = []
    for (arm, seed), classifier in judged.items():
        scores = evaluate_classifier(classifier, place.test, preprocess)
        found.append(
            where
            | {
                "scale": place.scale.name,
                "arm": arm,
                "seed": seed,
                "epochs": place.scale.epochs,
                "trained_on": trained_on(
                    place.run(arm, seed) if seed is not None else place.run("teacher", 0)
                ),
                "top1": scores.top1,
                "nll": scores.nll,
                "ece": scores.reliability.error,
                "corruption_error": corrupted[arm, seed],
            }
        )
    return found


def trained_on(run: Path) -> str:
    """The device of a run's last start."""
    return json.loads((run / "environment.json").read_bytes())[-1]["device"]


def corrupted_errors(
    judged: dict[tuple[str, int | None], Callable[[Tensor], Tensor]], test: ImageSet, preprocess: Preprocess
) -> dict[tuple[str, int | None], float]:
    """The mean error over corruptions and severities; every picture is corrupted once for all."""
    samples = test.take(range(0, len(test), len(test) // NUM_CORRUPTED))
    settings = list(product(CORRUPTIONS, SEVERITIES))
    wrong, seen = Counter[tuple[str, int | None]](), 0
    for setting, batch in CorruptedBatches(samples, preprocess, settings, batch_size=250):
        if setting is None:
            continue
        seen += len(batch["label"])
        for name, classifier in judged.items():
            logits = logits_of(classifier, batch["image"], len(test.classes))
            wrong[name] += len(batch["label"]) - num_correct(logits, batch["label"])
    return {name: wrong[name] / seen for name in judged}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cifar10", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--large", action="store_true", help="all pictures, more epochs, a wider teacher")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--time", action="store_true", help="time steps, and append to the results")
    parser.add_argument("--measure", action="store_true", help="judge, and append to the results")
    arguments = parser.parse_args()
    everything, test = from_folder(arguments.cifar10 / "train"), from_folder(arguments.cifar10 / "test")
    scale = LARGE if arguments.large else SMALL
    place = Place(scale, scale.choose(everything), everything, test, arguments.cache)
    if arguments.time:
        append(RESULTS, measure_time(place))
    elif arguments.measure:
        append(RESULTS, measure(place, arguments.arms, arguments.seeds))
    else:
        train(place, arguments.arms, arguments.seeds)


if __name__ == "__main__":
    main()
