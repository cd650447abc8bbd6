"""How right a classifier is."""

from jaxtyping import Float, Int
from torch import Tensor


def num_correct(logits: Float[Tensor, "b n"], labels: Int[Tensor, " b"], *, k: int = 1) -> int:
    """Count samples whose class is among the `k` largest logits.

    Of equal logits at the boundary, which ones count is up to the sort; continuous outputs have none.
    """
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return int((best == labels[:, None]).any(1).sum())
