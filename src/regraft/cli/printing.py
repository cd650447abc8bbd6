"""How the verbs about galleries print, and what they are all told."""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from regraft.tables.table import Table

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


@contextmanager
def progress_bar() -> Generator[Callable[[str, int, int], None]]:
    """A bar on stderr if that is a terminal, else nothing. It is told what goes on, and how far."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("starting", total=None)
        yield lambda what, num_done, num_all: progress.update(
            task, description=what, completed=num_done, total=num_all
        )


def echo_other_versions(table: "Table") -> None:
    """Say on stderr which libraries a table was recorded with in another version: its views may differ."""
    from regraft.vision.reinforce import other_versions

    if others := other_versions(table):
        told = ", ".join(f"{name} {recorded} (here {here})" for name, (recorded, here) in others.items())
        typer.echo(
            f"The table was recorded with {told}; views may differ. `regraft reinforce verify` tells.",
            err=True,
        )


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
