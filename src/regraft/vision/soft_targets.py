"""Distributions over classes of which only the largest part is kept, and a loss that never makes them
whole."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regraft.errors import ShapeError
from regraft.train.task import Batch

IDS, PROBABILITIES, REST = "target_ids", "target_probabilities", "target_rest"
"""Names of the parts in a batch."""


@dataclass(frozen=True, eq=False)
class SoftTargets:
    """A distribution over n classes a sample: k classes with their probabilities, the rest spread evenly.

    Args:
        ids: The k classes, each once unless its probability is 0.
        probabilities: Of these classes, in [0, 1].
        rest: What is left for the n - k others together, in [0, 1].
    """

    ids: Int[Tensor, "b k"]
    probabilities: Float[Tensor, "b k"]
    rest: Float[Tensor, " b"]

    @classmethod
    def of_batch(cls, batch: Batch) -> "SoftTargets":
        """The targets that a batch carries."""
        return cls(batch[IDS], batch[PROBABILITIES], batch[REST])

    @classmethod
    def of_labels(cls, labels: Int[Tensor, " b"] | Float[Tensor, "b n"], k: int) -> "SoftTargets":
        """Labels, or shares of at most k classes where samples were mixed, as targets of k classes.

        Raises:
            ShapeError: More than k classes have a share.
        """
        if labels.ndim == 2:
            shares, ids = labels.topk(k, dim=1)
            if bool((shares.sum(1) < labels.sum(1) - 1e-4).any()):
                raise ShapeError(
                    f"Targets of {k} classes cannot hold the label of a mixed picture, which has two.",
                    hint="Record with top_k of 2 or more, or train with imitation.share=1.",
                )
            return cls(ids, shares, torch.zeros(len(labels)))
        ids = labels[:, None].expand(-1, k)
        certain = torch.zeros(len(labels), k)
        certain[:, 0] = 1
        return cls(ids, certain, torch.zeros(len(labels)))

    def to_batch(self) -> dict[str, Tensor]:
        """The entries that `of_batch` reads."""
        return {IDS: self.ids, PROBABILITIES: self.probabilities, REST: self.rest}


def sparse_kl(logits: Float[Tensor, "b n"], targets: SoftTargets) -> Float[Tensor, ""]:
    """Mean Kullback-Leibler divergence from the targets to the softmax of `logits`, in nats; 0 if they agree.

    With stored classes S, their probabilities p, a rest r and the logarithms q of the softmax, it is
    sum_S p (log p - q) + r (log(r / (n - k)) - mean of q off S). No n-wide target is made.

    Raises:
        ShapeError: There are more stored classes than logits.
    """
    num_classes, num_stored = logits.shape[1], targets.ids.shape[1]
    if num_stored > num_classes:
        raise ShapeError(f"Targets list {num_stored} classes, expected at most {num_classes}, as the logits.")
    log_q = logits.log_softmax(1)
    stored = log_q.gather(1, targets.ids)
    entropy = torch.special.entr(targets.probabilities).sum(1)
    loss = -(targets.probabilities * stored).sum(1) - entropy
    num_others = num_classes - num_stored
    if num_others:
        each = targets.rest / num_others
        others = log_q.sum(1) - stored.sum(1)
        # r log(r / (n - k)) is the rest's own part of the entropy, which is 0 where there is no rest.
        loss = loss - each * others + torch.special.xlogy(targets.rest, each)
    return loss.mean()
