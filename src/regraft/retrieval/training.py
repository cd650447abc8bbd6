"""How a transformation is trained: the numbers, and one run of the loop."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch

from regraft.data.stream import Order
from regraft.errors import RecipeError
from regraft.retrieval.pairs import Pairs
from regraft.retrieval.tasks import batches
from regraft.retrieval.transform import Transformation
from regraft.train import processes
from regraft.train.journal import Watcher
from regraft.train.loop import fit
from regraft.train.run import Run
from regraft.train.schedule import Schedule, param_groups
from regraft.train.task import Task

WEIGHT_DECAY = 2.0**-15


@dataclass(frozen=True, kw_only=True)
class Training:
    """The numbers of one training. The defaults take a processor core seconds for thousands of pairs."""

    width: int = 512
    """Of the trunk of `TwoBranch`, and of the hidden layer of `ResidualMLP`."""
    epochs: int = 12
    """Passes over the pairs."""
    min_steps: int = 300
    """Steps made at least, however few pairs there are."""
    batch_size: int = 512
    """Pairs a step; a quarter of the pairs, if that is fewer."""
    peak_lr: float = 5e-4
    """Highest learning rate of Adam, as published. Once its norms are frozen, a network cannot revive
    units that have died: at 1e-3, with 3,000 pairs, 99 in 100 did where a variance is learned as well."""
    warmup: float = 0.0625
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = WEIGHT_DECAY
    """Added to the gradient, as plain Adam does."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0 and name not in ("warmup", "weight_decay"):
                raise RecipeError(f"{name} is {value}, expected a positive number.")

    def order(self, num_pairs: int, seed: int) -> Order:
        """Which pairs make up each batch."""
        return Order(num_pairs, max(2, min(self.batch_size, num_pairs // 4)), seed)

    def steps(self, num_pairs: int) -> int:
        """Steps in all."""
        return max(self.min_steps, self.epochs * self.order(num_pairs, 0).steps_per_epoch)


PUBLISHED = Training(width=2048, epochs=80, batch_size=1024, peak_lr=5e-4)
"""What the authors of FCT and FastFill train with: Adam, 80 epochs, 5 of them warm-up."""


def train(
    task: Task,
    pairs: Pairs,
    training: Training,
    *,
    seed: int,
    folder: Path | None = None,
    watchers: Sequence[Watcher] = (),
) -> None:
    """Train `task.model` on pairs; leave it in eval mode on the CPU.

    Args:
        task: Whose model is trained.
        pairs: To train on.
        training: The numbers.
        seed: Decides the order of the pairs.
        folder: A run directory, so that an interrupted training goes on where it was; `None` keeps nothing.
        watchers: Who else follows.
    """
    steps = training.steps(len(pairs))
    schedule = Schedule(
        steps=steps,
        peak_lr=training.peak_lr,
        warmup_steps=min(steps - 1, round(training.warmup * steps)),
        weight_decay=training.weight_decay,
        checkpoint_every=None if folder is None else max(1, steps // 10),
        clip_norm=None,
        seed=seed,
    )
    order = training.order(len(pairs), seed)
    optimizer = torch.optim.Adam(param_groups(task.model), lr=training.peak_lr)
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as place:
        recipe = asdict(training) | {"steps": steps, "seed": seed, "pairs": pairs.fingerprint}
        run = Run(Path(place), recipe, watchers=watchers)
        fit(
            task,
            lambda step: batches(pairs, order, step),
            optimizer,
            schedule,
            run,
            fabric=processes.launch(),
        )
    task.model.cpu().eval()


Network = TypeVar("Network", bound=Transformation)


def seeded(seed: int, build: Callable[[], Network]) -> Network:
    """Build a network with the random weights of a seed, leaving the global generator alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
