"""Functions from the vectors of an old model to those of a new one, which never see the items themselves."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from regraft.errors import ShapeError

BLOCK_ROWS = 1024
"""Rows computed at once: few enough for their activations to stay in the processor's cache."""


@dataclass(frozen=True, eq=False)
class Transformed:
    """What the old vectors became."""

    vectors: Float32[np.ndarray, "n d_new"]
    """In the new model's space, of any length; not normalised."""
    log_variance: Float32[np.ndarray, " n"] | None
    """Logarithm of the error to be expected: the higher, the more a vector needs its item encoded anew.
    `None` if the transformation does not know."""

    def __len__(self) -> int:
        return len(self.vectors)


class Transformation(nn.Module, ABC):
    """A function h(old, side) -> new, and what it knows of its own error.

    Args:
        old_dimension: Numbers in an old vector.
        new_dimension: Numbers in a new vector.
        side_dimension: Numbers in the side-information of an item; 0 if it takes none.
    """

    def __init__(self, old_dimension: int, new_dimension: int, side_dimension: int = 0) -> None:
        super().__init__()
        self.old_dimension = old_dimension
        self.new_dimension = new_dimension
        self.side_dimension = side_dimension

    @abstractmethod
    def forward(
        self, old: Float[Tensor, "n d_old"], side: Float[Tensor, "n d_side"] | None = None
    ) -> tuple[Float[Tensor, "n d_new"], Float[Tensor, " n"] | None]:
        """Return new vectors, and the logarithm of the error to be expected of each, if it is known."""

    def transform(
        self,
        old: Float32[np.ndarray, "n d_old"],
        side: Float32[np.ndarray, "n_side d_side"] | None = None,
    ) -> Transformed:
        """Transform rows in blocks of `BLOCK_ROWS`, as in eval mode.

        The same rows together give the same bits; the same row among others may differ in its last bits.

        Raises:
            ShapeError: Vectors of another dimension than it was made for, or side-information that is
                missing, too much or of another length.
        """
        blocks = list(self.blocks(old, side))
        if not blocks:
            return Transformed(np.zeros((0, self.new_dimension), np.float32), None)
        known = [block.log_variance for block in blocks if block.log_variance is not None]
        vectors = np.concatenate([block.vectors for block in blocks])
        return Transformed(vectors, np.concatenate(known) if known else None)

    def blocks(
        self,
        old: Float32[np.ndarray, "n d_old"],
        side: Float32[np.ndarray, "n_side d_side"] | None = None,
    ) -> Iterator[Transformed]:
        """Yield what `transform` returns, a block at a time, for galleries larger than memory.

        Raises:
            ShapeError: See `transform`.
        """
        self._check(old, side)
        training = self.training
        self.eval()
        try:
            for start in range(0, len(old), BLOCK_ROWS):
                rows = slice(start, start + BLOCK_ROWS)
                yield self._block(old[rows], None if side is None else side[rows])
        finally:
            self.train(training)

    @torch.inference_mode()
    def _block(self, old: np.ndarray, side: np.ndarray | None) -> Transformed:
        vectors, log_variance = self(_tensor(old), None if side is None else _tensor(side))
        return Transformed(vectors.numpy(), None if log_variance is None else log_variance.numpy())

    def _check(self, old: np.ndarray, side: np.ndarray | None) -> None:
        if old.shape[1] != self.old_dimension:
            raise ShapeError(
                f"The old vectors have {old.shape[1]} numbers, but the transformation takes "
                f"{self.old_dimension}."
            )
        given = 0 if side is None else side.shape[1]
        if given != self.side_dimension:
            raise ShapeError(
                f"The side-information has {given} numbers an item, but the transformation takes "
                f"{self.side_dimension}.",
                hint="A transformation is used with what it was learned with.",
            )
        if side is not None and len(side) != len(old):
            raise ShapeError(f"There are {len(old)} old vectors, but side-information for {len(side)} items.")


@final
class Affine(Transformation):
    """Matrix and offset, over the old vector followed by the side-information.

    Procrustes and ridge regression end as this.

    Args:
        weight: One row a number of the new vector.
        bias: What is added.
        side_dimension: How many of the weight's columns are for side-information, at the end.
    """

    def __init__(
        self, weight: Float[Tensor, "d_new d_in"], bias: Float[Tensor, " d_new"], *, side_dimension: int = 0
    ) -> None:
        super().__init__(weight.shape[1] - side_dimension, weight.shape[0], side_dimension)
        self.weight = nn.Parameter(weight.float().contiguous())
        self.bias = nn.Parameter(bias.float().contiguous())

    def forward(
        self, old: Float[Tensor, "n d_old"], side: Float[Tensor, "n d_side"] | None = None
    ) -> tuple[Float[Tensor, "n d_new"], None]:
        """Multiply and add."""
        return nn.functional.linear(joined(old, side), self.weight, self.bias), None


