"""Learned ranges: how strongly to vary pictures, found by gradient descent (RangeAugment)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regraft.errors import RecipeError
from regraft.vision.range_bounds import HALF_WIDTHS, Parameterisation
from regraft.vision.range_operations import PAPER, Operation
from regraft.vision.range_policy import Range, RangePolicy


@final
@dataclass(frozen=True)
class Draw:
    """All that is random about how a batch is varied; what is learned is not in it."""

    order: tuple[int, ...]
    """Numbers of the operations, the first to be applied first."""
    chosen: Bool[Tensor, "k b"]
    """Which pictures get which operation: half of them, drawn anew for each."""
    place: Float[Tensor, "k b"]
    """Where in its range each magnitude is, in [0, 1)."""
    noise: Float[Tensor, "b c h w"] | None
    """Normal, if an operation needs it."""


@final
class LearnedRanges(nn.Module):
    """The range of magnitudes that each operation is applied with, learned: two parameters an operation.

    RangeAugment (arXiv 2212.10553): a magnitude is `low + place * (high - low)` with a random place, which
    lets the gradient of whatever is made of the picture reach both ends. As there, a fresh half of the batch
    gets each operation, in random order, and pictures are clamped to [0, 1] once. Those that do not get one
    are given its identity instead of being taken out of the batch and put back.

    Args:
        operations: What pictures are varied by, each once.
        parameterisation: Where ranges begin, how far they may reach, and whether they share a strength.

    Raises:
        RecipeError: No operation, or one twice.
    """

    ends_from: Tensor
    ends_to: Tensor
    identities: Tensor
    recent_error: Tensor

    def __init__(
        self, operations: Sequence[Operation] = PAPER, parameterisation: Parameterisation = HALF_WIDTHS
    ) -> None:
        super().__init__()
        names = [operation.name for operation in operations]
        if not names or len(set(names)) < len(names):
            raise RecipeError(f"The operations are {names}, expected one or more, each once.")
        self.operations = tuple(operations)
        ends = [parameterisation.ends(operation) for operation in operations]
        shared = parameterisation.strength
        self.strength = nn.Parameter(torch.tensor(shared or 0.0), requires_grad=shared is not None)
        self.theta_low = nn.Parameter(torch.tensor([end.theta[0] for end in ends]))
        self.theta_high = nn.Parameter(torch.tensor([end.theta[1] for end in ends]))
        constants = {
            "ends_from": [[end.low[0] for end in ends], [end.high[0] for end in ends]],
            "ends_to": [[end.low[1] for end in ends], [end.high[1] for end in ends]],
            "identities": [operation.identity for operation in operations],
        }
        for name, values in constants.items():
            self.register_buffer(name, torch.tensor(values), persistent=False)
        self.register_buffer("recent_error", torch.tensor(torch.nan))

    def ends(self) -> Float[Tensor, "2 k"]:
        """The lower and the upper end of each operation's range."""
        theta = torch.stack([self.theta_low, self.theta_high])
        return torch.lerp(self.ends_from, self.ends_to, (self.strength + theta).sigmoid())

    def parting(self) -> Float[Tensor, ""]:
        """How far the ends are from the strength that they share: the sum of their thetas' squares."""
        return self.theta_low.square().sum() + self.theta_high.square().sum()

    def draw(self, x: Float[Tensor, "b c h w"], generator: torch.Generator | None = None) -> Draw:
        """Draw what is random about varying `x`.

        Args:
            generator: On the pictures' device; `None` is torch's global one there.
        """
        count, device = len(self.operations), x.device
        half = max(1, len(x) // 2)
        ranks = [torch.randperm(len(x), generator=generator, device=device) for _ in range(count)]
        noisy = any(operation.noisy for operation in self.operations)
        return Draw(
            order=tuple(torch.randperm(count, generator=generator, device=device).tolist()),
            chosen=torch.stack(ranks) < half,
            place=torch.rand(count, len(x), generator=generator, device=device, dtype=x.dtype),
            noise=torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype) if noisy else None,
        )

    def magnitudes(self, draw: Draw) -> Float[Tensor, "k b"]:
        """How strongly each operation is applied to each picture."""
        low, high = self.ends()[..., None]
        return torch.where(draw.chosen, low + draw.place * (high - low), self.identities[:, None])

    def forward(self, x: Float[Tensor, "b c h w"], draw: Draw) -> Float[Tensor, "b c h w"]:
        """Vary pictures in [0, 1], in their own precision also under autocast."""
        magnitudes = self.magnitudes(draw)
        with torch.autocast(x.device.type, enabled=False):
            for number in draw.order:
                x = self.operations[number].apply(x, magnitudes[number], draw.noise)
        return x.clamp(0, 1)

    @torch.no_grad()
    def observe(self, errors: Float[Tensor, " b"]) -> None:
        """Take the mean squared errors of a batch into `recent_error`, their average over some ten batches.

        It is part of a checkpoint, so that a resumed run reports what an uninterrupted one would have.
        """
        error = errors.mean()
        moved = torch.lerp(self.recent_error, error, 0.1)
        self.recent_error.copy_(torch.where(self.recent_error.isnan(), error, moved))

    def ranges(self) -> tuple[Range, ...]:
        """The ranges as they are now."""
        pairs = zip(self.operations, self.ends().T.tolist(), strict=True)
        return tuple(Range(operation.name, low, high) for operation, (low, high) in pairs)

    def policy(self, target_db: float) -> RangePolicy:
        """The ranges as plain data, to use without learning them again.

        Args:
            target_db: What they were learned for.
        """
        return RangePolicy(operations=self.ranges(), target_db=target_db)
