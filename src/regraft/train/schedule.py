"""What changes from step to step: learning rate, weight decay, and when to look and to save."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]

from regraft.errors import RecipeError

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
WEIGHTED = (
    nn.Linear, nn.Bilinear, nn.Embedding,
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The numbers of one training run. Checked whole: an error names everything that is wrong.

    The learning rate rises in a straight line from `warmup_lr` to `peak_lr`, then falls on half a
    cosine to `final_lr`. Weight decay waits out the warm-up and falls on the same cosine, as
    MobileOne does (arXiv:2206.04040, section 4); most recipes leave it constant.
    """

    steps: int
    """Optimizer steps in the whole run."""
    peak_lr: float
    """Learning rate at the end of the warm-up."""
    final_lr: float = 0.0
    """Learning rate that the cosine ends on, one step after the last."""
    warmup_steps: int = 0
    """Steps of rising learning rate, at the start."""
    warmup_lr: float = 0.0
    """Learning rate that the warm-up rises from; the first step is already one rung above it."""
    weight_decay: float = 0.0
    """Decay of the groups that `param_groups` marks as decayed; norms, biases and scales get none."""
    final_weight_decay: float | None = None
    """Weight decay that the cosine ends on; `None` keeps it constant."""
    clip_norm: float | None = 1.0
    """Largest gradient norm; `None` leaves gradients alone."""
    accumulate: int = 1
    """Chunks that a process splits its batch into, to fit its memory. Changes nothing else."""
    evaluate_every: int | None = None
    """Steps between evaluations; `None` evaluates at the end only."""
    checkpoint_every: int | None = None
    """Steps between checkpoints; `None` saves at the end and when interrupted."""
    seed: int = 0
    """Seed of everything random inside the network, such as dropout and drop-path."""

    def __post_init__(self) -> None:
        wrong = list(self._problems())
        if wrong:
            raise RecipeError(f"The schedule cannot be used: {'; '.join(wrong)}.", hint=self._hint())

    def lr(self, step: int) -> float:
        """Learning rate of step `step`, from 0: linear warm-up, then half a cosine (arXiv:1608.03983)."""
        if step < self.warmup_steps:
            return self.warmup_lr + (self.peak_lr - self.warmup_lr) * (step + 1) / self.warmup_steps
        return self._cosine(self.peak_lr, self.final_lr, step)

    def decay(self, step: int) -> float:
        """Weight decay of step `step`, from 0."""
        if self.final_weight_decay is None:
            return self.weight_decay
        return self._cosine(self.weight_decay, self.final_weight_decay, step)

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set what `optimizer` uses in step `step`: the learning rate, and decay where it is due.

        A `group_apart` keeps its own.
        """
        for group in optimizer.param_groups:
            if group.get("apart"):
                continue
            group["lr"] = self.lr(step)
            if group.get("decayed"):
                group["weight_decay"] = self.decay(step)

    def evaluates(self, step: int) -> bool:
        """Whether to evaluate once `step` steps are made."""
        return step == self.steps or (self.evaluate_every is not None and step % self.evaluate_every == 0)

    def checkpoints(self, step: int) -> bool:
        """Whether to save once `step` steps are made."""
        return step == self.steps or (self.checkpoint_every is not None and step % self.checkpoint_every == 0)

    def _cosine(self, start: float, end: float, step: int) -> float:
        done = max(0, step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))

    def _problems(self) -> Iterator[str]:
        for name in ("steps", "accumulate", "evaluate_every", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name} is {value}, expected at least 1"
        for name in ("peak_lr", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                yield f"{name} is {value}, expected a positive number"
        for name in ("final_lr", "warmup_lr", "weight_decay", "final_weight_decay", "warmup_steps"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                yield f"{name} is {value}, expected zero or more"
        if self._warms_up_too_long():
            yield f"warmup_steps is {self.warmup_steps}, expected fewer than the {self.steps} steps"

    def _warms_up_too_long(self) -> bool:
        return self.warmup_steps >= self.steps > 0

    def _hint(self) -> str | None:
        return f"--set schedule.warmup_steps={self.steps // 10}" if self._warms_up_too_long() else None


def param_groups(model: nn.Module) -> list[dict[str, object]]:
    """The trainable parameters of `model` in two groups, for an optimizer: decayed, and not.

    Decay is for what multiplies features into other features: kernels, matrices, embeddings. It is not
    for norms, biases and scales (a parameter of a module of ours with one dimension longer than 1, such
    as a layer scale of shape `(c, 1, 1)`), where it would only fight the norm beside them.
    A parameter that is used twice is listed once. An empty group is left out.
    """
    decayed = dict[nn.Parameter, bool]()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                decayed.setdefault(parameter, _is_decayed(module, name, parameter))
    groups = [[parameter for parameter, due in decayed.items() if due is wanted] for wanted in (True, False)]
    return [
        {"params": group, "weight_decay": 0.0, "decayed": wanted}
        for group, wanted in zip(groups, (True, False), strict=True)
        if group
    ]


def group_apart(module: nn.Module, *, lr: float) -> dict[str, object]:
    """The trainable parameters of `module` as a group of an optimizer that goes its own way.

    It is for a few numbers that are learned beside a network and whose gradients are on another scale. The
    schedule leaves their learning rate alone, they are not decayed, and gradient clipping neither counts
    nor shortens their gradients. One that is not finite still stops the run.

    Args:
        lr: Their learning rate, from the first step to the last, above 0.

    Raises:
        RecipeError: `lr` is out of its range.
    """
    if not 0 < lr < math.inf:
        raise RecipeError(f"The learning rate of a group apart is {lr}, expected a positive number.")
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return {"params": parameters, "lr": lr, "weight_decay": 0.0, "apart": True}


def _is_decayed(module: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    if isinstance(module, NORMS) or name.endswith("bias"):
        return False
    # A depthwise 1x1 kernel (c, 1, 1, 1) is a weight although its shape is that of a scale.
    if isinstance(module, WEIGHTED):
        return parameter.ndim > 1
    return sum(length > 1 for length in parameter.shape) > 1
