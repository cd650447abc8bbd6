"""Trading stride for dilation, so that the last feature map stays large."""

from collections.abc import Sequence
from typing import NamedTuple

from regraft.errors import ArchitectureError


class Step(NamedTuple):
    """How one stage samples its input."""

    stride: int
    entry_dilation: int
    """Dilation of the layer that would have been strided."""
    dilation: int
    """Dilation of every layer after it."""


def plan_dilation(stem_stride: int, strides: Sequence[int], output_stride: int | None) -> list[Step]:
    """Replace the strides beyond `output_stride` by dilation (the à trous trick).

    With the same weights, the dilated feature map sampled every few pixels is the strided one.

    Args:
        stem_stride: Stride before the first stage, never replaced.
        strides: Stride of each stage.
        output_stride: Pixels per cell of the last feature map; `None` keeps every stride.

    Raises:
        ArchitectureError: No whole number of stages ends at `output_stride`.
    """
    reached = [stem_stride]
    for stride in strides:
        reached.append(reached[-1] * stride)
    if output_stride is not None and output_stride not in reached[1:]:
        raise ArchitectureError(
            f"output_stride is {output_stride}; expected one of {sorted(set(reached[1:]))}."
        )
    steps: list[Step] = []
    dilation = 1
    for stride, end in zip(strides, reached[1:], strict=True):
        if output_stride is None or end <= output_stride:
            steps.append(Step(stride, dilation, dilation))
        else:
            steps.append(Step(1, dilation, dilation * stride))
            dilation *= stride
    return steps
