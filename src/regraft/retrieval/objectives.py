"""What a transformation is punished for: terms that a task adds up, each a number for every row."""

from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regraft.retrieval.head import Head
from regraft.retrieval.transform import Affine
from regraft.train.task import Batch

LABEL_SMOOTHING = 0.1
"""Of FastFill's discriminative term, as published (arXiv 2303.04766)."""
SAME = -1e9
"""Logit of a row with itself, which is no neighbour."""


@runtime_checkable
class Objective(Protocol):
    """One term of a loss."""

    name: str

    def __call__(self, z: Float[Tensor, "b d"], batch: Batch) -> Float[Tensor, " b"]:
        """Judge the transformed vectors of a batch, row by row.

        Args:
            z: What the old vectors became.
            batch: `new` `(b d)`, the vectors they should have become, and `label` `(b)` if it is known.
        """
        ...


@final
class SquaredError:
    """Squared difference from the new vector, mean over its numbers (FCT, arXiv 2112.02805).

    Args:
        unit: Length in which vectors are measured: that of the vectors of the new model as it was trained,
            if the gallery holds unit vectors, so that the term weighs as much as published beside others.
    """

    name = "squared_error"

    def __init__(self, unit: float = 1.0) -> None:
        self._unit = unit

    def __call__(self, z: Float[Tensor, "b d"], batch: Batch) -> Float[Tensor, " b"]:
        """Squared difference over the numbers of each vector."""
        return ((z - batch["new"]) / self._unit).square().mean(dim=1)


@final
class DirectionError:
    """One less the cosine with the new vector, in [0, 2]: a squared error where lengths do not count.

    A squared error is also lowered by shrinking a vector that points the wrong way, which a gallery that is
    searched by cosine cannot see.
    """

    name = "direction_error"

    def __call__(self, z: Float[Tensor, "b d"], batch: Batch) -> Float[Tensor, " b"]:
        """One less each cosine."""
        return 1 - nn.functional.cosine_similarity(z, batch["new"], dim=1)


@final
class ClassError:
    """Cross-entropy of the true class through the new model's frozen head, in nats (FastFill).

    Args:
        head: Of the new model.
        label_smoothing: Share of the target spread evenly over all classes.
    """

    name = "class_error"

    def __init__(self, head: Head, *, label_smoothing: float = LABEL_SMOOTHING) -> None:
        self._head = head
        self._label_smoothing = label_smoothing

    def __call__(self, z: Float[Tensor, "b d"], batch: Batch) -> Float[Tensor, " b"]:
        """Cross-entropy of each label."""
        return nn.functional.cross_entropy(
            self._head(z), batch["label"], label_smoothing=self._label_smoothing, reduction="none"
        )


@final
class SoftClassError:
    """How far the head's opinion of the transformed vector is from its opinion of the new one, in nats.

    FastFill's discriminative term where no labels are known: the Kullback-Leibler divergence from what the
    head says of the new model's own vector.

    Args:
        head: Of the new model.
    """

    name = "soft_class_error"

    def __init__(self, head: Head) -> None:
        self._head = head

    def __call__(self, z: Float[Tensor, "b d"], batch: Batch) -> Float[Tensor, " b"]:
        """Divergence from the opinion of each new vector."""
        wanted = self._head(batch["new"]).log_softmax(dim=1)
        found = self._head(z).log_softmax(dim=1)
        return nn.functional.kl_div(found, wanted, reduction="none", log_target=True).sum(dim=1)


