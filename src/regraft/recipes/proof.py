"""Inputs on which a model and its replacement are compared."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from regraft.errors import SampleError
from regraft.vision.images import read_image
from regraft.vision.modelfile import ModelCard

MOST_PICTURES = 256
"""Real pictures compared on at most, spread over the folder."""
BATCH = 16


def sample_inputs(card: ModelCard, images: Path | None, num_random: int, *, seed: int = 0) -> list[Tensor]:
    """Batches of real pictures, preprocessed as the card says, then random ones of unit variance.

    Raises:
        SampleError: `images` holds no picture, or one that cannot be read.
    """
    size_px = card.preprocess.size_px
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(num_random, card.in_channels, size_px, size_px, generator=generator)
    real = [] if images is None else list(_real(card, images))
    return [*real, *random.split(BATCH)]


def _real(card: ModelCard, folder: Path) -> Iterator[Tensor]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not files:
        raise SampleError(f"There are no pictures in {folder}.")
    chosen = files[:: max(1, len(files) // MOST_PICTURES)][:MOST_PICTURES]
    for start in range(0, len(chosen), BATCH):
        yield torch.stack([card.preprocess(read_image(path)) for path in chosen[start : start + BATCH]])
