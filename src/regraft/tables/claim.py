"""Taking a folder to record in: a new one, or one where this very recording was left."""

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from filelock import FileLock, Timeout

from regraft.errors import PlaceError, TableError
from regraft.files import replacing
from regraft.tables.intact import read_json
from regraft.tables.layout import (
    IDS,
    JOURNAL,
    LOCK,
    MANIFEST,
    RECORDING,
    Settings,
    column_file,
    ids_text,
    read_ids,
    write_json,
)
from regraft.tables.origin import differences


@contextmanager
def claimed(folder: Path, settings: Settings, ids: Sequence[str]) -> Generator[None]:
    """Keep other processes from recording in a folder, which is of these settings, until the block ends.

    Raises:
        TableError: Another process records there, or the folder is of other settings, or damaged.
        PlaceError: It cannot be made, or holds something else.
    """
    if not os.path.lexists(folder):
        _begin(folder, settings, ids)
    # In this order, for a recording that is sealed meanwhile has a manifest before it loses the other.
    if not (folder / RECORDING).exists() and not (folder / MANIFEST).exists():
        raise PlaceError(
            f"{folder} holds something else than a table, expected a free name.",
            hint=f"Try {folder / 'NAME'}.",
        )
    lock = FileLock(folder / LOCK)
    _take(lock, folder)
    try:
        _check_same(folder, settings, ids)
        for leftover in folder.glob(".*.tmp.json"):
            leftover.unlink()
        yield
    finally:
        lock.release()


def _take(lock: FileLock, folder: Path) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TableError(
            f"Another process is recording in {folder}.", hint="Wait for it, or record elsewhere."
        ) from error
    except OSError as error:
        raise PlaceError(f"{folder} cannot be written: {error.strerror}.") from error


def _begin(folder: Path, settings: Settings, ids: Sequence[str]) -> None:
    """Make the folder with everything that it holds before the first row, all at once."""
    with replacing(folder) as draft:
        draft.mkdir()
        (draft / IDS).write_bytes(ids_text(ids))
        write_json(draft / RECORDING, settings.to_json())
        for name in (JOURNAL, *map(column_file, settings.columns)):
            (draft / name).touch()


def _check_same(folder: Path, settings: Settings, ids: Sequence[str]) -> None:
    path = next(path for path in (folder / MANIFEST, folder / RECORDING) if path.exists())
    recorded = Settings.from_json(read_json(path), path)
    # Of the ids, their checksum says nothing to a reader.
    found = differences(replace(recorded, ids_checksum=settings.ids_checksum).to_json(), settings.to_json())
    if recorded.ids_checksum != settings.ids_checksum:
        pairs = zip_longest(read_ids(folder, recorded), ids)
        rank, (old, new) = next((rank, pair) for rank, pair in enumerate(pairs) if pair[0] != pair[1])
        found.append(f"sample {rank} is {old!r}, expected {new!r}")
    if found:
        raise TableError(
            f"{folder} holds another table: {'; '.join(found)}.",
            hint="Record in another folder, or with the settings that this one began with.",
        )
