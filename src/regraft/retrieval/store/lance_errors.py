"""What LanceDB raises, said of a gallery."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from regraft.errors import RegraftError, StoreError

# LanceDB ends its messages with the places in its own source that an error passed through.
SOURCE_PLACES = re.compile(r"(, /\S+\.rs:\d+:\d+)+")


@contextmanager
def translated(path: Path, done: str) -> Generator[None]:
    """Turn what LanceDB and the file system raise in a block into a StoreError that names the gallery.

    Args:
        path: The gallery's folder.
        done: What the block does to it, as in "cannot be read".

    Raises:
        StoreError: The block raised one of the builtins that LanceDB, which has no exception of its own, uses
            for files that are missing, damaged or cannot be written.
    """
    try:
        yield
    except RegraftError:
        raise
    except (RuntimeError, OSError, ValueError) as error:
        raise StoreError(
            f"Gallery {path} cannot be {done}: {SOURCE_PLACES.sub('', str(error))}",
            hint="Try again; if it stays, restore the folder from a copy, or fill another gallery.",
        ) from error
