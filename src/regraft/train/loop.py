"""The training loop. There is one, and every capability uses it."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from regraft.data.stream import counter_seed
from regraft.errors import Interrupted, RecipeError, SampleError
from regraft.train import processes
from regraft.train.checkpoint import Trained
from regraft.train.gradients import (
    Loss,
    Reading,
    backward,
    clip,
    clipped_and_apart,
    norm_of_gradients,
    read,
    refuse,
)
from regraft.train.journal import Event
from regraft.train.run import Run
from regraft.train.schedule import Schedule
from regraft.train.signals import StopSignals
from regraft.train.task import Batch, Task


def fit(
    task: Task,
    batches: Callable[[int], Iterable[Batch]],
    optimizer: Optimizer,
    schedule: Schedule,
    run: Run,
    *,
    fabric: Fabric | None = None,
    average: AveragedModel | None = None,
) -> None:
    """Train `task.model` to `schedule.steps`, continuing from `run` if it holds a checkpoint.

    Killed at any instant and started again, a run ends where the uninterrupted one would have; on one
    CPU process, to the bit. A finished run returns at once with the final weights.

    Args:
        task: What to train, and on what terms.
        batches: `batches(n)` yields this process's share of batch n, n + 1, ..., so that a resumed run sees
            what an uninterrupted one would have seen. With several processes the shares are equally long.
        optimizer: Over `param_groups(task.model)`; the schedule sets its rate and decay. What is learned
            beside a network may be in a `group_apart`.
        schedule: The numbers of the run.
        run: Where it is kept.
        fabric: Device, precision and processes; `None` asks `processes.launch()`.
        average: `moving_average(task.model)`, evaluated instead of the model; `None` keeps none.

    Raises:
        Diverged: At the first loss or gradient that is not finite, before the optimizer acts on it.
        Interrupted: After SIGTERM or Ctrl-C, once the step is finished and saved.
        RunError: If the run directory cannot be continued.
        RecipeError: If optimizer and schedule do not fit the model.
    """
    _check(task.model, optimizer, schedule)
    fabric = processes.launch() if fabric is None else processes.launched(fabric)
    module = processes.wrap(fabric, Loss(task))
    models = [task.model] if average is None else [task.model, average.to(fabric.device)]
    clipped, apart = clipped_and_apart(task.model, optimizer)
    trained = Trained(task.model, optimizer, average)

    with (
        StopSignals(hold=fabric.world_size > 1) as signals,
        run.session(fabric, trained, schedule.steps) as session,
    ):
        step = session.step
        stream = iter(batches(step)) if step < schedule.steps else iter(())
        module.train()

        while step < schedule.steps:
            schedule.apply(optimizer, step)
            batch = _next(stream, step, fabric.device)
            _seed(fabric, schedule.seed, step)

            optimizer.zero_grad()
            terms = backward(fabric, module, batch, step, schedule.accumulate)
            norms = norm_of_gradients(clipped), norm_of_gradients(apart)
            reading = read(fabric, terms, *norms, stop=signals.received is not None)
            if not reading.finite:
                refuse(reading, task.model, step, schedule.lr(step))
            clip(clipped, reading, schedule.clip_norm)
            optimizer.step()
            if average is not None:
                average.update_parameters(task.model)
            step += 1

            evaluating = schedule.evaluates(step)
            saving = schedule.checkpoints(step) or reading.stop
            if evaluating or saving:
                processes.average_running_statistics(fabric, *models)
            metrics = _evaluate(task, fabric, average) if evaluating else {}
            session.record(_event(step, reading, schedule, metrics))
            if saving:
                session.save(step)
            if reading.stop:
                break

    if signals.received is not None or step < schedule.steps:
        raise Interrupted(
            f"Stopped by {signals.name} after step {step} of {schedule.steps}; saved in {run.checkpoints}.",
            hint="Run the same command again to continue.",
        )


def _check(model: nn.Module, optimizer: Optimizer, schedule: Schedule) -> None:
    """Refuse what would train, and not resume, or not decay, without a word."""
    known = set(model.parameters())
    groups = optimizer.param_groups
    strangers = sum(parameter not in known for group in groups for parameter in group["params"])
    if strangers:
        raise RecipeError(
            f"The optimizer has {strangers} parameters that task.model does not have, expected none.",
            hint="Everything that is trained belongs into task.model, or it is not saved.",
        )
    if schedule.weight_decay and not any(group.get("decayed") for group in groups):
        raise RecipeError(
            f"Weight decay is {schedule.weight_decay:g}, but no group of the optimizer takes it.",
            hint="Build the optimizer over param_groups(model).",
        )


def _next(stream: Iterator[Batch], step: int, device: torch.device) -> Batch:
    batch = next(stream, None)
    if batch is None:
        raise SampleError(f"The data ended before step {step}, expected a batch for every step.")
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def _seed(fabric: Fabric, seed: int, step: int) -> None:
    """Start the global generators, which dropout and drop-path draw from, anew for one step."""
    own = counter_seed("fit", seed, step, fabric.global_rank)
    # torch.manual_seed would ask after every kind of device each step, and remember the question.
    torch.default_generator.manual_seed(own)
    if fabric.device.type != "cpu":
        torch.get_device_module(fabric.device).manual_seed(own)


def _event(step: int, reading: Reading, schedule: Schedule, metrics: Mapping[str, float]) -> Event:
    return Event(
        step=step,
        loss=reading.loss,
        terms=reading.terms,
        lr=schedule.lr(step - 1),
        gradient_norm=reading.gradient_norm,
        evaluation=metrics,
    )


def _evaluate(task: Task, fabric: Fabric, average: AveragedModel | None) -> Mapping[str, float]:
    model = task.model if average is None else average.module
    assert isinstance(model, nn.Module)
    model.eval()
    with torch.no_grad(), fabric.autocast():
        metrics = task.evaluate(model)
    task.model.train()
    return {name: float(value) for name, value in metrics.items()}
