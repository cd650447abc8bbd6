"""One process or many: the same loop, launched by `python` or by `torchrun`."""

import os
import warnings
from collections.abc import Callable
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.single_device import SingleDeviceStrategy
from lightning_fabric.wrappers import _FabricModule  # pyright: ignore[reportPrivateUsage]
from torch import Tensor, nn

from regraft.errors import RecipeError, RegraftError

Precision = Literal["32-true", "bf16-mixed"]
PRECISIONS = ("32-true", "bf16-mixed")


def launch(*, accelerator: str = "auto", precision: Precision = "32-true") -> Fabric:
    """The device of this process, joined to its fellows if `torchrun` started several.

    Args:
        accelerator: "auto" takes a GPU where there is one; "cpu", "cuda" or "mps" insist.
        precision: "bf16-mixed" computes in bfloat16 where that is safe, with float32 weights. There is no
            float16: its loss scaling skips steps with infinite gradients, which hides divergence.
    """
    if not TorchElasticEnvironment.detect():
        fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)
    else:
        num_local = int(os.environ["LOCAL_WORLD_SIZE"])
        fabric = Fabric(
            accelerator=accelerator,
            devices=num_local,
            num_nodes=int(os.environ["WORLD_SIZE"]) // num_local,
            # Each process keeps its own batch statistics; `average_running_statistics` settles them.
            strategy=DDPStrategy(broadcast_buffers=False),
            precision=precision,
        )
    return launched(fabric)


def launched(fabric: Fabric) -> Fabric:
    """`fabric`, started, if it is of a kind that the loop knows how to save and to stop.

    Raises:
        RecipeError: If it shards the model, or computes in a precision other than those of `launch`.
    """
    if not isinstance(fabric.strategy, SingleDeviceStrategy | DDPStrategy):
        raise RecipeError(
            f"{type(fabric.strategy).__name__} is not supported, expected one device or DDPStrategy.",
            hint="Use regraft.train.processes.launch().",
        )
    if fabric.strategy.precision.precision not in PRECISIONS:
        raise RecipeError(
            f"Training in precision {fabric.strategy.precision.precision!r} is not supported,"
            f" expected one of {', '.join(PRECISIONS)}."
        )
    fabric.launch()
    return fabric


def wrap(fabric: Fabric, module: nn.Module) -> _FabricModule:
    """`module` on its device, its gradients averaged over the processes; all begin as process 0 does."""
    with warnings.catch_warnings():
        # Its successor, forward_sync_buffers, is missing from the oldest PyTorch that we support.
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
        wrapped = fabric.setup_module(module)
    if fabric.world_size > 1:
        for buffer in module.buffers():
            buffer.copy_(fabric.broadcast(buffer))
    return wrapped


def only_first(fabric: Fabric, action: Callable[[], object]) -> None:
    """Let process 0 act while the others wait; all of them raise what it raises on purpose."""
    error: RegraftError | None = None
    if fabric.is_global_zero:
        try:
            action()
        except RegraftError as raised:
            error = raised
    if fabric.world_size > 1:
        error = fabric.broadcast(error)
    if error is not None:
        raise error


def mean_over_processes(fabric: Fabric, values: Tensor) -> Tensor:
    """The mean of `values` over the processes, in float64; with one process, `values` as they are."""
    if fabric.world_size == 1:
        return values
    mean = fabric.all_reduce(values.double(), reduce_op="mean")
    assert isinstance(mean, Tensor)
    return mean


@torch.no_grad()
def average_running_statistics(fabric: Fabric, *models: nn.Module) -> None:
    """Give every process the mean of all processes' floating-point buffers, which batch norm fills.

    The running statistics move linearly and are not used in training, so averaging them early, at an
    extra checkpoint, changes later ones by no more than rounding. Constant buffers stay what they
    are to the bit, because the mean is taken in float64.
    """
    buffers = [buffer for model in models for buffer in model.buffers() if buffer.is_floating_point()]
    if fabric.world_size == 1 or not buffers:
        return
    mean = mean_over_processes(fabric, torch.cat([buffer.double().flatten() for buffer in buffers]))
    for buffer, part in zip(buffers, mean.split([buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(part.view(buffer.shape))


def synchronize_batch_norm(model: nn.Module, fabric: Fabric) -> nn.Module:
    """`model` with batch norms that take their statistics over all processes, for small batches on many GPUs.

    Call it before building the optimizer. Parameters and their names stay the same, so that the weights
    load into the plain model.

    Raises:
        RecipeError: If the processes do not train on GPUs; PyTorch can synchronize only there.
    """
    if fabric.device.type != "cuda":
        raise RecipeError(
            f"Synchronized batch norm needs GPUs, but this run is on {fabric.device.type}.",
            hint="Leave it out: running statistics are averaged over processes anyway.",
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)
