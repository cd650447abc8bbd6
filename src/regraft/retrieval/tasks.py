"""What a transformation is trained to do."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from regraft.data.stream import Order
from regraft.retrieval.objectives import NearOrthogonal, Objective
from regraft.retrieval.pairs import Pairs
from regraft.retrieval.transform import Affine, Transformation
from regraft.train.task import Batch


class Alignment(ABC):
    """Bring transformed vectors near the new ones, in a way that a subclass says.

    Args:
        model: What is trained.
        objectives: What each row is judged by.
        held_out: Pairs to judge on.
        freeze_norms_after: Steps after which batch norms keep their statistics: half of all, as published.
    """

    def __init__(
        self,
        model: Transformation,
        objectives: Sequence[Objective],
        held_out: Pairs,
        *,
        freeze_norms_after: int,
    ) -> None:
        self.model = model
        self._objectives = tuple(objectives)
        self._held_out = held_out
        self._freeze_norms_after = freeze_norms_after

    def loss(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """What `terms` makes of the transformed batch."""
        freeze_norms(self.model, frozen=step >= self._freeze_norms_after)
        z, log_variance = self.model(batch["old"], batch.get("side"))
        errors = {objective.name: objective(z, batch) for objective in self._objectives}
        return self.terms(errors, log_variance)

    @abstractmethod
    def terms(
        self, errors: Mapping[str, Float[Tensor, " b"]], log_variance: Float[Tensor, " b"] | None
    ) -> Mapping[str, Tensor]:
        """The terms of the loss, of each objective's error of each row and the rows' log-variances."""

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """See `accuracy`."""
        return accuracy(model, self._held_out)


@final
class Align(Alignment):
    """The mean of each objective. With `SquaredError` alone this is FCT (arXiv 2112.02805)."""

    def terms(
        self, errors: Mapping[str, Float[Tensor, " b"]], log_variance: Float[Tensor, " b"] | None
    ) -> Mapping[str, Tensor]:
        """The mean of each objective."""
        return {name: error.mean() for name, error in errors.items()}


@final
class AlignWithVariance(Alignment):
    """Learn as well how far each vector will stay from the new one; the model knows its log-variance.

    With `SquaredError` and `ClassError` this is FastFill (arXiv 2303.04766) as its authors released it: with
    L the sum of the objectives of a row and s its log-variance,

        mean over rows of 0.5 exp(-s) L + 0.5 s.

    It is least at exp(s) = L: a row's variance is the loss that is expected of it. The paper's text puts only
    the alignment error under the variance; the released code, followed here, puts both.
    """

    def terms(
        self, errors: Mapping[str, Float[Tensor, " b"]], log_variance: Float[Tensor, " b"] | None
    ) -> Mapping[str, Tensor]:
        """The one term above."""
        assert log_variance is not None, "the model knows its log-variance"
        error = torch.stack(list(errors.values())).sum(dim=0)
        return {"attenuated": attenuated(error, log_variance).mean()}


@final
class AlignNearOrthogonal(Alignment):
    """The mean of each objective, for a linear map that stays near an orthogonal one.

    The forward map of arXiv 2509.16664 with its penalty. The paper trains a second map back to the old space,
    which is not needed to upgrade a gallery.

    Args:
        model: What is trained.
        objectives: What each row is judged by.
        penalty: Of the matrix.
        held_out: Pairs to judge on.
    """

    def __init__(
        self, model: Affine, objectives: Sequence[Objective], penalty: NearOrthogonal, held_out: Pairs
    ) -> None:
        super().__init__(model, objectives, held_out, freeze_norms_after=0)  # a linear map has no norms
        self._penalty = penalty
        self._linear = model

    def terms(
        self, errors: Mapping[str, Float[Tensor, " b"]], log_variance: Float[Tensor, " b"] | None
    ) -> Mapping[str, Tensor]:
        """The mean of each objective, and the penalty."""
        means = {name: error.mean() for name, error in errors.items()}
        return means | {self._penalty.name: self._penalty(self._linear)}


def attenuated(error: Float[Tensor, " b"], log_variance: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """0.5 exp(-s) L + 0.5 s, for errors L and log-variances s."""
    return 0.5 * torch.exp(-log_variance) * error + 0.5 * log_variance


def accuracy(model: nn.Module, pairs: Pairs) -> Mapping[str, float]:
    """Mean cosine between transformed and new vectors, from -1 to 1."""
    assert isinstance(model, Transformation)
    device = next(model.parameters()).device
    side = None if pairs.side is None else torch.from_numpy(pairs.side).to(device)
    z, _ = model(torch.from_numpy(pairs.old).to(device), side)
    cosine = nn.functional.cosine_similarity(z, torch.from_numpy(pairs.new).to(device), dim=1)
    return {"cosine": float(cosine.mean())}


def freeze_norms(model: nn.Module, *, frozen: bool) -> None:
    """Let every batch norm of a model that trains keep its running statistics, or gather them."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train(not frozen)


def batches(pairs: Pairs, order: Order, step: int) -> Iterator[Batch]:
    """Yield batches of pairs from number `step` on: `old`, `new`, and `side` and `label` if known."""
    columns = {"old": pairs.old, "new": pairs.new, "side": pairs.side, "label": pairs.labels}
    tensors = {name: torch.from_numpy(column) for name, column in columns.items() if column is not None}
    while True:
        _, rows = order.batch(step)
        chosen = torch.from_numpy(rows.copy())
        yield {name: tensor[chosen] for name, tensor in tensors.items()}
        step += 1
