"""A small table with a column of every kind."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from regraft.tables.columns import Bytes, Column, TopK, Vector
from regraft.tables.record import Recorder
from regraft.tables.table import Table

COLUMNS: Mapping[str, Column] = {
    "teacher": TopK(3, 20),
    "old_feature": Vector(4),
    "half": Vector(3, "<f2"),
    "whole": Vector(2, "|i1"),
    "params": Bytes(5),
}
# A name that is not valid UTF-8, a line break, an empty name, a character outside the basic plane.
IDS = (
    "cat/\udcff.jpg",
    "two\nlines",
    "",
    "dog/\U0001f415.png",
    *(f"ant/{number}.png" for number in range(16)),
)


@dataclass(frozen=True)
class Toy:
    """What is recorded; another seed is other records."""

    ids: tuple[str, ...] = IDS
    num_draws: int = 6
    columns: Mapping[str, Column] = field(default_factory=lambda: COLUMNS)
    origin: Mapping[str, object] = field(default_factory=lambda: {"teacher": {"name": "toy", "loss": 0.5}})
    seed: int = 0

    @property
    def num_rows(self) -> int:
        return len(self.ids) * self.num_draws

    def recorder(self, folder: Path) -> Recorder:
        return Recorder(
            folder, ids=self.ids, num_draws=self.num_draws, columns=self.columns, origin=self.origin
        )

    @cached_property
    def records(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self.seed)
        return {name: some_records(column, self.num_rows, rng) for name, column in self.columns.items()}

    def block(self, start: int) -> dict[str, np.ndarray]:
        """The block that begins at a row; blocks are of any size up to 37 rows."""
        stop = start + 1 + start * 7 % 37
        return {name: records[start:stop] for name, records in self.records.items()}

    def record(self, folder: Path) -> Table:
        with self.recorder(folder) as recorder:
            while recorder.num_rows < self.num_rows:
                recorder.append(self.block(recorder.num_rows))
            return recorder.seal()


def some_records(column: Column, num: int, rng: np.random.Generator) -> np.ndarray:
    """Records of any value that the column can hold."""
    match column:
        case TopK():
            return column.encode(log_softmax(4 * rng.standard_normal((num, column.num_classes))))
        case Vector(number="|i1"):
            return column.encode(rng.integers(-128, 128, (num, column.width), np.int8))
        case Vector():
            return column.encode(rng.standard_normal((num, column.width)))
        case Bytes():
            return column.encode(rng.integers(0, 256, (num, column.width), np.uint8))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))).astype(np.float32)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a table but its lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def flip(path: Path, place: int) -> None:
    """Change one bit of the byte at a place."""
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)
