"""The classifier of a new model, which says what its vectors mean."""

from typing import final

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from regraft.errors import ShapeError


@final
class Head(nn.Module):
    """Logits of vectors as a gallery holds them. Frozen.

    Args:
        weight: One row a class.
        bias: One number a class; `None` for none.
        length: That the classifier's own inputs had on average, where the gallery holds unit vectors; 1 if it
            holds the classifier's inputs as they are.
    """

    def __init__(
        self, weight: Float[Tensor, "c d"], bias: Float[Tensor, " c"] | None = None, *, length: float = 1.0
    ) -> None:
        super().__init__()
        if bias is not None and len(bias) != len(weight):
            raise ShapeError(f"The head has {len(weight)} classes, but its bias has {len(bias)} numbers.")
        self.length = length
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", weight.detach().float() * length)
        self.register_buffer("bias", torch.zeros(len(weight)) if bias is None else bias.detach().float())

    def forward(self, vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Logits of vectors as the gallery holds them."""
        return nn.functional.linear(vectors, self.weight, self.bias)

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self.weight.shape[1]

    @property
    def num_classes(self) -> int:
        """Classes it tells apart."""
        return self.weight.shape[0]

    @torch.inference_mode()
    def probabilities(self, vectors: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n c"]:
        """How likely each class is, by this head, for each vector."""
        return self(torch.from_numpy(np.array(vectors, np.float32))).softmax(dim=1).numpy()
