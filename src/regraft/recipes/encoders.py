"""The encoders of a gallery of pictures, one a space."""

import filecmp
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float
from torch import Tensor

from regraft.errors import StoreError
from regraft.files import replacing
from regraft.nn.encoder import Encoder
from regraft.recipes.intake import Picture, read_picture
from regraft.recipes.place import Place
from regraft.retrieval.store.protocol import Layout
from regraft.vision.backbone import embedder
from regraft.vision.images import BadImage
from regraft.vision.modelfile import load_model
from regraft.vision.preprocess import Preprocess

_CONTENT_ID = re.compile("[0-9a-f]{32}")
"""What `gallery add` names pictures by. Rows that a program put may have names of any other kind."""


@final
class _Applied:
    """A preprocessing that has been applied already, so that whole pictures need not wait for their batch."""

    def __init__(self, preprocess: Preprocess) -> None:
        self._preprocess = preprocess

    def __call__(self, sample: Tensor) -> Tensor:
        return sample

    def describe(self) -> Mapping[str, object]:
        return self._preprocess.describe()


@final
@dataclass(frozen=True, eq=False)
class PictureEncoder:
    """A model file at work."""

    file: Path
    layout: Layout
    """The space of its vectors."""
    preprocess: Preprocess
    encoder: Encoder[Tensor]

    @property
    def space(self) -> str:
        """The fingerprint of the model."""
        return self.layout.space

    def __call__(self, pictures: Sequence[Picture]) -> Float[np.ndarray, "n d"]:
        """Embed pictures as vectors of length one; a network may send some to zero, or NaN.

        Raises:
            BadImage: A picture that was read for other networks has changed since, or is gone.
        """
        return self.encoder([picture.seen_by(self.preprocess) for picture in pictures])


def load_encoder(file: Path, *, packed: bool = False) -> PictureEncoder:
    """Load a model file to embed with it.

    Args:
        file: A model file.
        packed: Whether its vectors are kept as 8-bit integers, as side-information is.

    Raises:
        WeightsError: The file cannot be used.
    """
    model, card = load_model(file)
    encoder = Encoder(embedder(model), _Applied(card.preprocess))
    layout = Layout(encoder.fingerprint, model.num_features, packed)
    return PictureEncoder(file, layout, card.preprocess, encoder)


def keep(file: Path, copy: Path) -> None:
    """Put a copy of a model file into a gallery, in the place of one with other content."""
    if not copy.exists() or not filecmp.cmp(file, copy, shallow=False):
        with replacing(copy) as temporary:
            shutil.copyfile(file, temporary)


@final
class Encoders:
    """The encoders of a gallery, loaded when they are first needed.

    Args:
        place: The gallery.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._loaded: dict[Layout, PictureEncoder] = {}

    def has(self, space: str) -> bool:
        """Whether the gallery has the model file of a space."""
        return self._place.encoder(space).is_file()

    def of(self, layout: Layout) -> PictureEncoder:
        """The encoder of a space.

        Raises:
            WeightsError: Its model file is gone or cannot be used.
            StoreError: The model file is another one.
        """
        if layout not in self._loaded:
            found = load_encoder(self._place.encoder(layout.space), packed=layout.packed)
            if found.layout != layout:
                raise StoreError(
                    f"The encoder in {self._place.folder} is damaged: its fingerprint is {found.space}, "
                    f"not {layout.space}.",
                    hint="Copy the model file that filled the gallery over it.",
                )
            self._loaded[layout] = found
        return self._loaded[layout]

    def among(self, layouts: Sequence[Layout]) -> list[PictureEncoder]:
        """The encoders of those spaces that the gallery has a model file of."""
        return [self.of(layout) for layout in layouts if self.has(layout.space)]


@dataclass(frozen=True, eq=False)
class Read:
    """Pictures that were read again from where they came from."""

    pictures: list[Picture]
    gone: dict[str, str]
    """Why the others could not be, by id."""


def read_again(ids: Sequence[str], sources: Sequence[str | None], preprocess: Preprocess) -> Read:
    """Read the pictures of rows from their sources; one whose content is another now is gone."""
    read = Read([], {})
    for name, source in zip(ids, sources, strict=True):
        if source is None:
            read.gone[name] = "it has no source"
            continue
        try:
            picture = read_picture(Path(source), [preprocess])
        except BadImage as error:
            read.gone[name] = f"{source}: {error.defect} ({error.detail})"
            continue
        if _CONTENT_ID.fullmatch(name) and picture.id != name:
            read.gone[name] = f"{source}: another picture now"
        else:
            read.pictures.append(replace(picture, id=name))
    return read
