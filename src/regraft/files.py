"""Writing files so that a reader sees the old one or the new one, never half of either."""

import os
import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from regraft.errors import PlaceError


def check_place(path: Path) -> None:
    """Refuse a place where no file can be put, before the work that would fill it.

    Nothing is left behind: neither the file nor the folders it would need.

    Raises:
        PlaceError: `path` is there and is not a file, or the folder it would be in, or the nearest one
            above that exists, is not a folder or takes no new files.
    """
    mode = _mode(path)
    if stat.S_ISDIR(mode):
        raise PlaceError(f"{path} is a folder; expected the name of a file.", hint=f"Try {path / 'NAME'}.")
    if mode and not stat.S_ISREG(mode):
        raise PlaceError(f"{path} is a device or a pipe; expected the name of a file that can be replaced.")
    _check_above(path)


def check_folder_place(path: Path) -> None:
    """Refuse a place where no folder can be put. As `check_place`, but what is there must be a folder.

    Raises:
        PlaceError: `path` is there and is not a folder, or nothing can be put where it would be.
    """
    if os.path.lexists(path) and not stat.S_ISDIR(_mode(path)):
        raise PlaceError(f"{path} is a file; expected a folder or a free name.")
    _check_above(path)


@contextmanager
def replacing(path: Path) -> Generator[Path, None, None]:
    """Yield a temporary sibling of `path`, and move it there when the block ends well.

    The sibling may become a file, or a folder if there is nothing at `path`. Its bytes reach the disk
    before it is renamed, so a process killed at any instant leaves `path` as it was or complete. If the
    block raises, the sibling is removed and `path` is untouched. A file gets the permissions of any new
    file, whatever the library that wrote it thinks.

    Raises:
        PlaceError: Nothing can be put at `path`: at once where `check_place` can tell.
    """
    check_place(path)
    temporary = _sibling(path, path.parent)
    with _named(path, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = _mode_of_new_files(temporary)
    try:
        yield temporary
        if temporary.is_file():
            temporary.chmod(mode)
        put(temporary, path)
    finally:
        remove(temporary)


def put(draft: Path, path: Path) -> None:
    """Move a finished file or folder to `path` on the same disk, after its bytes have reached that.

    Raises:
        PlaceError: Something that cannot be replaced is there.
    """
    _sync(draft)
    with _named(path, path.parent):
        draft.replace(path)
    _sync_entry(path.parent)


def remove(path: Path) -> None:
    """Remove a file, or a folder with everything in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _check_above(path: Path) -> None:
    above = next(parent for parent in (path.parent, *path.absolute().parents) if os.path.lexists(parent))
    if not stat.S_ISDIR(_mode(above)):
        raise PlaceError(f"{path} cannot be written: {above} is not a folder; expected one.")
    # Tried, because permissions do not tell of disks that are read-only, of names that are too long, or
    # of what an administrator may do.
    with _named(path, above):
        _mode_of_new_files(_sibling(path, above))


@contextmanager
def _named(path: Path, folder: Path) -> Generator[None, None, None]:
    """Say which place it was that the operating system could not write."""
    try:
        yield
    except OSError as error:
        raise PlaceError(
            f"{path} cannot be written: {folder} does not take it ({error.strerror}); expected a folder that "
            "new files can be put into.",
            hint="Choose another place, or change who may write there.",
        ) from error


def _sibling(path: Path, folder: Path) -> Path:
    return folder / f".{path.name}.{uuid4().hex[:8]}.tmp{path.suffix}"


def _mode(path: Path) -> int:
    """Kind and permissions of what is at `path`; 0 if there is nothing, or nothing that may be seen."""
    try:
        return path.stat().st_mode
    except OSError:  # What hides it will also refuse a new file, and says why then.
        return 0


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
