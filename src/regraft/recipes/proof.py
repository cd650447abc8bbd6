"""Inputs on which a model and its replacement are compared."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from regraft.deploy.parity import random_inputs
from regraft.vision.modelfile import ModelCard

MOST_PICTURES = 256
"""Real pictures compared on at most."""
BATCH = 16


def proof_inputs(card: ModelCard, pictures: Sequence[Path], *, num_random: int = 4 * BATCH) -> list[Tensor]:
    """Batches of real pictures, spread over all of `pictures`, then random ones of unit variance.

    Raises:
        BadImage: A picture cannot be read.
    """
    chosen = pictures[:: -(-len(pictures) // MOST_PICTURES) or 1]
    real = [
        torch.stack([card.preprocess(path) for path in chosen[start : start + BATCH]])
        for start in range(0, len(chosen), BATCH)
    ]
    size_px = card.preprocess.size_px
    random = torch.cat(list(random_inputs((1, card.in_channels, size_px, size_px), num_random)))
    return [*real, *random.split(BATCH)]
