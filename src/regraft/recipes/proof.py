"""Inputs on which a model and its replacement are compared."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from regraft.deploy.parity import random_inputs
from regraft.errors import SampleError
from regraft.recipes.intake import picture_files
from regraft.vision.images import BadImage
from regraft.vision.left_out import LeftOut
from regraft.vision.modelfile import ModelCard

MOST_PICTURES = 256
"""Real pictures compared on at most."""
BATCH = 16
NUM_RANDOM = 64
"""Random pictures compared on, unless said otherwise."""


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder, at any depth.

    Raises:
        SampleError: There is no such folder, or no picture in it.
    """
    pictures = list(picture_files([folder])) if folder.exists() else []
    if not pictures:
        raise SampleError(f"There are no pictures in {folder}.", hint="Give a folder that holds some.")
    return pictures


def proof_inputs(
    card: ModelCard,
    pictures: Sequence[Path],
    *,
    num_random: int = NUM_RANDOM,
    left_out: LeftOut | None = None,
) -> list[Tensor]:
    """Batches of real pictures, spread over all of `pictures`, then random ones of unit variance.

    Args:
        card: Says how the pictures are preprocessed.
        pictures: Files; none is fine.
        num_random: Random pictures.
        left_out: Takes the names of the pictures that cannot be read.

    Raises:
        SampleError: None of the pictures chosen can be read.
    """
    left_out = LeftOut() if left_out is None else left_out
    chosen = pictures[:: -(-len(pictures) // MOST_PICTURES) or 1]
    real: list[Tensor] = []
    for path in chosen:
        try:
            real.append(card.preprocess(path))
        except BadImage as error:
            left_out.add({str(path): error})
    if chosen and not real:
        raise SampleError(f"None of the {len(chosen)} pictures to compare on can be read.")
    size_px = card.preprocess.size_px
    random = torch.cat(list(random_inputs((1, card.in_channels, size_px, size_px), num_random)))
    return [*(torch.stack(real).split(BATCH) if real else ()), *random.split(BATCH)]
