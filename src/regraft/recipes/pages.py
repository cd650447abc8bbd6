"""Pages that are one file: a template, a stylesheet, and pictures written into the text."""

import base64
import functools
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from regraft.files import replacing
from regraft.vision.images import BadImage, Source, read_image

SIDE_PX = 256
"""Longer side of a thumbnail, twice what `picture` shows, for screens of high resolution."""
TINY_PX = 64
"""Pictures up to this size are kept as they are and shown with square pixels."""


@dataclass(frozen=True)
class Thumbnail:
    """A small copy of a picture as a data URI, or the reason why there is none."""

    uri: str | None
    is_tiny: bool = False
    """Whether its pixels are to be shown as squares."""
    defect: str | None = None
    """What is wrong with the picture, for the placeholder."""


def thumbnail(source: Source) -> Thumbnail:
    """Make a small copy of a picture; one that is gone or damaged becomes a thumbnail that says so."""
    try:
        image = read_image(source)
    except BadImage as error:
        return Thumbnail(None, defect=error.defect)
    if max(image.size) <= TINY_PX:
        return Thumbnail(_data_uri(image, "PNG"), is_tiny=True)
    small = image.copy()
    small.thumbnail((SIDE_PX, SIDE_PX))
    return Thumbnail(_data_uri(small, "JPEG"))


def render(template: str, context: Mapping[str, object]) -> str:
    """Fill a template of `recipes/templates`. Values are escaped, except those that are `Markup`."""
    return _environment().get_template(template).render(context)


def write_page(path: Path, template: str, context: Mapping[str, object]) -> None:
    """Fill a template and write the page, all or nothing."""
    page = render(template, context)
    with replacing(path) as temporary:
        # File names that are not valid UTF-8 reach Python as lone surrogates, which no page can hold.
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("regraft.recipes"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _data_uri(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=80, optimize=True)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
