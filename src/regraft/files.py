"""Writing files so that a reader sees the old one or the new one, never half of either."""

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(path: Path) -> Generator[Path, None, None]:
    """Yield a temporary sibling of `path`, and move it there when the block ends well.

    The sibling may become a file or a folder. Its bytes reach the disk before it is renamed, so a
    process killed at any instant leaves `path` as it was or complete. If the block raises, the
    sibling is removed and `path` is untouched. A file gets the permissions of any new file, whatever
    the library that wrote it thinks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp{path.suffix}")
    mode = _mode_of_new_files(temporary)
    try:
        yield temporary
        if temporary.is_file():
            temporary.chmod(mode)
        _sync(temporary)
        temporary.replace(path)
        _sync_entry(path.parent)
    finally:
        _remove(temporary)


def _mode_of_new_files(path: Path) -> int:
    path.touch()
    mode = path.stat().st_mode
    path.unlink()
    return mode


def _sync(path: Path) -> None:
    for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
        _sync_entry(file)


def _sync_entry(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder to flush it.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
