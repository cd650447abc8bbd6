"""What a network costs to run, counted rather than timed."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Size of a network and the work of one call."""

    parameters: int
    """Numbers that are trained."""
    multiply_adds: int
    """Multiply-adds of all convolutions and matrix products, attention's two included, for the whole
    example batch. Norms, activations and sums are not counted."""
    modules: Mapping[str, int]
    """Multiply-adds of each part, by its path in the module tree; parts without any are left out."""


def count(model: nn.Module, example: Tensor) -> Cost:
    """Count a network's parameters and multiply-adds.

    Only shapes are followed (torch's meta device), so no arithmetic is done and the model and the
    example may be anywhere. A model in training mode is counted as it trains, with all its branches.

    Args:
        example: An input `(b ...)`; its values do not matter.
    """
    state = {name: tensor.to("meta") for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        torch.func.functional_call(model, state, example.to("meta"))
    root = type(model).__name__
    flops = {path: sum(operations.values()) for path, operations in counter.get_flop_counts().items()}
    return Cost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        multiply_adds=counter.get_total_flops() // 2,
        modules={
            path.removeprefix(f"{root}."): total // 2
            for path, total in flops.items()
            if total and path not in ("Global", root)
        },
    )
