"""The records of one column in their file."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Int, UInt8

from regraft.tables.blocks import Block
from regraft.tables.columns import Column
from regraft.tables.fingerprint import checksum
from regraft.tables.intact import damaged
from regraft.tables.layout import column_file


@final
class StoredColumn:
    """Maps a file into memory, and checks each block before something of it is first taken.

    Args:
        folder: The folder of the table.
        name: The column's name.
        column: What its records are.
        blocks: All blocks of the table.

    Raises:
        TableError: The file cannot be read, or its length is not that of the blocks together.
    """

    def __init__(self, folder: Path, name: str, column: Column, blocks: Sequence[Block]) -> None:
        self._path = folder / column_file(name)
        self._name = name
        self._itemsize = column.dtype.itemsize
        self._ends = np.cumsum([block.num_rows for block in blocks])
        self._checksums = [block.checksums[name] for block in blocks]
        self._checked = np.zeros(len(blocks), np.bool_)
        self._bytes = self._mapped()
        self.records = self._bytes.view(column.dtype.base).reshape(-1, *column.dtype.shape)
        """All of them, read-only, straight from the file and unchecked."""

    def take(self, rows: Int[np.ndarray, " n"]) -> np.ndarray:
        """A copy of the records of some rows, which must exist.

        Raises:
            TableError: A block that holds one of them is not as it was written.
        """
        if not self._checked.all():
            blocks = np.searchsorted(self._ends, rows, side="right")
            self._check(np.unique(blocks[~self._checked[blocks]]).tolist())
        return self.records.take(rows, axis=0)

    def check(self) -> None:
        """Read everything, once more where it was read before.

        Raises:
            TableError: A block is not as it was written.
        """
        self._check(range(len(self._checksums)))

    def _mapped(self) -> UInt8[np.ndarray, " n"]:
        try:
            mapped = np.asarray(np.memmap(self._path, np.uint8, mode="r"))
        except (OSError, ValueError) as error:  # NumPy's word for an empty file is ValueError.
            raise damaged(self._path, f"it cannot be read ({error})") from error
        expected = int(self._ends[-1]) * self._itemsize
        if len(mapped) != expected:
            raise damaged(self._path, f"it has {len(mapped)} bytes, expected {expected}")
        return mapped

    def _check(self, blocks: Iterable[int]) -> None:
        for block in blocks:
            end = int(self._ends[block])
            start = int(self._ends[block - 1]) if block else 0
            found = checksum(self._bytes[start * self._itemsize : end * self._itemsize].data)
            if found != self._checksums[block]:
                raise damaged(
                    self._path,
                    f"block {block} of column {self._name!r}, rows {start} to {end - 1}, "
                    f"has checksum {found}, expected {self._checksums[block]}",
                )
            self._checked[block] = True
