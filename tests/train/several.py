"""Train in several processes. Run by torchrun: `several.py DIRECTORY PART`.

Each process writes what it ended with to `DIRECTORY/NAME-rankN.safetensors`.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from training_toys import Brightness, Regression, adamw, line_batch, picture_batch, sgd

from regraft.errors import Interrupted, RunError
from regraft.train.average import moving_average
from regraft.train.loop import fit
from regraft.train.run import Run
from regraft.train.schedule import Schedule

STEPS = 24
Act = Callable[[int], None]


def share(
    draw: Callable[[int], dict[str, Tensor]], act: Act | None = None
) -> Callable[[int], Iterator[dict[str, Tensor]]]:
    """This process's part of each global batch; `act` is called with the step before it."""
    rank, num = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))

    def batches(step: int) -> Iterator[dict[str, Tensor]]:
        while True:
            if act is not None:
                act(step)
            yield {name: tensor.chunk(num)[rank] for name, tensor in draw(step).items()}
            step += 1

    return batches


def train_lines(directory: Path) -> None:
    """No batch statistics: one process or two is the same but for rounding."""
    task = Regression()
    schedule = Schedule(steps=STEPS, peak_lr=0.05, weight_decay=1e-3, accumulate=2, evaluate_every=8)
    fit(task, share(line_batch), sgd(task.model), schedule, Run(directory, {}))


def train_pictures(directory: Path, act: Act | None = None) -> None:
    """Batch statistics, dropout, average."""
    task = Brightness()
    average = moving_average(task.model, decay=0.9)
    schedule = Schedule(steps=STEPS, peak_lr=0.01, checkpoint_every=6, evaluate_every=12)
    try:
        fit(
            task, share(picture_batch, act), adamw(task.model), schedule, Run(directory, {}), average=average
        )  # fmt: skip
    finally:
        state = {**task.model.state_dict(), **average.state_dict()}
        path = directory.parent / f"{directory.name}-rank{os.environ['RANK']}.safetensors"
        save_file(
            {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()},
            path,
        )


def send_to_second(number: signal.Signals, at: int) -> Act:
    def act(step: int) -> None:
        if step == at and os.environ["RANK"] == "1":
            os.kill(os.getpid(), number)

    return act


def train_unsettled(directory: Path) -> None:
    """Keep each process's own statistics from just before the checkpoint that settles them."""
    task = Brightness()
    own: dict[str, Tensor] = {}

    def keep(norm: nn.Module, *_: object) -> None:
        if norm.training:
            own.update({f"norm.{name}": value.clone() for name, value in norm.named_buffers()})

    task.model.norm.register_forward_hook(keep)
    schedule = Schedule(steps=3, peak_lr=0.01)
    fit(task, share(picture_batch), adamw(task.model), schedule, Run(directory, {}))
    save_file(own, directory.parent / f"unsettled-rank{os.environ['RANK']}.safetensors")


def whole_runs(directory: Path) -> None:
    train_lines(directory / "lines")
    train_unsettled(directory / "unsettled")
    train_pictures(directory / "whole")
    try:
        train_pictures(directory / "stopped", send_to_second(signal.SIGTERM, at=9))
    except Interrupted as error:
        (directory / f"interrupted-rank{os.environ['RANK']}").write_text(str(error))
    try:
        fit_with_another_recipe(directory / "whole")
    except RunError as error:
        (directory / f"refused-rank{os.environ['RANK']}").write_text(str(error))
    train_pictures(directory / "killed", send_to_second(signal.SIGKILL, at=15))


def fit_with_another_recipe(directory: Path) -> None:
    task = Regression()
    schedule = Schedule(steps=STEPS, peak_lr=0.05)
    fit(task, share(line_batch), sgd(task.model), schedule, Run(directory, {"other": 1}))


def continued_runs(directory: Path) -> None:
    train_pictures(directory / "stopped")
    train_pictures(directory / "killed")


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"whole": whole_runs, "continued": continued_runs}[sys.argv[2]](Path(sys.argv[1]))
