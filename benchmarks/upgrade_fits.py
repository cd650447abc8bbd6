"""The transformations that `upgrade.py` compares, fitted on CIFAR-10 features and kept in a cache.

    python benchmarks/upgrade_fits.py CACHE --seed 0

CACHE holds what `upgrade_backbones.py` made; CACHE/fits/<metric>-<setting>-<seed>-<method>.npz is what
becomes of the 10,000 test pictures. Interrupted, it goes on where it was. Half an hour a seed on one core.

Everything is learned from the training pictures, as they are and mirrored. The test pictures are the gallery
and the queries; 5,000 training pictures are held out, to learn from them how far a transformation errs.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from regraft.files import replacing
from regraft.retrieval import methods
from regraft.retrieval.head import Head
from regraft.retrieval.judging import transformed_pairs
from regraft.retrieval.linear import procrustes, ridge
from regraft.retrieval.methods import Lesson
from regraft.retrieval.objectives import InfoNCE, NearOrthogonal, SquaredError
from regraft.retrieval.pairs import Pairs, from_arrays
from regraft.retrieval.training import Training
from regraft.retrieval.transform import Transformation
from regraft.retrieval.uncertainty import with_error_estimate

SETTINGS = {"A": "old_a", "B": "old_b"}
METRICS = ("cosine", "l2")
NUM_HELD_OUT = 5000
FEW = (150, 600, 5000)
TRAINING = Training(epochs=6, peak_lr=2e-3)
"""Passes over pictures and mirrored pictures: twelve over the pictures."""


@dataclass(frozen=True, eq=False)
class Features:
    """Vectors of all pictures by one encoder."""

    train: Float32[np.ndarray, "n d"]
    mirrored: Float32[np.ndarray, "n d"]
    test: Float32[np.ndarray, "m d"]


@dataclass(frozen=True, eq=False)
class World:
    """One upgrade: a setting, a seed, and how vectors are compared."""

    fit: Pairs
    held_out: Pairs
    gallery: Pairs
    head: Head


def world(cache: Path, setting: str, seed: int, metric: str, side: str | None) -> World:
    """Load one upgrade. Under cosine all vectors have length one, as a gallery keeps them."""
    old, new = (_features(cache, name, seed, metric) for name in (SETTINGS[setting], "new"))
    beside = None if side is None else _features(cache, side, seed, metric)
    with np.load(cache / f"new-{seed}.npz") as file:
        train_labels, test_labels, weight = file["train_labels"], file["test_labels"], file["head"]
        length = 1.0 if metric == "l2" else float(np.linalg.norm(file["train"], axis=1).mean())
    order = np.random.default_rng(seed).permutation(len(train_labels))
    held_out, rest = order[:NUM_HELD_OUT], order[NUM_HELD_OUT:]

    def views(features: Features) -> Float32[np.ndarray, "n d"]:
        return np.concatenate([features.train[rest], features.mirrored[rest]])

    return World(
        from_arrays(
            views(old),
            views(new),
            side=None if beside is None else views(beside),
            labels=np.tile(train_labels[rest], 2),
        ),
        from_arrays(
            old.train[held_out],
            new.train[held_out],
            side=None if beside is None else beside.train[held_out],
            labels=train_labels[held_out],
        ),
        from_arrays(old.test, new.test, side=None if beside is None else beside.test, labels=test_labels),
        Head(torch.from_numpy(weight), length=length),
    )


def _features(cache: Path, name: str, seed: int, metric: str) -> Features:
    with np.load(cache / f"{name}-{seed}.npz") as file:
        arrays = [file[key] for key in ("train", "train_mirrored", "test")]
    if metric == "cosine":
        arrays = [array / np.linalg.norm(array, axis=1, keepdims=True) for array in arrays]
    return Features(*arrays)


Method = Callable[[Lesson, World], Transformation]
LINEAR: dict[str, Method] = {
    "procrustes": lambda lesson, world: procrustes(lesson.pairs),
    "ridge": lambda lesson, world: ridge(lesson.pairs),
    "near_orthogonal": lambda lesson, world: methods.near_orthogonal(lesson, NearOrthogonal()),
    "nearer_orthogonal": lambda lesson, world: methods.near_orthogonal(lesson, NearOrthogonal(3.0)),
}
NETWORKS: dict[str, Method] = {
    "fct": lambda lesson, world: methods.fct(lesson),
    "fastfill": lambda lesson, world: methods.fastfill(lesson, world.head),
    "label_free": lambda lesson, world: methods.label_free(lesson, world.head),
    "head_free": lambda lesson, world: methods.head_free(lesson),
    "by_class": lambda lesson, world: methods.by_class(lesson),
    "info_nce": lambda lesson, world: methods.uncertain(
        lesson, "info_nce", [SquaredError(methods.typical_number(lesson.pairs.new)), InfoNCE(weight=0.2)]
    ),
    "residual_mlp": lambda lesson, world: methods.residual_mlp(lesson),
}


@dataclass(frozen=True)
class Job:
    """One fit."""

    metric: str
    setting: str
    method: str
    side: str | None = None
    num_pairs: int | None = None
    """Gallery-like pairs without labels; `None` for all training pictures."""
    training: Training = TRAINING

    @property
    def name(self) -> str:
        """As it is called in the table."""
        side = f"+{self.side}" if self.side else ""
        few = f"@{self.num_pairs}" if self.num_pairs else ""
        width = f"/{self.training.width}" if self.training.width != TRAINING.width else ""
        return f"{self.method}{side}{few}{width}"

    def path(self, cache: Path, seed: int) -> Path:
        return cache / "fits" / f"{self.metric}-{self.setting}-{seed}-{self.name}.npz"


def jobs() -> list[Job]:
    """All fits, those that the bars need first."""
    wanted = [Job(m, s, method) for m in METRICS for s in SETTINGS for method in LINEAR]
    wanted += [
        Job(m, s, method, num_pairs=few)
        for m in METRICS
        for s in SETTINGS
        for few in FEW
        for method in ("procrustes", "ridge")
    ]
    for metric in METRICS:
        wanted += [Job(metric, s, method) for s in SETTINGS for method in ("fct", "fastfill", "label_free")]
        wanted += [Job(metric, "A", "fct", side) for side in ("side_b", "side_a")]
    wanted += [
        Job("cosine", s, method)
        for s in SETTINGS
        for method in ("head_free", "by_class", "residual_mlp", "info_nce")
    ]
    wanted += [Job("cosine", "B", method, "side_b") for method in ("fct", "fastfill")]
    wanted += [Job("cosine", "A", "fastfill", side) for side in ("side_b", "side_a")]
    wanted += [Job("cosine", s, "residual_mlp", num_pairs=5000) for s in SETTINGS]
    return wanted


def published() -> list[Job]:
    """The published width, once."""
    wide = replace(TRAINING, width=2048)
    return [Job("cosine", "A", method, training=wide) for method in ("fct", "fastfill")]


def make(job: Job, cache: Path, seed: int) -> float:
    """Fit, transform the test pictures and keep the result; return the seconds that fitting took."""
    upgrade = world(cache, job.setting, seed, job.metric, job.side)
    pairs = upgrade.fit if job.num_pairs is None else few_pairs(upgrade.fit, job.num_pairs, seed)
    lesson = Lesson(pairs=pairs, held_out=upgrade.held_out, training=job.training, seed=seed)
    start = time.process_time()
    fitted = (LINEAR | NETWORKS)[job.method](lesson, upgrade)
    seconds = time.process_time() - start
    arrays = {}
    for name, part in {"gallery": upgrade.gallery, "held_out": upgrade.held_out}.items():
        out = transformed_pairs(fitted, part)
        arrays[f"{name}_vectors"] = out.vectors
        if out.log_variance is not None:
            arrays[f"{name}_sigma"] = out.log_variance
    judged = upgrade.held_out if fitted.side_dimension else upgrade.held_out.without_side()
    estimated = with_error_estimate(fitted, judged, seed=seed)
    arrays["gallery_estimate"] = transformed_pairs(estimated, upgrade.gallery).log_variance
    arrays["seconds"] = np.array(seconds)
    path = job.path(cache, seed)
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
    return seconds


def few_pairs(pairs: Pairs, num: int, seed: int) -> Pairs:
    """Some of the pictures, not mirrored, without their labels."""
    pictures = np.random.default_rng(seed + 1).permutation(len(pairs) // 2)[:num]
    return replace(pairs.take(pictures), labels=None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cache", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--published", action="store_true", help="fit FCT and FastFill of width 2048 as well")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for job in jobs() + (published() if arguments.published else []):
        if not job.path(arguments.cache, arguments.seed).exists():
            seconds = make(job, arguments.cache, arguments.seed)
            print(f"{job.metric} {job.setting} {job.name}: {seconds:.0f} CPU seconds", flush=True)


if __name__ == "__main__":
    main()
