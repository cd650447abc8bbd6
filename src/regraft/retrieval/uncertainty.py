"""How far a transformed vector is likely to be from the true one, for transformations that do not say."""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regraft.data.stream import counter_seed
from regraft.retrieval.linear import least_squares
from regraft.retrieval.pairs import Pairs
from regraft.retrieval.transform import Transformation, joined

NUM_FEATURES = 512
LEAST_ERROR = 1e-6
"""Added to squared differences before their logarithm, which would make much of the smallest."""


@final
class ErrorEstimate(nn.Module):
    """A number for every row: a linear function of what is known of it and of random waves of that.

    Random features (Rahimi and Recht, "Random features for large-scale kernel machines", 2007) let ridge
    regression bend, so that it is found in closed form, from few pairs as from many.

    Args:
        in_features: How many numbers are known of a row.
        seed: Decides the random waves.
    """

    def __init__(self, in_features: int, *, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(counter_seed("waves", seed))
        self.standardise = nn.BatchNorm1d(in_features, affine=False)
        self.waves = nn.Linear(in_features, NUM_FEATURES).requires_grad_(False)
        self.waves.weight.copy_(
            torch.randn(NUM_FEATURES, in_features, generator=generator) / math.sqrt(in_features)
        )
        self.waves.bias.copy_(2 * math.pi * torch.rand(NUM_FEATURES, generator=generator))
        self.readout = nn.Linear(in_features + NUM_FEATURES, 1)

    def forward(self, known: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Standardise, bend and add up."""
        return self.readout(self.features(known)).flatten()

    def features(self, known: Float[Tensor, "n d"]) -> Float[Tensor, "n f"]:
        """What the number is a linear function of."""
        standard = self.standardise(known)
        return torch.cat([standard, self.waves(standard).cos()], dim=1)

    @torch.no_grad()
    def fit(self, known: Float[Tensor, "n d"], wanted: Float[Tensor, " n"], *, seed: int) -> None:
        """Find the linear function, by ridge regression."""
        self.standardise.running_mean = known.mean(dim=0)
        self.standardise.running_var = known.var(dim=0, correction=0)
        features = self.eval().features(known).numpy()
        weight, bias = least_squares(features, wanted[:, None].numpy(), seed=seed)
        self.readout.weight.copy_(torch.from_numpy(weight.T))
        self.readout.bias.copy_(torch.from_numpy(bias))


@final
class WithErrorEstimate(Transformation):
    """A transformation that does not know its error, and an estimate of it.

    Args:
        transformation: What transforms.
        estimate: Of the logarithm of the squared difference in direction, from old vector, side-information
            and transformed vector.
    """

    def __init__(self, transformation: Transformation, estimate: ErrorEstimate) -> None:
        super().__init__(
            transformation.old_dimension, transformation.new_dimension, transformation.side_dimension
        )
        self.transformation = transformation
        self.estimate = estimate

    def forward(
        self, old: Float[Tensor, "n d_old"], side: Float[Tensor, "n d_side"] | None = None
    ) -> tuple[Float[Tensor, "n d_new"], Float[Tensor, " n"]]:
        """Transform, then estimate."""
        vectors, _ = self.transformation(old, side)
        return vectors, self.estimate(torch.cat([joined(old, side), vectors], dim=1))


def with_error_estimate(transformation: Transformation, pairs: Pairs, *, seed: int = 0) -> WithErrorEstimate:
    """Learn how far a transformation's vectors are from the new ones.

    Args:
        transformation: Already fitted.
        pairs: That it was not fitted on: on those it was, it errs less than it will.
        seed: Decides the random features and the folds that choose their penalty.
    """
    found = torch.from_numpy(transformation.transform(pairs.old, pairs.side).vectors)
    new = torch.from_numpy(pairs.new)
    old, side = torch.from_numpy(pairs.old), None if pairs.side is None else torch.from_numpy(pairs.side)
    known = torch.cat([joined(old, side), found], dim=1)
    estimate = ErrorEstimate(known.shape[1], seed=seed)
    difference = nn.functional.normalize(found, dim=1) - nn.functional.normalize(new, dim=1)
    estimate.fit(known, (difference.square().sum(dim=1) + LEAST_ERROR).log(), seed=seed)
    return WithErrorEstimate(transformation, estimate.eval())
