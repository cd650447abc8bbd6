"""A moving average of the weights, which is usually the better model."""

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from regraft.errors import RecipeError

Tensors = tuple[Tensor, ...] | list[Tensor]


def moving_average(model: nn.Module, *, decay: float = 0.9995) -> AveragedModel:
    """A copy of `model` that follows it exponentially, running statistics included.

    The first update copies. The n-th after it keeps a share `min(decay, (1 + n) / (10 + n))` of the
    average, so that short runs are not averages of their beginning. Counters are copied.

    Args:
        model: The model to follow, before training.
        decay: Share of the average that one step keeps in the long run, in [0, 1).
            The default is that of MobileOne and FastViT.
    """
    if not 0 <= decay < 1:
        raise RecipeError(f"The decay of a moving average is {decay}, expected a share in [0, 1).")

    def follow(average: Tensors, current: Tensors, num_averaged: Tensor | int) -> None:
        if average[0].is_floating_point():
            updates = int(num_averaged)
            keep = min(decay, (1 + updates) / (10 + updates))
            get_ema_multi_avg_fn(keep)(average, current, num_averaged)
        else:
            for mean, value in zip(average, current, strict=True):
                mean.copy_(value)

    return AveragedModel(model, multi_avg_fn=follow, use_buffers=True).requires_grad_(False).eval()
