"""The new model at work on rows: here, or in a process far away."""

from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np

from regraft.recipes.encoders import PictureEncoder, load_encoder, read_again
from regraft.recipes.filling import NO_EMBEDDING, has_direction
from regraft.retrieval.encoding import Encoded


@final
class EncodeSources:
    """Encodes rows from their sources, in any process: it takes the model's file along, not the model.

    Args:
        file: A model file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._encoder: PictureEncoder | None = None

    def __call__(self, ids: Sequence[str], sources: Sequence[str | None]) -> Encoded:
        """Read and encode items as one batch."""
        if self._encoder is None:
            self._encoder = load_encoder(self._file)
        read = read_again(ids, sources, self._encoder.preprocess)
        if not read.pictures:
            return Encoded([], np.zeros((0, self._encoder.layout.dimension), np.float32), read.gone)
        vectors = self._encoder(read.pictures)
        sound = has_direction(vectors)
        names = [picture.id for picture in read.pictures]
        lost = [name for name, is_sound in zip(names, sound, strict=True) if not is_sound]
        kept = [name for name, is_sound in zip(names, sound, strict=True) if is_sound]
        return Encoded(kept, vectors[sound], read.gone | dict.fromkeys(lost, NO_EMBEDDING))

    def __getstate__(self) -> dict[str, object]:
        return {"_file": self._file, "_encoder": None}
