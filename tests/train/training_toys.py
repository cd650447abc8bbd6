"""Small tasks with everything that makes resuming hard: dropout, batch norm, ties, memory layouts."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regraft.train.average import moving_average
from regraft.train.journal import Watcher
from regraft.train.loop import fit
from regraft.train.run import Run
from regraft.train.schedule import Schedule, param_groups


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Regression:
    """A line in four dimensions, learned by a network without batch statistics."""

    def __init__(self, dropout: float = 0.0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = nn.Sequential(
                nn.Linear(4, 16), nn.LayerNorm(16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 1)
            )

    def loss(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        y = self.model(batch["x"]).squeeze(1)
        return {"error": F.mse_loss(y, batch["y"]), "size": 1e-3 * y.square().mean()}

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        batch = line_batch(10_000, 64)
        parameter = next(model.parameters())
        x, y = batch["x"].to(parameter), batch["y"].to(parameter)
        return {"held_out_error": F.mse_loss(model(x).squeeze(1), y).item()}


def line_batch(step: int, size: int = 12) -> dict[str, Tensor]:
    x = torch.randn(size, 4, generator=generator(step))
    return {"x": x, "y": x @ torch.tensor([1.0, -2.0, 0.5, 0.0])}


def lines(step: int) -> Iterator[dict[str, Tensor]]:
    while True:
        yield line_batch(step)
        step += 1


class TiedConvNet(nn.Module):
    """Batch norm, dropout, and one kernel used twice; laid out channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = self.second(F.relu(self.first(x)))
        return self.head(self.dropout(x.mean((2, 3))))


class Brightness:
    """Telling bright pictures from dark ones."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = TiedConvNet().to(memory_format=torch.channels_last)

    def loss(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        x = batch["x"].contiguous(memory_format=torch.channels_last)
        return {"cross_entropy": F.cross_entropy(self.model(x), batch["label"])}

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        device = next(model.parameters()).device
        batch = {name: value.to(device) for name, value in picture_batch(10_000, 32).items()}
        return {"accuracy": (model(batch["x"]).argmax(1) == batch["label"]).float().mean().item()}


def picture_batch(step: int, size: int = 8) -> dict[str, Tensor]:
    label = torch.randint(2, (size,), generator=generator(step))
    x = torch.randn(size, 3, 8, 8, generator=generator(step + 1)) + 0.2 * label.view(-1, 1, 1, 1)
    return {"x": x, "label": label}


def pictures(step: int) -> Iterator[dict[str, Tensor]]:
    while True:
        yield picture_batch(step)
        step += 1


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(param_groups(model), lr=0.1, momentum=0.9)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(param_groups(model), lr=0.1)


def train_pictures(
    directory: Path,
    steps: int = 60,
    build: Callable[[nn.Module], torch.optim.Optimizer] = adamw,
    batches: Callable[[int], Iterator[dict[str, Tensor]]] = pictures,
    watchers: Sequence[Watcher] = (),
) -> Brightness:
    """The run that is killed: average, accumulation, annealed decay, evaluations and checkpoints."""
    task = Brightness()
    schedule = Schedule(
        steps=steps, peak_lr=0.01, warmup_steps=5, weight_decay=1e-2, final_weight_decay=1e-3,
        accumulate=2, evaluate_every=10, checkpoint_every=7, seed=3,
    )  # fmt: skip
    run = Run(directory, {"steps": steps}, watchers=watchers)
    fit(task, batches, build(task.model), schedule, run, average=moving_average(task.model, decay=0.9))
    return task
