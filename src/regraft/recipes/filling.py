"""Putting pictures into every space of a gallery, while an upgrade may be under way."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Bool, Float

from regraft.errors import SpaceMismatch, StoreError
from regraft.recipes.encoders import Encoders, PictureEncoder, read_again
from regraft.recipes.intake import Picture
from regraft.recipes.search import MAX_ATTEMPTS
from regraft.retrieval.store.protocol import Layout, VectorStore
from regraft.vision.preprocess import Preprocess

Watch = Callable[[int, int], object]
"""Told of progress: files looked at, and files in all."""
Reject = Callable[[Path, str], None]
"""Told of a picture that cannot be added, and why."""
NO_EMBEDDING = "no embedding (the model gives it a vector of zeros or NaN)"
"""A network may send a picture to zero, which resembles nothing; a broken one sends it to NaN."""


@dataclass
class Completed:
    """What became of vectors that were lacking."""

    num_filled: int = 0
    gone: dict[str, str] = field(default_factory=dict[str, str])
    """Why rows still lack one, by id."""


@final
class Filler:
    """Writes rows: natively in the served space, then in every other open space with an encoder.

    Which space is served may change at any instant. A row is put in the space served at that instant; until
    it has a vector in another space, that one cannot be served, so no answer ever misses it.

    Args:
        store: Where the rows are.
        encoders: The models of its spaces.
        first: The space that a new gallery is to have.
        side: Side-information that the gallery is to have; `None` adds none.
    """

    def __init__(
        self, store: VectorStore, encoders: Encoders, first: Layout, side: Layout | None = None
    ) -> None:
        self._store = store
        self._encoders = encoders
        self._first = first
        self._side = side

    def preprocesses(self) -> set[Preprocess]:
        """What a picture has to be prepared for, as far as can be told now."""
        layouts = {*self._store.spaces, self._first, *([self._side] if self._side else [])}
        return {encoder.preprocess for encoder in self._encoders.among(sorted(layouts, key=str))}

    def write(self, batch: Sequence[Picture], reject: Reject) -> int:
        """Encode pictures and put them; return the number of rows written."""
        kept, served = self._put(batch, reject)
        if not kept:
            return 0
        self._open_side()
        others = [layout for layout in self._store.spaces if layout.space != served]
        for encoder in self._encoders.among(others):
            self._fill(kept, encoder)
        return len(kept)

    def complete(self, *, except_space: str | None, batch_rows: int) -> Completed:
        """Give rows the vectors they lack, from their sources, in spaces that are not served.

        Args:
            except_space: A space to leave alone.
            batch_rows: Rows that are read and written at once.
        """
        completed = Completed()
        if self._store.layout is None:
            return completed
        self._open_side()
        others = [layout for layout in self._store.spaces[1:] if layout.space != except_space]
        for encoder in self._encoders.among(others):
            # By id: to encode takes longer than a scan can last while another process tidies.
            lacking = [name for rows in self._store.scan(lacking=encoder.space) for name in rows.ids]
            for start in range(0, len(lacking), batch_rows):
                rows = self._store.find(lacking[start : start + batch_rows])
                read = read_again(rows.ids, rows.sources, encoder.preprocess)
                completed.gone |= read.gone
                if read.pictures:
                    unsound = self._fill(read.pictures, encoder)
                    completed.gone |= dict.fromkeys(unsound, NO_EMBEDDING)
                    completed.num_filled += len(read.pictures) - len(unsound)
        return completed

    def _put(self, batch: Sequence[Picture], reject: Reject) -> tuple[list[Picture], str]:
        """Put pictures in the space that is served; return those that have a row now, and that space."""
        for attempt in range(1, MAX_ATTEMPTS + 1):
            encoder = self._served()
            vectors = encoder(batch)
            sound = has_direction(vectors)
            kept = [picture for picture, is_sound in zip(batch, sound, strict=True) if is_sound]
            try:
                self._store.put(
                    [picture.id for picture in kept],
                    vectors[sound],
                    space=encoder.space,
                    sources=[str(picture.path) for picture in kept],
                )
            except SpaceMismatch:
                # Another space is served since a moment ago: encode for that one.
                if attempt == MAX_ATTEMPTS:
                    raise
                continue
            for picture, is_sound in zip(batch, sound, strict=True):
                if not is_sound:
                    reject(picture.path, NO_EMBEDDING)
            return kept, encoder.space
        raise AssertionError("the last attempt returns or raises")

    def _served(self) -> PictureEncoder:
        served = self._store.layout or self._first
        if not self._encoders.has(served.space):
            raise StoreError(
                f"The gallery answers in the space {served.space}, and has no model file of it.",
                hint="Use the workspace that the gallery was filled with.",
            )
        return self._encoders.of(served)

    def _open_side(self) -> None:
        if self._side is not None and self._side not in self._store.spaces:
            self._store.open_space(self._side)

    def _fill(self, pictures: Sequence[Picture], encoder: PictureEncoder) -> list[str]:
        """Fill vectors of rows that were just put or read; return the ids that got none."""
        vectors = encoder(pictures)
        sound = has_direction(vectors)
        ids = [picture.id for picture in pictures]
        kept = [name for name, is_sound in zip(ids, sound, strict=True) if is_sound]
        # Closed a moment ago, a space lacks nothing.
        with suppress(SpaceMismatch):
            self._store.fill(kept, vectors[sound], space=encoder.space, origin="native")
        return [name for name, is_sound in zip(ids, sound, strict=True) if not is_sound]


def has_direction(vectors: Float[np.ndarray, "n d"]) -> Bool[np.ndarray, " n"]:
    """Which vectors have a cosine with others."""
    return np.linalg.norm(vectors, axis=1) > 0
