"""Any picture file as upright 8-bit RGB, or a clear word on what is wrong with it."""

import functools
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from regraft.errors import SampleError

Source = str | Path | bytes | Image.Image
"""A file's path, a file's bytes, or a picture that Pillow already holds."""

Defect = Literal[
    "missing file", "unreadable file", "empty file", "not an image", "truncated", "damaged", "too many pixels"
]

MAX_PIXELS = 2**27
"""The largest picture decoded unless said otherwise: 134 megapixels, 400 MB of RGB."""

EXTENSIONS = frozenset(
    f".{ending}"
    for ending in (
        *("avif", "bmp", "dib", "gif", "ico", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg"),
        *("pbm", "pgm", "png", "pnm", "ppm", "qoi", "tif", "tiff", "webp"),
    )
)
"""File name endings, in lower case, that mark a file as a picture."""

# Pillow tells formats by their first bytes, not by the name. Left to itself it would hand a PostScript
# file called cat.jpg to Ghostscript, so only plain raster formats are tried.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM", "QOI", "ICO")

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation; 1 is upright."""


class BadImage(SampleError):
    """A picture that cannot be read.

    Args:
        name: The file's path, or what stands for it.
        defect: The kind of defect, for counting.
        detail: What was found, for this file.
    """

    def __init__(self, name: str, defect: Defect, detail: str) -> None:
        super().__init__(f"{name}: {defect} ({detail}).")
        self.name = name
        self.defect: Defect = defect
        self.detail = detail

    def __reduce__(self) -> tuple[type["BadImage"], tuple[str, Defect, str]]:
        # Exceptions pickle as their message alone; this one must cross from a worker process whole.
        return type(self), (self.name, self.defect, self.detail)


@dataclass(frozen=True)
class Decoded:
    """An upright RGB picture, and what had to be done to make it one."""

    image: Image.Image
    notes: tuple[str, ...]


def read_image(source: Source, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a picture as upright 8-bit RGB, whatever it is stored as.

    - The EXIF orientation is applied.
    - Transparent parts, also of palettes, are laid on white.
    - 16-bit grey is scaled by 1/257. Integers and floats are scaled from the smallest usual range that
      holds them (255, 65535 or 2^31-1; 1.0 or 255.0), else from their own smallest and largest value.
    - CMYK becomes (1 - ink)(1 - black); in JPEG files it is taken as inverted, as Adobe writes it.
    - Of several frames the first counts.
    - Colour profiles are not applied, because the published weights were not trained with them.

    Args:
        source: A path, a file's bytes, or a PIL picture. An upright RGB picture comes back as it is.
        max_pixels: Refuse a larger picture, by its header, before its pixels are decoded. Pillow's own
            limit, `2 * PIL.Image.MAX_IMAGE_PIXELS`, also holds.

    Raises:
        BadImage: The picture cannot be read; its `defect` says why.
    """
    return decode(source, max_pixels=max_pixels).image


def decode(source: Source, *, max_pixels: int = MAX_PIXELS) -> Decoded:
    """`read_image`, with notes on what had to be done.

    Raises:
        BadImage: The picture cannot be read; its `defect` says why.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decoded = _decode_guarded(source, max_pixels)
    # Pillow warns of size at a limit of its own; ours has been checked.
    told = [entry for entry in caught if not issubclass(entry.category, Image.DecompressionBombWarning)]
    return Decoded(decoded.image, (*decoded.notes, "decoder warned")) if told else decoded


def name_of(source: Source) -> str:
    """What to call `source` in a message."""
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    if isinstance(source, Image.Image):
        return f"<{source.mode} picture, {source.width} x {source.height}>"
    return str(source)


def _decode_guarded(source: Source, max_pixels: int) -> Decoded:
    name = name_of(source)
    try:
        if isinstance(source, Image.Image):
            return _decode_opened(source, name, max_pixels)
        with Image.open(
            io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats()
        ) as image:
            return _decode_opened(image, name, max_pixels)
    except (BadImage, MemoryError):
        raise
    # Pillow's decoders raise whatever a malformed file drives them to: OSError, SyntaxError, ValueError,
    # struct.error, zlib.error, IndexError, ... All of it says the same: this file is bad.
    except Exception as error:
        raise BadImage(name, *_diagnose(source, error)) from error


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats tried, less those that this Pillow does not know."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _diagnose(source: Source, error: Exception) -> tuple[Defect, str]:
    """Name the defect behind an exception of Pillow or of the operating system."""
    if isinstance(error, FileNotFoundError):
        return "missing file", "nothing is there"
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels", f"more than the {2 * (Image.MAX_IMAGE_PIXELS or 0):,} that Pillow allows"
    if isinstance(error, UnidentifiedImageError):
        if _num_bytes(source) == 0:
            return "empty file", "0 bytes"
        return "not an image", "its first bytes belong to no picture format"
    if isinstance(error, OSError) and error.errno is not None:
        return "unreadable file", error.strerror or type(error).__name__
    detail = " ".join(str(error).split()) or type(error).__name__
    cut_short = ("truncat", "not enough image data", "broken data stream")
    return ("truncated" if any(words in detail.lower() for words in cut_short) else "damaged"), detail


def _num_bytes(source: Source) -> int | None:
    if isinstance(source, bytes):
        return len(source)
    return None if isinstance(source, Image.Image) else Path(source).stat().st_size


def _decode_opened(image: Image.Image, name: str, max_pixels: int) -> Decoded:
    if image.width * image.height > max_pixels:
        raise BadImage(name, "too many pixels", f"{image.width} x {image.height}, more than {max_pixels:,}")
    # Pillow turns TIFF files upright while loading and drops the tag, so what the file says is asked
    # before, and what is left to do after.
    is_turned = _orientation(image) in _UPRIGHT
    image.load()
    rgb, notes = _to_rgb(image)
    turn = _UPRIGHT.get(_orientation(image))
    upright = rgb if turn is None else rgb.transpose(turn)
    if is_turned:
        notes.append("turned upright")
    if image.width * image.height == 1:
        notes.append("a single pixel")
    # Only those of Pillow's classes that can hold several frames have this; its documentation says so.
    if getattr(image, "is_animated", False):
        notes.append("first of several frames taken")
    return Decoded(_without_metadata(upright, image), tuple(notes))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, from 1 to 8; 1 where there is none or it is garbled."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    # Garbled metadata raises nearly anything, and says nothing about the pixels.
    except Exception:
        warnings.warn("Its EXIF data cannot be read.", stacklevel=2)
        return 1


def _without_metadata(image: Image.Image, given: Image.Image) -> Image.Image:
    """Drop what would turn or bleach the picture a second time; leave the one that was given alone."""
    if image is given and type(image) is Image.Image and not image.info:
        return image
    bare = image.copy() if image is given else image
    bare.info = {}
    return bare


def _to_rgb(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """The picture in RGB with notes; the same object if it is RGB and opaque."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_deep_grey(image)
    if image.mode == "La" or image.has_transparency_data:
        return _laid_on_white(image)
    if image.mode == "RGB":
        return image, []
    return image.convert("RGB"), ["CMYK converted"] if image.mode == "CMYK" else []


def _from_deep_grey(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Scale grey values of more than 8 bits to 8."""
    is_16_bit = image.mode.startswith("I;16")
    values = np.asarray(image).astype(np.float32 if is_16_bit else np.float64)
    if not np.isfinite(values).all():
        raise ValueError("its values are not all finite")
    low, high = (0.0, 65535.0) if is_16_bit else _value_range(values, is_float=image.mode == "F")
    grey = np.rint((values - low) * (255 / (high - low))).astype(np.uint8)
    see_through = image.info.get("transparency")
    if isinstance(see_through, int):
        grey[values == see_through] = 255
    note = "16 bits scaled to 8" if is_16_bit else "numbers scaled to 8 bits"
    return Image.fromarray(grey).convert("RGB"), [note]


def _value_range(values: np.ndarray, *, is_float: bool) -> tuple[float, float]:
    """The values that stand for black and white."""
    low, high = float(values.min()), float(values.max())
    for full in (1.0, 255.0) if is_float else (255.0, 65535.0, 2.0**31 - 1):
        if low >= 0 and high <= full:
            return 0.0, full
    return low, high if high > low else low + 1


def _laid_on_white(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Lay the picture on white."""
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    notes = ["transparency laid on white"] if rgba.getchannel("A").getextrema() != (255, 255) else []
    return Image.alpha_composite(white, rgba).convert("RGB"), notes
