"""How the verbs about galleries print, and what they are all told."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

Gallery = Annotated[
    str,
    typer.Argument(
        help="The gallery's folder, or its URI on a server.", metavar="GALLERY", show_default=False
    ),
]
Workspace = Annotated[
    Path | None,
    typer.Option(help="Folder of the model files of a gallery on a server.", show_default="GALLERY's own"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def echo(line: str) -> None:
    """Print a line; a file name that is not valid UTF-8, which cannot be printed as it is, in escapes."""
    typer.echo(line.encode("utf-8", "backslashreplace").decode())


def echo_json(value: Mapping[str, object] | Sequence[object]) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2))


def short(space: str) -> str:
    """Enough of a fingerprint to tell it from others."""
    return space[:8]


def size(num_bytes: int) -> str:
    """Bytes in a unit that suits them."""
    value, unit = float(num_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"


def duration(seconds: float) -> str:
    """Seconds in a unit that suits them."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"