@final
class NeighbourError:
    """How far a vector's neighbourhood among the new vectors of its batch is from what it should be, in nats.

    FastFill's discriminative term where there is no head, as for CLIP, DINO or text: the other new vectors of
    the batch take the place of the classes. It is the Kullback-Leibler divergence between softmaxes over
    cosines, of the new vector to the others and of the transformed vector to the same others. A row's own
    new vector is left out, or the softmax would say little else. Unlike a contrastive term (`InfoNCE`), it
    does not push items apart that the new model holds for alike.

    Args:
        temperature: Of both softmaxes. The lower, the fewer neighbours count.
    """

    name = "neighbour_error"

    def __init__(self, temperature: float = 0.1) -> None:
        self._temperature = temperature

    def __call__(self, z: Float[Tensor, "b d"], batch: Batch) -> Float[Tensor, " b"]:
        """Divergence from the neighbourhood of each new vector."""
        new = nn.functional.normalize(batch["new"], dim=1)
        itself = torch.eye(len(new), dtype=torch.bool, device=new.device)
        wanted, found = (
            (vectors @ new.T / self._temperature).masked_fill(itself, SAME).log_softmax(dim=1)
            for vectors in (new, nn.functional.normalize(z, dim=1))
        )
        return nn.functional.kl_div(found, wanted, reduction="none", log_target=True).sum(dim=1)


@final
class InfoNCE:
    """Cross-entropy of finding a row's own new vector among those of the batch, in nats (arXiv 1807.03748).

    For comparison only: it pushes apart what the new model holds for alike, and costs precision.

    Args:
        temperature: Of the softmax over cosines.
        weight: What it is multiplied by.
    """

    name = "info_nce"

    def __init__(self, temperature: float = 0.1, *, weight: float = 1.0) -> None:
        self._temperature = temperature
        self._weight = weight

    def __call__(self, z: Float[Tensor, "b d"], batch: Batch) -> Float[Tensor, " b"]:
        """Cross-entropy of each own new vector."""
        cosines = nn.functional.normalize(z, dim=1) @ nn.functional.normalize(batch["new"], dim=1).T
        target = torch.arange(len(z), device=z.device)
        loss = nn.functional.cross_entropy(cosines / self._temperature, target, reduction="none")
        return self._weight * loss


@final
class SameClass:
    """How far the new vectors of a row's class are from having all of its attention, in nats.

    The supervised contrastive loss (arXiv 2004.11362) from transformed vectors to the new ones of the batch,
    which lambda-orthogonality (arXiv 2509.16664) adds: it needs labels, but no head.

    Args:
        temperature: Of the softmax over cosines.
    """

    name = "same_class"

    def __init__(self, temperature: float = 0.1) -> None:
        self._temperature = temperature

    def __call__(self, z: Float[Tensor, "b d"], batch: Batch) -> Float[Tensor, " b"]:
        """Mean attention that each row withholds from its class."""
        cosines = nn.functional.normalize(z, dim=1) @ nn.functional.normalize(batch["new"], dim=1).T
        same = (batch["label"][:, None] == batch["label"]).to(cosines.dtype)
        attention = (cosines / self._temperature).log_softmax(dim=1)
        return -(attention * same).sum(dim=1) / same.sum(dim=1)


@final
class NearOrthogonal:
    """How far the matrix of a linear map is from orthogonal, once it is farther than allowed.

    With D the Frobenius norm of W W' - I, the penalty is sigmoid(sharpness (D - allowed)) D: the
    lambda-orthogonality of arXiv 2509.16664, where `allowed` is lambda.

    Args:
        allowed: 12 as published. Even the zero matrix is no farther than the root of the number of its rows,
            11.3 for 128: the published value hardly binds narrow vectors.
        sharpness: Of the step at `allowed`; what the authors call alpha.
        weight: What it is multiplied by.
    """

    name = "near_orthogonal"

    def __init__(self, allowed: float = 12.0, *, sharpness: float = 10.0, weight: float = 1.0) -> None:
        self._allowed = allowed
        self._sharpness = sharpness
        self._weight = weight

    def __call__(self, model: Affine) -> Float[Tensor, ""]:
        """The penalty of the part of the matrix that is for old vectors."""
        weight = model.weight[:, : model.old_dimension]
        smaller = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
        distance = (smaller - torch.eye(len(smaller), device=weight.device)).norm()
        return self._weight * torch.sigmoid(self._sharpness * (distance - self._allowed)) * distance
