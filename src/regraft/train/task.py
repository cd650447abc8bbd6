"""What a capability must say about itself to be trained."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

Batch = dict[str, Tensor]
"""Named tensors whose first dimension is the sample, equally long."""


@runtime_checkable
class Task(Protocol):
    """A model, what it is punished for, and how it is judged.

    A task holds plain modules. Devices, precision and processes are the loop's affair.
    """

    @property
    def model(self) -> nn.Module:
        """Everything that is trained and checkpointed.

        Parts that must stay in eval mode override `train`.
        """
        ...

    def loss(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Named scalar terms, each a mean over the samples; the loop minimises their sum.

        Args:
            batch: This process's samples, or a chunk of them, on the model's device.
            step: Optimizer steps made so far, from 0.
        """
        ...

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """Metrics of `model`, on held-out data.

        Called in every process, with equal weights, without gradients; the answer of process 0 is recorded.

        Args:
            model: `self.model`, or its moving average where there is one; in eval mode.
        """
        ...
