"""A model as a graph that other runtimes can take over."""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from regraft.errors import ShapeError


def trace(model: nn.Module, example: Tensor, dynamic_axes: Collection[int]) -> ExportedProgram:
    """Trace one call of `model`, leaving the size of some axes of its input open.

    Args:
        model: A module in eval mode. It is called once before it is traced.
        example: An input `(b ...)`; its values do not matter.
        dynamic_axes: Axes of the input whose size the graph must not fix.

    Raises:
        ShapeError: The model cannot take the example, or fixes one of those sizes.
    """
    _check_example(model, example)
    if not dynamic_axes:
        return torch.export.export(model, (example,))
    open_sizes = dict.fromkeys(dynamic_axes, Dim.DYNAMIC)
    try:
        return torch.export.export(model, (grown(example, dynamic_axes),), dynamic_shapes=(open_sizes,))
    except RuntimeError as error:  # Everything torch.export raises; its subclasses are private.
        raise ShapeError(
            f"{type(model).__name__} cannot take inputs with other sizes on axes {sorted(dynamic_axes)} "
            f"than those of its example, {tuple(example.shape)}: {str(error).strip().splitlines()[0]}",
            hint="Pass dynamic_axes=(0,) to keep only the batch open, or dynamic_axes=() to fix all sizes.",
        ) from error


def _check_example(model: nn.Module, example: Tensor) -> None:
    """Call the model, because torch.export would blame the open axes for an example that does not fit."""
    try:
        with torch.no_grad():
            model(example)
    except (RuntimeError, ValueError, IndexError) as error:  # What layers raise for sizes they cannot take.
        raise ShapeError(
            f"{type(model).__name__} cannot take its example, {tuple(example.shape)} of {example.dtype}: "
            f"{(str(error).strip() or type(error).__name__).splitlines()[0]}",
            hint="Pass an example of the size and type that the model is called with.",
        ) from error


def grown(example: Tensor, axes: Collection[int]) -> Tensor:
    """Zeros of twice the example's size on `axes`.

    torch.export fixes sizes of one, also those of deep feature maps; twice the size has none. And a
    graph that secretly kept the example's own size cannot be traced at another.
    """
    sizes = [2 * size if axis in axes else size for axis, size in enumerate(example.shape)]
    return torch.zeros(sizes, dtype=example.dtype, device=example.device)
