"""Filling a table, block by block, through any number of interruptions."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import final

import numpy as np

from regraft.errors import TableError
from regraft.tables.blocks import Block, blocks_in
from regraft.tables.claim import claimed
from regraft.tables.columns import Column, check_records
from regraft.tables.fingerprint import checksum, fingerprint_of
from regraft.tables.growing import GrowingFile
from regraft.tables.intact import read_bytes
from regraft.tables.layout import (
    JOURNAL,
    MANIFEST,
    RECORDING,
    Settings,
    column_file,
    ids_text,
    write_json,
)
from regraft.tables.table import Table, open_table


@final
class Recorder:
    """Records a table in a folder, or goes on where an earlier process was stopped.

    Rows come sample after sample in the order of the ids, and all draws of a sample one after the other.
    What `append` has acknowledged is kept, whenever the process is killed; `num_rows` says where to go on.
    It holds the folder until it is closed, as at the end of a `with` block.

    Args:
        folder: Where to record. Made if nothing is there; else it must hold this very recording.
        ids: Sample ids.
        num_draws: Rows a sample.
        columns: What each row has, by name: lower-case words joined by single underscores.
        origin: What the table is made of, as JSON values: fingerprints of data, teacher and augmentation,
            versions of libraries. Another origin is another table.

    Raises:
        RecipeError: No samples, draws or columns, or a name that no column can have.
        TableError: An id comes twice, another table is in the folder, another process records in it, or it
            is damaged.
        PlaceError: The folder cannot be written, or holds something else.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        ids: Sequence[str],
        num_draws: int,
        columns: Mapping[str, Column],
        origin: Mapping[str, object],
    ) -> None:
        self.folder = Path(folder).absolute()
        self.settings = Settings(
            num_samples=len(ids),
            num_draws=num_draws,
            columns=dict(columns),
            origin=origin,
            ids_checksum=checksum(ids_text(ids)),
        )
        self._files: dict[str, GrowingFile] = {}
        with ExitStack() as stack:
            stack.enter_context(claimed(self.folder, self.settings, ids))
            blocks, journal_size = blocks_in(read_bytes(self.folder / JOURNAL), self.folder / JOURNAL)
            self._num_rows = sum(block.num_rows for block in blocks)
            self._journal_size = journal_size
            if not (self.folder / MANIFEST).exists():
                self._open_files(stack)
            self._held = stack.pop_all()

    @property
    def num_rows(self) -> int:
        """Rows that are recorded and will stay."""
        return self._num_rows

    def append(self, records: Mapping[str, np.ndarray]) -> None:
        """Record the next rows, at least one, as one block. When this returns, they are on the disk.

        A block is checked as a whole when some of it is read: some ten thousand rows are a good size.

        Args:
            records: The records of each column, as the column encodes them.

        Raises:
            ShapeError: The records of a column are not such as it encodes.
            TableError: A column is missing or unknown, there are no rows, or not as many in each column, or
                more than are missing.
            PlaceError: They cannot be written. They may be appended again.
        """
        num_rows = self._checked(records)
        parts = {name: _bytes_of(records[name]) for name in self.settings.columns}
        for name, part in parts.items():
            self._files[column_file(name)].put(self._size(name), part)
        line = Block(num_rows, {name: checksum(part) for name, part in parts.items()}).line()
        self._files[JOURNAL].put(self._journal_size, line)
        self._journal_size += len(line)
        self._num_rows += num_rows

    def seal(self) -> Table:
        """Declare the table complete, once and for all, and open it. Again is as good as once.

        Raises:
            TableError: Rows are missing.
        """
        if self._num_rows < self.settings.num_rows:
            raise TableError(
                f"{self.folder} has {self._num_rows} rows, expected {self.settings.num_rows} to be sealed.",
                hint="Append the others first.",
            )
        if not (self.folder / MANIFEST).exists():
            journal = read_bytes(self.folder / JOURNAL)
            manifest = self.settings.to_json() | {"blocks": checksum(journal)}
            write_json(self.folder / MANIFEST, manifest | {"fingerprint": fingerprint_of(manifest)})
        (self.folder / RECORDING).unlink(missing_ok=True)
        return open_table(self.folder)

    def close(self) -> None:
        """Let go of the folder."""
        self._held.close()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open_files(self, stack: ExitStack) -> None:
        sizes = {column_file(name): self._size(name) for name in self.settings.columns}
        for name, size in (sizes | {JOURNAL: self._journal_size}).items():
            self._files[name] = stack.enter_context(closing(GrowingFile(self.folder / name, size)))

    def _size(self, column: str) -> int:
        """Bytes that the recorded rows take in the file of a column."""
        return self._num_rows * self.settings.columns[column].dtype.itemsize

    def _checked(self, records: Mapping[str, np.ndarray]) -> int:
        """The number of rows, if they can be appended."""
        columns = self.settings.columns
        if records.keys() != columns.keys():
            raise TableError(f"The block has columns {', '.join(records)}, expected {', '.join(columns)}.")
        lengths = {name: len(check_records(columns[name], part)) for name, part in records.items()}
        num_rows = next(iter(lengths.values()))
        if not num_rows or len(set(lengths.values())) > 1:
            told = ", ".join(f"{length} of {name}" for name, length in lengths.items())
            raise TableError(f"The block has {told} rows, expected as many in each column, and at least one.")
        num_missing = self.settings.num_rows - self._num_rows
        if num_rows > num_missing:
            raise TableError(
                f"The block has {num_rows} rows, expected at most the {num_missing} that {self.folder} lacks."
            )
        return num_rows


def _bytes_of(records: np.ndarray) -> memoryview:
    return np.ascontiguousarray(records).reshape(-1).view(np.uint8).data
