"""The state of an optimizer as named tensors and JSON, and back."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer


@dataclass(frozen=True)
class Numbers:
    """What an optimizer knows that is not a tensor, as JSON values."""

    entries: dict[str, dict[str, object]]
    """By index of the parameter and name."""
    groups: list[dict[str, object]]
    """Its groups, as in `state_dict()`."""


def tensors_of(optimizer: Optimizer) -> dict[str, Tensor]:
    """The tensors of the state, named `{index of the parameter}.{name}`."""
    return {
        f"{index}.{name}": value
        for index, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


def numbers_of(optimizer: Optimizer) -> Numbers:
    """The rest of the state. Floats survive JSON to the bit."""
    state = optimizer.state_dict()
    entries = {
        str(index): {name: value for name, value in values.items() if not isinstance(value, Tensor)}
        for index, values in state["state"].items()
    }
    return Numbers(entries, state["param_groups"])


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], numbers: Numbers) -> None:
    """Put a saved state into `optimizer`, in the memory layout of its parameters.

    Raises:
        ValueError: If its groups or parameters are others than those saved.
    """
    entries = {index: dict(values) for index, values in numbers.entries.items()}
    for key, tensor in tensors.items():
        index, name = key.split(".", maxsplit=1)
        entries[index][name] = tensor
    state = {int(index): values for index, values in entries.items()}
    groups = [{name: _from_json(name, value) for name, value in group.items()} for group in numbers.groups]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(
                    value
                )


def _from_json(name: str, value: object) -> object:
    # Optimizers keep pairs such as betas as tuples; JSON has lists only. Indices of parameters are a list.
    return tuple(value) if isinstance(value, list) and name != "params" else value
