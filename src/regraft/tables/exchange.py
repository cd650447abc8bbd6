"""Tables as files that other programs read, and back."""

# pyarrow has no type information, so its tables are unknown to pyright wherever they are passed.
# pyright: reportUnknownParameterType=false

import json
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from regraft.errors import PlaceError, RegraftError, TableError
from regraft.files import replacing
from regraft.tables.arrow import (
    KEY,
    SAMPLE_ID,
    batches_of,
    check_ids,
    exact_names,
    records_from,
    rows_a_batch,
    schema_of,
)
from regraft.tables.formats import Format, format_of
from regraft.tables.layout import Settings
from regraft.tables.record import Recorder
from regraft.tables.table import Table, open_table


def export_table(table: Table, path: str | Path) -> None:
    """Write a table for other programs, all or nothing. `import_table` makes the same table of it.

    Args:
        table: What to write, some rows at a time.
        path: A new file or folder, whose name ends in `.arrow`, `.parquet` or `.lance`.

    Raises:
        TableError: The name ends in something else, an id is not valid Unicode, or a block is damaged.
        PlaceError: It cannot be written.
    """
    path = Path(path)
    form = format_of(path)
    check_ids(table.ids)
    table.verify()  # before another library asks for rows, and tells of an error in its own way
    with replacing(path) as draft, _told_as(PlaceError, f"{path} cannot be written"):
        form.write(draft, schema_of(table), batches_of(table))


def import_table(path: str | Path, folder: str | Path) -> Table:
    """Make a table of what `export_table` wrote, the same to the bit, all or nothing.

    Args:
        path: What was written.
        folder: Where the table shall be. Nothing may be there.

    Raises:
        TableError: `path` is no exported table, or has been changed.
        PlaceError: `folder` is there, or cannot be written.
    """
    path, folder = Path(path), Path(folder)
    form = format_of(path)
    if not path.exists():
        raise TableError(f"There is no {path}; expected an exported table.")
    with replacing(folder) as draft, _told_as(TableError, f"{path} cannot be read"):
        manifest = _manifest(form, path)
        table = _recorded(form, path, manifest, draft)
        if table.fingerprint != manifest["fingerprint"]:
            raise TableError(
                f"The rows of {path} make table {table.fingerprint}, expected {manifest['fingerprint']}.",
                hint="They are not those that were exported, or in another order. Export the table again.",
            )
    return open_table(folder)


def _manifest(form: Format, path: Path) -> dict[str, Any]:
    metadata = form.schema(path).metadata or {}
    if KEY not in metadata:
        raise TableError(
            f"{path} says nothing of a table of Regraft, expected its manifest.", hint="Record it instead."
        )
    return json.loads(metadata[KEY])


def _recorded(form: Format, path: Path, manifest: dict[str, Any], folder: Path) -> Table:
    """Record the rows of a file again, in the same blocks."""
    settings = Settings.from_json(manifest, path)
    names = [part for name, column in settings.columns.items() for part in exact_names(name, column)]
    num = rows_a_batch(settings.columns.values())
    with Recorder(
        folder,
        ids=_ids(form.batches(path, [SAMPLE_ID], num), settings),
        num_draws=settings.num_draws,
        columns=settings.columns,
        origin=settings.origin,
    ) as recorder:
        for rows in _in_blocks(form.batches(path, names, num), manifest["block_rows"]):
            recorder.append({name: records_from(name, each, rows) for name, each in settings.columns.items()})
        return recorder.seal()


def _ids(batches: Iterable[pa.RecordBatch], settings: Settings) -> list[str]:
    """The id of each sample, which all of its rows carry."""
    ids, num_rows = list[str](), 0
    for batch in batches:
        ids += batch[SAMPLE_ID][-num_rows % settings.num_draws :: settings.num_draws].to_pylist()
        num_rows += len(batch)
    if num_rows != settings.num_rows:
        raise TableError(f"It has {num_rows} rows, expected {settings.num_rows}.")
    return ids


def _in_blocks(batches: Iterator[pa.RecordBatch], block_rows: Sequence[int]) -> Iterator[pa.Table]:
    """The rows of all batches, as many at a time as a block has."""
    batch = next(batches)
    for num_rows in block_rows:
        parts: list[pa.RecordBatch] = []
        num_missing = num_rows
        while num_missing > len(batch):
            parts.append(batch)
            num_missing -= len(batch)
            batch = next(batches)
        parts.append(batch[:num_missing])
        batch = batch[num_missing:]
        yield pa.Table.from_batches(parts)


@contextmanager
def _told_as(kind: type[RegraftError], what: str) -> Generator[None]:
    """Turn errors of other libraries into ours."""
    try:
        yield
    except RegraftError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise kind(f"{what}: {reason.rstrip('.')}.") from error
