"""The folder of a table, and what decides it before its first row.

table.json       the manifest, written last: a folder with it is a table, sealed
recording.json   the same before that, while rows may be missing
ids.json         the sample ids, in the order of their ranks
blocks.jsonl     one line a block: how many rows, and a checksum of each column's bytes
COLUMN.bin       the records of one column, sample after sample, draw after draw
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from regraft.errors import RecipeError, TableError
from regraft.files import replacing
from regraft.tables.columns import Column, column_from_json
from regraft.tables.fingerprint import json_text
from regraft.tables.intact import damaged, read_checked

VERSION = 1

MANIFEST = "table.json"
RECORDING = "recording.json"
IDS = "ids.json"
JOURNAL = "blocks.jsonl"
LOCK = ".lock"

# Names become files and, with something after them, columns of other formats.
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_TAKEN = ("sample_id", "draw")

# JSON writes these two as it would write the one character that they make together.
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def column_file(name: str) -> str:
    """The file of a column."""
    return f"{name}.bin"


@final
@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a table is of.

    Raises:
        RecipeError: No samples, draws or columns, or a name that no column can have.
        TableError: The origin is no JSON.
    """

    num_samples: int
    num_draws: int
    """Rows a sample."""
    columns: Mapping[str, Column]
    origin: Mapping[str, Any]
    """What it is made of, as JSON values."""
    ids_checksum: str
    """Checksum of the sample ids as JSON."""

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.num_draws < 1 or not self.columns:
            raise RecipeError(
                f"A table cannot have {self.num_samples} samples, {self.num_draws} draws and "
                f"{len(self.columns)} columns; expected at least one of each."
            )
        for name in self.columns:
            if not _NAME.fullmatch(name) or name in _TAKEN:
                raise RecipeError(
                    f"A column is called {name!r}, expected lower-case words joined by single underscores, "
                    f"and neither of {', '.join(_TAKEN)}."
                )
        # Told as it will be read: a tuple becomes a list, and the key 1 becomes "1".
        object.__setattr__(self, "origin", json.loads(json_text(self.origin)))

    @property
    def num_rows(self) -> int:
        """Rows when it is complete."""
        return self.num_samples * self.num_draws

    def to_json(self) -> dict[str, object]:
        """The settings as JSON values."""
        return {
            "version": VERSION,
            "num_samples": self.num_samples,
            "num_draws": self.num_draws,
            "columns": {name: column.to_json() for name, column in self.columns.items()},
            "origin": self.origin,
            "ids": self.ids_checksum,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], where: Path) -> "Settings":
        """The settings that `to_json` wrote, perhaps among others.

        Raises:
            TableError: They are not there, or a later release wrote them; it names `where` they were read.
        """
        version = fields.get("version")
        if version != VERSION:
            raise TableError(
                f"{where} is of version {version}; this release reads version {VERSION}.",
                hint="pip install --upgrade regraft",
            )
        try:
            return cls(
                num_samples=fields["num_samples"],
                num_draws=fields["num_draws"],
                columns={name: column_from_json(column) for name, column in fields["columns"].items()},
                origin=fields["origin"],
                ids_checksum=fields["ids"],
            )
        except (KeyError, TypeError, AttributeError, RecipeError) as error:
            raise damaged(where, f"it does not describe a table ({error})") from error


def ids_text(ids: Sequence[str]) -> bytes:
    """Sample ids as JSON.

    Raises:
        TableError: An id comes twice, or JSON cannot tell it from another.
    """
    if len(set(ids)) < len(ids):
        seen = set[str]()
        twice = next(name for name in ids if name in seen or seen.add(name))
        raise TableError(
            f"Sample {twice!r} comes twice among the ids, expected once.",
            hint="Number the copies with number_copies.",
        )
    odd = next(filter(_SURROGATE_PAIR.search, ids), None)
    if odd is not None:
        raise TableError(f"Sample {odd!r} has two halves of one character side by side, expected the whole.")
    return json_text(list(ids))


def read_ids(folder: Path, settings: Settings) -> tuple[str, ...]:
    """The sample ids of a table.

    Raises:
        TableError: The file is not there, or its bytes have changed.
    """
    return tuple(json.loads(read_checked(folder / IDS, settings.ids_checksum)))


def write_json(path: Path, fields: Mapping[str, object]) -> None:
    """Write a JSON object for people to read, too, all or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(fields, indent=2) + "\n")
