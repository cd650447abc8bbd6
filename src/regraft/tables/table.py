"""Immutable columns keyed by sample and draw."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Int, Int64

from regraft.errors import ShapeError, TableError, nearest
from regraft.tables.blocks import Block, blocks_in
from regraft.tables.columns import Column
from regraft.tables.fingerprint import fingerprint_of, json_text
from regraft.tables.intact import damaged, read_bytes, read_checked, read_json
from regraft.tables.layout import JOURNAL, MANIFEST, RECORDING, Settings, read_ids
from regraft.tables.origin import departures
from regraft.tables.stored import StoredColumn

NUM_NAMED = 3


@final
class Table:
    """What is known of each draw of each sample, in columns. `open_table` makes it.

    A row has a rank and a draw: the place of its sample among the ids, from 0, and the number of its draw,
    from 0. Nothing of it is in memory until it is read. It can be sent to another process, which opens the
    folder again.

    Args:
        folder: Where it is.
        settings: What it is of.
        ids: The sample ids by rank.
        blocks: What was written together.
        fingerprint: Names all of it: ids, columns, origin and every byte of the records, block by block.

    Raises:
        TableError: The file of a column cannot be read, or is too short or too long.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        ids: tuple[str, ...],
        blocks: Sequence[Block],
        fingerprint: str,
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.ids = ids
        self.blocks = tuple(blocks)
        self.fingerprint = fingerprint
        self._stored = {
            name: StoredColumn(folder, name, column, blocks) for name, column in settings.columns.items()
        }

    @property
    def num_draws(self) -> int:
        """Rows a sample."""
        return self.settings.num_draws

    @property
    def num_rows(self) -> int:
        """Samples times draws."""
        return self.settings.num_rows

    @property
    def columns(self) -> Mapping[str, Column]:
        """What each column's records are, by name."""
        return self.settings.columns

    @property
    def origin(self) -> Mapping[str, Any]:
        """What it was made of, as it was given to the recorder."""
        return self.settings.origin

    def ranks_of(self, ids: Sequence[str]) -> Int64[np.ndarray, " n"]:
        """The ranks of samples.

        Raises:
            TableError: Some of them are not in the table.
        """
        unknown = [name for name in ids if name not in self._ranks]
        if unknown:
            named = ", ".join(map(repr, unknown[:NUM_NAMED]))
            num_more = len(unknown) - NUM_NAMED
            raise TableError(
                f"{len(unknown)} of {len(ids)} samples are not among the {len(self.ids)} of {self.folder}: "
                f"{named}{f' and {num_more} more' if num_more > 0 else ''}.",
                hint="Was it recorded from the same data?",
            )
        return np.array([self._ranks[name] for name in ids], np.int64)

    def read(self, column: str, ranks: Int[np.ndarray, " n"], draws: Int[np.ndarray, " n"]) -> np.ndarray:
        """The records of some rows. The column decodes them.

        Every block is checked before the first of its rows is read in this process.

        Raises:
            ShapeError: There are not as many draws as ranks.
            TableError: No such column, rank or draw, or a block is not as it was written.
        """
        if ranks.shape != draws.shape:
            raise ShapeError(f"Got {ranks.size} ranks and {draws.size} draws, expected as many of both.")
        stored = self._of(column)
        self._check_range("rank", ranks, len(self.ids))
        self._check_range("draw", draws, self.num_draws)
        return stored.take(ranks.astype(np.int64) * self.num_draws + draws.astype(np.int64))

    def records(self, column: str) -> np.ndarray:
        """All records of a column, by rank and draw: read-only, mapped from the file and not checked.

        Raises:
            TableError: No such column.
        """
        records = self._of(column).records
        return records.reshape(len(self.ids), self.num_draws, *records.shape[1:])

    def verify(self) -> None:
        """Read and check everything.

        Raises:
            TableError: A block is not as it was written.
        """
        for stored in self._stored.values():
            stored.check()

    def require(self, expected: Mapping[str, object]) -> None:
        """Check that the table was made of what is expected. Its origin may tell more.

        Args:
            expected: Entries of the origin, nested like it, or by dotted names.

        Raises:
            TableError: Some differ, or are not there; it names each.
        """
        found = departures(self.origin, json.loads(json_text(expected)))
        if found:
            raise TableError(
                f"{self.folder} was made of something else: {'; '.join(found)}.",
                hint="Record a table for what is wanted, or use what this one was made of.",
            )

    @cached_property
    def _ranks(self) -> dict[str, int]:
        return {name: rank for rank, name in enumerate(self.ids)}

    def _of(self, column: str) -> StoredColumn:
        if column not in self._stored:
            raise TableError(
                f"{self.folder} has no column {column!r}; it has {', '.join(self._stored)}.",
                hint=nearest(column, self._stored) or None,
            )
        return self._stored[column]

    def _check_range(self, what: str, numbers: Int[np.ndarray, " n"], num: int) -> None:
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < num:
            wrong = numbers[(numbers < 0) | (numbers >= num)]
            raise TableError(f"{self.folder} has no {what} {wrong[0]}, expected 0 to {num - 1}.")

    def __reduce__(self) -> tuple[Callable[[Path, str], "Table"], tuple[Path, str]]:
        return _opened_again, (self.folder, self.fingerprint)


def open_table(folder: str | Path) -> Table:
    """Open a table that was recorded.

    Its ids and its journal are checked now, its records when they are read.

    Raises:
        TableError: There is no table, it is not sealed, or a file is not as it was written.
    """
    folder = Path(folder).absolute()
    path = folder / MANIFEST
    if not path.exists():
        raise _not_there(folder)
    manifest = read_json(path)
    settings = Settings.from_json(manifest, path)
    fingerprint = manifest.pop("fingerprint", None)
    if fingerprint != fingerprint_of(manifest):
        raise damaged(path, f"its fingerprint is {fingerprint}, expected {fingerprint_of(manifest)}")
    journal = read_checked(folder / JOURNAL, manifest["blocks"])
    blocks, _ = blocks_in(journal, folder / JOURNAL)
    return Table(folder, settings, read_ids(folder, settings), blocks, fingerprint)


def _not_there(folder: Path) -> TableError:
    if not (folder / RECORDING).exists():
        return TableError(f"There is no table in {folder}, expected a {MANIFEST}.", hint="Record one.")
    settings = Settings.from_json(read_json(folder / RECORDING), folder / RECORDING)
    blocks, _ = blocks_in(read_bytes(folder / JOURNAL), folder / JOURNAL)
    num_rows = sum(block.num_rows for block in blocks)
    return TableError(
        f"The table in {folder} is not finished: {num_rows} of {settings.num_rows} rows are recorded.",
        hint="Run the recording again; it goes on from there.",
    )


def _opened_again(folder: Path, fingerprint: str) -> Table:
    table = open_table(folder)
    if table.fingerprint != fingerprint:
        raise TableError(
            f"{folder} holds table {table.fingerprint}, expected {fingerprint}.",
            hint="It was replaced while it was in use.",
        )
    return table
