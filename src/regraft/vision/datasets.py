"""Pictures and labels out of other libraries' datasets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, SupportsInt, cast, runtime_checkable

import numpy as np
from PIL import Image

from regraft.errors import SampleError
from regraft.vision.arrays import image_from_array, image_from_tensor
from regraft.vision.images import BadImage, Source, decode

Label = int | str


@runtime_checkable
class MapDataset(Protocol):
    """What torchvision's and Hugging Face's datasets have in common: a length, and items by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> object: ...


@dataclass(frozen=True, eq=False)
class DatasetItem:
    """One sample of a dataset, fetched when it is read.

    Args:
        dataset: Where the sample is.
        index: Its number there.
        image_key: Where it has its picture, if it is a dictionary.
        label_key: Where it has its label, if it is a dictionary.
    """

    dataset: MapDataset = field(repr=False)
    index: int
    image_key: str = "image"
    label_key: str = "label"

    def read(self) -> Source:
        """The picture, for `images.decode`.

        Raises:
            BadImage: The dataset cannot read it.
        """
        return self.fetch()[0]

    def fetch(self) -> tuple[Source, Label]:
        """The picture and its label.

        Raises:
            BadImage: The dataset cannot read the picture.
            SampleError: The item is not of a form that is understood.
        """
        name = f"item {self.index}"
        try:
            item = self.dataset[self.index]
        # What Pillow raises for a file it cannot read, inside the dataset.
        except (OSError, SyntaxError, ValueError) as error:
            raise BadImage(name, "damaged", " ".join(str(error).split())) from error
        picture, label = self._unpack(item, name)
        return _source(picture, name), _label(label, name)

    def content(self) -> tuple[bytes, Label]:
        """What the sample is named by, and its label: encoded bytes where given, else decoded pixels.

        Raises:
            BadImage: The picture cannot be read.
            SampleError: The item is not of a form that is understood.
        """
        source, label = self.fetch()
        content = content_of(source)
        if not content:
            raise BadImage(f"item {self.index}", "empty file", "0 bytes")
        return content, label

    def _unpack(self, item: object, name: str) -> tuple[object, object]:
        if isinstance(item, Mapping):
            fields = cast(Mapping[str, object], item)
            missing = [key for key in (self.image_key, self.label_key) if key not in fields]
            if missing:
                raise SampleError(
                    f"The dataset's {name} has no {' and no '.join(missing)}; it has {', '.join(fields)}.",
                    hint="Name its columns with image_key and label_key.",
                )
            return fields[self.image_key], fields[self.label_key]
        if isinstance(item, tuple | list) and len(cast(Sequence[object], item)) >= 2:
            picture, label, *_ = cast(Sequence[object], item)
            return picture, label
        raise SampleError(
            f"The dataset's {name} is a {type(item).__name__}, expected (picture, label) or a dictionary."
        )


def content_of(source: Source) -> bytes:
    """What equal pictures have in common: encoded bytes where there are some, else size and pixels.

    Raises:
        BadImage: It cannot be read. Encoded bytes are not decoded to find out.
    """
    if isinstance(source, bytes):
        return source
    if isinstance(source, Image.Image):
        image = decode(source).image
        return b"%d x %d " % image.size + image.tobytes()
    try:
        return Path(source).read_bytes()
    except FileNotFoundError as error:
        raise BadImage(str(source), "missing file", "nothing is there") from error
    except OSError as error:
        raise BadImage(str(source), "unreadable file", error.strerror or type(error).__name__) from error


def _source(picture: object, name: str) -> Source:
    """A picture of any usual form as something `images.decode` takes."""
    from torch import Tensor

    if isinstance(picture, str | Path | bytes | Image.Image):
        return picture
    if isinstance(picture, np.ndarray):
        return image_from_array(picture)
    if isinstance(picture, Tensor):
        return image_from_tensor(picture)
    if isinstance(picture, Mapping):  # Hugging Face, with Image(decode=False)
        encoded = cast(Mapping[str, object], picture)
        content = encoded.get("bytes")
        source = encoded.get("path") if content is None else content
        if isinstance(source, bytes | str):
            return source
    raise SampleError(
        f"The picture of the dataset's {name} is a {type(picture).__name__}, "
        "expected a PIL image, an array, a tensor, a path or encoded bytes."
    )


def _label(label: object, name: str) -> Label:
    if isinstance(label, str):
        return label
    try:
        return int(cast(SupportsInt, label))
    except (TypeError, ValueError) as error:
        message = f"The label of the dataset's {name} is {label!r}, expected one class as a number or a name."
        raise SampleError(message) from error


def class_names(dataset: object, label_key: str) -> tuple[str, ...]:
    """The class names that a dataset offers, torchvision's way or Hugging Face's; empty if it does not."""
    offered: object = getattr(dataset, "classes", None)
    if offered is None:
        features = cast(Mapping[str, object], getattr(dataset, "features", None) or {})
        offered = getattr(features.get(label_key), "names", None)
    return tuple(str(name) for name in cast(Sequence[object], offered or ()))


def index_labels(labels: Sequence[Label], names: tuple[str, ...]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Labels as indices, and the class names they point at: `names`, or if there are none the labels.

    Raises:
        SampleError: A label that is none of `names`, or numbers mixed with names.
    """
    found = set(labels)
    if names:
        known: dict[Label, int] = {name: index for index, name in enumerate(names)}
        known |= {index: index for index in range(len(names))}
        if unknown := sorted(map(str, found - known.keys())):
            raise SampleError(
                f"Labels {', '.join(unknown[:5])} are none of the dataset's {len(names)} classes."
            )
        return tuple(known[label] for label in labels), names
    if len({type(label) for label in found}) > 1:
        raise SampleError("Some labels of the dataset are numbers and some are names; expected one kind.")
    ordered = sorted(found)  # pyright: ignore[reportArgumentType]: all of one kind
    index_of = {label: index for index, label in enumerate(ordered)}
    return tuple(index_of[label] for label in labels), tuple(map(str, ordered))
