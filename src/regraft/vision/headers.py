"""How large pictures are, and which way up they were taken, by their headers alone."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Bool, Int
from PIL import ExifTags, Image

from regraft.errors import SampleError
from regraft.vision.workers import in_processes

_CHUNK = 256
"""Headers that a worker reads between two messages."""

# Those that torchvision's folders hold. Left to itself, Pillow would hand a PostScript file to Ghostscript.
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")

# What makes a stored picture upright, for each EXIF orientation from 0: whether rows and columns change
# places, whether the rows are then turned around, and whether the columns are.
_TURNS = np.zeros((9, 3), bool)
_TURNS[2:] = [[0, 0, 1], [0, 1, 1], [0, 1, 0], [1, 0, 0], [1, 0, 1], [1, 1, 1], [1, 1, 0]]


@final
@dataclass(frozen=True, eq=False)
class Headers:
    """What the headers of some pictures say.

    Args:
        sizes: Height and width in pixels, as stored.
        orientations: Of EXIF; 1 is upright.
        plain: Whether the stored pixels are 8 bits a channel and opaque.
    """

    sizes: Int[np.ndarray, "n 2"]
    orientations: Int[np.ndarray, " n"]
    plain: Bool[np.ndarray, " n"]

    def upright_sizes(self, pictures: Int[np.ndarray, " m"]) -> Int[np.ndarray, "m 2"]:
        """Height and width of some pictures, upright."""
        exchanged = _TURNS[self.orientations[pictures], :1]
        return np.where(exchanged, self.sizes[pictures, ::-1], self.sizes[pictures])

    def upright(
        self, boxes: Int[np.ndarray, "m 4"], pictures: Int[np.ndarray, " m"]
    ) -> Int[np.ndarray, "m 4"]:
        """Where boxes of stored pictures lie in the upright ones: top, left, height and width in pixels."""
        exchanged, rows_turned, columns_turned = _TURNS[self.orientations[pictures]].T
        height, width = self.upright_sizes(pictures).T
        top, left, high, wide = np.where(exchanged[:, None], boxes[:, [1, 0, 3, 2]], boxes).T
        top = np.where(rows_turned, height - top - high, top)
        left = np.where(columns_turned, width - left - wide, left)
        return np.stack([top, left, high, wide], axis=1)


def read_headers(paths: Sequence[Path], *, workers: int = 0) -> Headers:
    """What the headers of picture files say.

    Args:
        paths: JPEG, PNG, PPM, BMP, TIFF or WebP files.
        workers: Processes that read them; 0 reads them here.

    Raises:
        SampleError: One cannot be read.
    """
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    read = in_processes(_InChunks(chunks), range(len(chunks)), workers)
    rows = np.concatenate(list(read))
    return Headers(rows[:, :2], rows[:, 2], rows[:, 3].astype(bool))


@dataclass(frozen=True)
class _InChunks:
    """The headers of chunk number n, in a form that worker processes can be sent."""

    chunks: Sequence[Sequence[Path]]

    def __call__(self, number: int) -> Int[np.ndarray, "n 4"]:
        return np.array([_read(path) for path in self.chunks[number]], np.int64)


def _read(path: Path) -> tuple[int, int, int, bool]:
    try:
        with warnings.catch_warnings():
            # Of garbled metadata and of size, of which whoever decodes the picture tells.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                is_plain = not image.has_transparency_data and image.mode[:1] not in ("I", "F")
                return image.height, image.width, _orientation(image), is_plain
    # Pillow raises nearly anything for a malformed file.
    except Exception as error:
        raise SampleError(
            f"{path} cannot be read as a picture: {error}.", hint="Restore the file."
        ) from error


def _orientation(image: Image.Image) -> int:
    """From 1 to 8; 1 where there is none or it is garbled."""
    if image.format == "TIFF":
        return 1  # Pillow itself turns these, for all who read them.
    try:
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    # Garbled metadata raises nearly anything, and says nothing about the pixels.
    except Exception:
        return 1
    return orientation if 2 <= orientation < len(_TURNS) else 1
