"""Any task on pictures, with their variation learned beside it (RangeAugment)."""

from collections.abc import Mapping
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regraft.errors import ShapeError
from regraft.train.schedule import group_apart
from regraft.train.task import Batch, Task
from regraft.vision.preprocess import Preprocess
from regraft.vision.range_targets import Target, psnr_db
from regraft.vision.ranges import LearnedRanges

LR = {"sgd": 0.2, "adamw": 0.02}
"""Learning rates of ranges, by the kind of optimizer: fit to follow a target to 10 dB in some hundred steps.

The loss of `DecibelTarget` has one scale for all networks, pictures and targets, so these have, too.
"""


@final
class Varied(nn.Module):
    """A network, and the ranges that its training pictures are varied in: all that is trained."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, ranges: LearnedRanges, preprocess: Preprocess) -> None:
        super().__init__()
        self.network = network
        self.ranges = ranges
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocess, name)).view(-1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def vary(self, image: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, " b"]]:
        """Vary normalised pictures; return them, and each one's mean squared error, of values in [0, 1].

        Draws from torch's global generator of their device.

        Raises:
            ShapeError: They do not have the channels of the preprocessing.
        """
        if image.shape[1] != len(self.mean):
            raise ShapeError(
                f"Pictures have {image.shape[1]} channels, expected {len(self.mean)} as in the preprocessing."
            )
        pixels = (image * self.std + self.mean).clamp(0, 1)
        varied = self.ranges(pixels, self.ranges.draw(pixels))
        errors = (varied - pixels).square().mean((1, 2, 3))
        return ((varied - self.mean) / self.std).to(image.dtype), errors


@final
class WithLearnedRanges:
    """A task whose pictures are varied as strongly as a target says, by ranges that are learned meanwhile.

    A departure from RangeAugment (arXiv 2212.10553): the task's loss does not move the ranges unless asked
    to. It is lower for weaker variation, so it can only keep the target from being reached.

    Requirements:
        `task.loss` reads pictures `(b c h w)`, normalised by `preprocess`, from `image`. Nothing moves within
        a picture, so whatever else a batch has (labels, boxes, masks) is handed on as it is.

    Args:
        task: What the network is trained to do.
        ranges: What is learned beside it. In the optimizer they are a group of their own, `range_group`.
        preprocess: How pictures were normalised; they are varied before that.
        target: How strongly.
        task_gradient: Whether the task's loss moves the ranges too, as in the paper.
    """

    def __init__(
        self,
        task: Task,
        ranges: LearnedRanges,
        preprocess: Preprocess,
        target: Target,
        *,
        task_gradient: bool = False,
    ) -> None:
        self.model = Varied(task.model, ranges, preprocess)
        self._task = task
        self._target = target
        self._task_gradient = task_gradient
        self._target_db = target.db(0)

    def loss(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """The terms of the task on varied pictures, and `ranges`: how far they miss the target."""
        image, errors = self.model.vary(batch["image"])
        self.model.ranges.observe(errors)
        self._target_db = self._target.db(step)
        seen = image if self._task_gradient else image.detach()
        terms = self._task.loss(batch | {"image": seen}, step)
        return {**terms, "ranges": self._target.loss(errors, self.model.ranges, step)}

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """The metrics of the task, and the ranges in use, also where `model` is a moving average.

        They are `range_{operation}_low` and `range_{operation}_high`, the peak signal-to-noise ratio of some
        ten recent batches, `range_psnr_db`, and what it was meant to be, `range_target_db`.
        """
        assert isinstance(model, Varied)
        ranges = self.model.ranges
        ends = {
            f"range_{name}_{end}": value
            for name, low, high in ranges.ranges()
            for end, value in (("low", low), ("high", high))
        }
        recent_db = float(psnr_db(ranges.recent_error))
        return {
            **self._task.evaluate(model.network),
            **ends,
            "range_psnr_db": recent_db,
            "range_target_db": self._target_db,
        }


def range_group(ranges: LearnedRanges, optimizer: Literal["sgd", "adamw"]) -> dict[str, object]:
    """The parameters of `ranges` as a group for an optimizer, beside `param_groups(network)`.

    Args:
        optimizer: Its kind, which decides the rate.
    """
    # Momentum, which AdamW does not know, would overshoot a target that moves.
    return group_apart(ranges, lr=LR[optimizer]) | {"momentum": 0.0}
