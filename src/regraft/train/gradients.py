"""The gradient of one step: summed over chunks, measured, refused or clipped."""

import functools
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule  # pyright: ignore[reportPrivateUsage]
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from regraft.errors import Diverged, ShapeError
from regraft.train.processes import mean_over_processes
from regraft.train.task import Batch, Task

NUM_NAMED = 3
"""Parameters that an error names before it counts the rest."""


class Loss(nn.Module):
    """A task's loss as a module around its model, which is what devices and processes know how to wrap."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model
        self._loss = task.loss

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The task's terms, checked to be scalars."""
        terms = dict(self._loss(batch, step))
        for name, term in terms.items():
            if term.ndim:
                raise ShapeError(
                    f"Loss term {name!r} has shape {tuple(term.shape)}, expected one number.",
                    hint="Take its mean over the samples.",
                )
        return terms


@dataclass(frozen=True)
class Reading:
    """What a step shows of itself, equal in every process."""

    terms: dict[str, float]
    gradient_norm: float
    """Of what is clipped together."""
    norm_apart: float
    """Of the gradients that are not clipped; 0 where there are none."""
    stop: bool
    """Whether any process was asked to stop."""

    @property
    def loss(self) -> float:
        """The sum of the terms."""
        return sum(self.terms.values())

    @property
    def finite(self) -> bool:
        """Whether every term and both norms are numbers to go on with."""
        return all(map(math.isfinite, (*self.terms.values(), self.gradient_norm, self.norm_apart)))


def backward(
    fabric: Fabric, module: _FabricModule, batch: Batch, step: int, num_chunks: int
) -> dict[str, Tensor]:
    """Add the gradient of the loss of `batch`, chunk by chunk; return the terms of the whole batch.

    Each chunk weighs as many samples as it has, so the sum is that of the undivided batch, but for
    rounding (and for batch statistics, which are those of the chunk). Processes exchange gradients
    once, with the last chunk.
    """
    chunks = _split(batch, num_chunks)
    sums: dict[str, Tensor] = {}
    for number, (chunk, share) in enumerate(chunks, start=1):
        with fabric.no_backward_sync(module, enabled=number < len(chunks)):
            terms: dict[str, Tensor] = {name: share * term for name, term in module(chunk, step).items()}
            fabric.backward(functools.reduce(operator.add, terms.values()))
        for name, term in terms.items():
            sums[name] = sums[name] + term.detach() if name in sums else term.detach()
    return sums


def clipped_and_apart(
    model: nn.Module, optimizer: Optimizer
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trainable parameters of `model`: those clipped together, and those of any `group_apart`."""
    groups = [group for group in optimizer.param_groups if group.get("apart")]
    apart = {parameter for group in groups for parameter in group["params"]}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [p for p in trainable if p not in apart], [p for p in trainable if p in apart]


def norm_of_gradients(parameters: list[nn.Parameter]) -> Float[Tensor, ""]:
    """Euclidean norm of all gradients together."""
    return get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])


def read(
    fabric: Fabric,
    terms: Mapping[str, Tensor],
    norm: Float[Tensor, ""],
    norm_apart: Float[Tensor, ""],
    *,
    stop: bool,
) -> Reading:
    """Bring the step's numbers to the host, in one transfer, averaged over the processes."""
    # The norm of no gradients is a zero on the CPU.
    values = torch.stack([*terms.values(), norm, norm_apart.to(norm)])
    if fabric.world_size > 1:
        values = mean_over_processes(fabric, torch.cat([values, values.new_tensor([float(stop)])]))
        *values, stopping = values.tolist()
        stop = stopping > 0
    else:
        values = values.tolist()
    return Reading(dict(zip(terms, values[:-2], strict=True)), values[-2], values[-1], stop)


def refuse(reading: Reading, model: nn.Module, step: int, lr: float) -> None:
    """Stop a step that is not finite.

    Raises:
        Diverged: Always. It names the terms and the first parameters that are to blame.
    """
    terms = [name for name, value in reading.terms.items() if not math.isfinite(value)]
    bad = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
    ]
    rest = f" and {len(bad) - NUM_NAMED} more" if len(bad) > NUM_NAMED else ""
    where = f" Not finite: the gradients of {', '.join(bad[:NUM_NAMED])}{rest}." if bad else ""
    blame = f" Loss terms that are not finite: {', '.join(terms)}." if terms else ""
    raise Diverged(
        f"Step {step} has loss {reading.loss:g} and gradient norm {reading.gradient_norm:g},"
        f" expected finite numbers.{blame}{where}",
        hint=f"Halve peak_lr (the rate of this step is {lr:.3g}), lengthen warmup_steps, or lower clip_norm.",
    )


def clip(parameters: list[nn.Parameter], reading: Reading, largest_norm: float | None) -> None:
    """Scale all gradients down together to `largest_norm`, if they are longer."""
    if largest_norm is not None and reading.gradient_norm > largest_norm:
        norm = torch.tensor(reading.gradient_norm)
        clip_grads_with_norm_(parameters, largest_norm, norm)


def _split(batch: Batch, num_chunks: int) -> list[tuple[Batch, float]]:
    """Chunks of the samples, as equal as can be, each with its share of them."""
    lengths = {name: len(tensor) for name, tensor in batch.items()}
    if len(set(lengths.values())) != 1:
        raise ShapeError(
            f"The tensors of a batch differ in length: {lengths}; expected a row for each sample."
        )
    num_samples = next(iter(lengths.values()))
    if num_samples < num_chunks:
        raise ShapeError(
            f"A batch of {num_samples} cannot be split into {num_chunks} chunks, expected a sample for each.",
            hint="Lower accumulate.",
        )
    if num_chunks == 1:
        return [(batch, 1.0)]
    pieces = {name: tensor.tensor_split(num_chunks) for name, tensor in batch.items()}
    chunks = [{name: piece[index] for name, piece in pieces.items()} for index in range(num_chunks)]
    return [(chunk, len(next(iter(chunk.values()))) / num_samples) for chunk in chunks]
