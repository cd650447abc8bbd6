"""From files and folders to pictures that a gallery does not hold yet, one at a time."""

import os
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from torch import Tensor

from regraft.data.sample import content_id
from regraft.errors import SampleError
from regraft.vision.images import EXTENSIONS, BadImage, read_image
from regraft.vision.preprocess import Preprocess

NUM_NAMED = 3


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture ready for the networks of a gallery."""

    id: str
    """Hash of the file's bytes."""
    path: Path
    views: Mapping[Preprocess, Tensor]
    """The picture as each of some networks wants it."""

    def seen_by(self, preprocess: Preprocess) -> Tensor:
        """The picture for one network; it is read anew if nobody expected that network.

        Raises:
            BadImage: It has changed since, or is gone.
        """
        if preprocess in self.views:
            return self.views[preprocess]
        again = read_picture(self.path, [preprocess])
        if again.id != self.id:
            raise BadImage(str(self.path), "unreadable file", "it has changed since it was first read")
        return again.views[preprocess]


def read_picture(path: Path, preprocesses: Collection[Preprocess]) -> Picture:
    """Read, name and preprocess one picture file.

    Raises:
        BadImage: It cannot be read.
    """
    data = _bytes_of(path)
    return Picture(content_id(data), path.absolute(), _views(path, data, preprocesses))


@final
class Intake:
    """Tells pictures to be encoded from files that need no new row, and keeps count of those.

    Remembers the id of every picture, about 100 bytes each.

    Args:
        preprocesses: Applied at once, so that no more than a batch of small tensors is held.
        stored: Ids that have a row.
        num_files: Files that will come.
        max_bad_share: Largest share of them that may be bad, in [0, 1].
    """

    def __init__(
        self,
        preprocesses: Collection[Preprocess],
        stored: Container[str],
        *,
        num_files: int,
        max_bad_share: float,
    ) -> None:
        self.num_present = 0
        self.num_duplicates = 0
        self.bad: list[tuple[Path, str]] = []
        self._preprocesses = frozenset(preprocesses)
        self._stored = stored
        self._num_files = num_files
        self._max_bad_share = max_bad_share
        self._seen: set[str] = set()

    def pictures(self, paths: Iterable[Path]) -> Iterator[Picture]:
        """Yield the pictures that need a row, each content once.

        Raises:
            SampleError: Too many files are bad; raised as soon as that is certain.
        """
        for path in paths:
            try:
                picture = self._fresh(path)
            except BadImage as error:
                self.reject(path, f"{error.defect} ({error.detail})")
            else:
                if picture is not None:
                    yield picture

    def reject(self, path: Path, reason: str) -> None:
        """Count a file as bad.

        Raises:
            SampleError: Too many files are bad.
        """
        self.bad.append((path, reason))
        if len(self.bad) <= self._max_bad_share * self._num_files:
            return
        named = "; ".join(f"{bad}: {why}" for bad, why in self.bad[:NUM_NAMED])
        more = f" and {len(self.bad) - NUM_NAMED:,} more" if len(self.bad) > NUM_NAMED else ""
        raise SampleError(
            f"{len(self.bad):,} of {self._num_files:,} pictures cannot be added, "
            f"more than the {self._max_bad_share:.1%} allowed: {named}{more}.",
            hint="Mend or remove them, or raise max_bad_share. What was added before stays.",
        )

    def _fresh(self, path: Path) -> Picture | None:
        data = _bytes_of(path)
        name = content_id(data)
        if name in self._seen:
            self.num_duplicates += 1
            return None
        if name in self._stored:
            self._seen.add(name)
            self.num_present += 1
            return None
        picture = Picture(name, path.absolute(), _views(path, data, self._preprocesses))
        self._seen.add(name)  # only now: a bad file that comes twice is bad twice
        return picture


def count_files(places: Sequence[Path]) -> tuple[int, int]:
    """Count the pictures that `picture_files` yields, and the files it passes over.

    Raises:
        SampleError: One of the places is not there, or there is no picture in any.
    """
    missing = [str(place) for place in places if not place.exists()]
    if missing:
        raise SampleError(f"There is no file or folder {', '.join(missing[:NUM_NAMED])}.")
    counts = Counter(is_picture for _, is_picture in _files(places))
    if not counts[True]:
        raise SampleError(
            f"No pictures in {', '.join(map(str, places[:NUM_NAMED])) or 'an empty list of places'}.",
            hint=f"Pictures in folders end in {', '.join(sorted(EXTENSIONS))}.",
        )
    return counts[True], counts[False]


def picture_files(places: Iterable[Path]) -> Iterator[Path]:
    """Yield named files, and from named folders what is named like a picture, at any depth.

    The order is the same every time. Links are followed, each real folder once. Hidden folders are not
    entered.
    """
    return (path for path, is_picture in _files(places) if is_picture)


def _files(places: Iterable[Path]) -> Iterator[tuple[Path, bool]]:
    """Files, and whether each is to be read as a picture."""
    for place in places:
        if not place.is_dir():
            yield place, True
            continue
        for path in _files_below(place):
            yield path, path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


def _files_below(folder: Path) -> Iterator[Path]:
    visited: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names))


def _bytes_of(path: Path) -> bytes:
    try:
        str(path).encode()
        return path.read_bytes()
    except UnicodeEncodeError as error:
        raise BadImage(str(path), "unreadable file", "its path is not valid Unicode") from error
    except OSError as error:
        raise BadImage(str(path), "unreadable file", error.strerror or type(error).__name__) from error


def _views(path: Path, data: bytes, preprocesses: Iterable[Preprocess]) -> dict[Preprocess, Tensor]:
    try:
        image = read_image(data)
    except BadImage as error:
        raise BadImage(str(path), error.defect, error.detail) from error
    return {preprocess: preprocess(image) for preprocess in preprocesses}