@final
class ResidualMLP(Transformation):
    """A linear map and, added to it, what a network of one hidden layer learned of the rest.

    The best of Drift-Adapter (arXiv 2509.23471), which adds the network to the identity. Here it is added to
    a map that fits, ridge regression for one, because the two spaces need not be of one model family nor
    of one dimension. The map is kept as it is, and the network starts at zero.

    Args:
        linear: Where it starts from.
        hidden: Width of the hidden layer.
        unit: See `TwoBranch`.
    """

    def __init__(self, linear: Affine, hidden: int, *, unit: float = 1.0) -> None:
        super().__init__(linear.old_dimension, linear.new_dimension, linear.side_dimension)
        self.linear = linear.requires_grad_(False)
        self.hidden = hidden
        last = nn.Linear(hidden, linear.new_dimension)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.rest = nn.Sequential(*layer(linear.old_dimension + linear.side_dimension, hidden), last)
        self.unit: Tensor
        self.register_buffer("unit", torch.tensor(unit))

    def forward(
        self, old: Float[Tensor, "n d_old"], side: Float[Tensor, "n d_side"] | None = None
    ) -> tuple[Float[Tensor, "n d_new"], None]:
        """Add the network to the linear map."""
        return self.linear(old, side)[0] + self.unit * self.rest(joined(old, side)), None


@final
class TwoBranch(Transformation):
    """The transformation of FCT (arXiv 2112.02805): a branch each for old vector and side-information.

    Each branch is d -> 2 d -> 2 d_new; both together pass a trunk -> width -> width -> d_new. Every layer but
    the last is a matrix without bias, batch norm and ReLU. Without side-information the old vector enters
    both branches, as in the authors' released code: the width stays the same, so that the two are comparable.

    Args:
        width: Of the trunk; 2048 as published.
        unit: Length that outputs of the last layer are multiplied by. New vectors of length one have tiny
            numbers; a layer that starts as layers do should not have to shrink first. 1 as published.
    """

    def __init__(
        self,
        old_dimension: int,
        new_dimension: int,
        side_dimension: int = 0,
        *,
        width: int = 2048,
        unit: float = 1.0,
    ) -> None:
        super().__init__(old_dimension, new_dimension, side_dimension)
        self.width = width
        self.old_branch = _branch(old_dimension, new_dimension)
        self.side_branch = _branch(side_dimension or old_dimension, new_dimension)
        self.trunk = nn.Sequential(
            *layer(4 * new_dimension, width), *layer(width, width), nn.Linear(width, new_dimension)
        )
        self.unit: Tensor
        self.register_buffer("unit", torch.tensor(unit))

    def forward(
        self, old: Float[Tensor, "n d_old"], side: Float[Tensor, "n d_side"] | None = None
    ) -> tuple[Float[Tensor, "n d_new"], None]:
        """Pass both branches and the trunk."""
        return self.unit * self.in_units(old, side), None

    def in_units(
        self, old: Float[Tensor, "n d_old"], side: Float[Tensor, "n d_side"] | None
    ) -> Float[Tensor, "n d_new"]:
        """The output of the last layer."""
        branches = self.old_branch(old), self.side_branch(old if side is None else side)
        return self.trunk(torch.cat(branches, dim=1))


@final
class UncertainTwoBranch(Transformation):
    """FCT's transformation with FastFill's estimate of its own error (arXiv 2303.04766).

    The estimate is one linear function of the transformed vector, and a logarithm of a variance. Its gradient
    flows into the vector.

    Args:
        two_branch: What transforms.
    """

    def __init__(self, two_branch: TwoBranch) -> None:
        super().__init__(two_branch.old_dimension, two_branch.new_dimension, two_branch.side_dimension)
        self.two_branch = two_branch
        self.log_variance = nn.Linear(two_branch.new_dimension, 1)

    def forward(
        self, old: Float[Tensor, "n d_old"], side: Float[Tensor, "n d_side"] | None = None
    ) -> tuple[Float[Tensor, "n d_new"], Float[Tensor, " n"]]:
        """Transform, and read the log-variance off the result."""
        z = self.two_branch.in_units(old, side)
        return self.two_branch.unit * z, self.log_variance(z).flatten()


def layer(in_features: int, out_features: int) -> list[nn.Module]:
    """A matrix without bias, batch norm and ReLU."""
    return [nn.Linear(in_features, out_features, bias=False), nn.BatchNorm1d(out_features), nn.ReLU()]


def joined(old: Float[Tensor, "n d_old"], side: Float[Tensor, "n d_side"] | None) -> Float[Tensor, "n d_in"]:
    """The old vector followed by the side-information, if there is any."""
    return old if side is None else torch.cat([old, side], dim=1)


def _branch(in_features: int, new_dimension: int) -> nn.Sequential:
    return nn.Sequential(*layer(in_features, 2 * in_features), *layer(2 * in_features, 2 * new_dimension))


def _tensor(rows: np.ndarray) -> Tensor:
    # A memory-mapped file may be read-only, which torch cannot express; one block is copied.
    return torch.from_numpy(np.array(rows, np.float32))
