"""Which columns of a LanceDB table hold which space, and which of them is served.

A space has a pair of columns in a numbered slot, `vector` and `origin`, then `vector_1` and `origin_1`, and
so on. Marks on the fields, which LanceDB changes in one commit without touching a row, say the rest: on a
vector's field whose space it is and how its index has grown, on the id's which vectors are served.
"""

# pyarrow has no type information, so its tables are unknown to pyright wherever they are passed.
# pyright: reportUnknownParameterType=false

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from regraft.errors import StoreError
from regraft.retrieval.store.packing import SCALE_BYTES
from regraft.retrieval.store.protocol import Layout

FORMAT = "2"
SPACE_MARK, FORMAT_MARK, SERVED_MARK = "regraft.space", "regraft.format", "regraft.served"
TAKEN_IN_MARK = "regraft.taken_in"
READABLE = ("1", FORMAT)
"""Format 1 had one space, in the first slot, and named it again in each row."""


@dataclass(frozen=True)
class Slot:
    """The pair of columns that holds one space."""

    number: int
    layout: Layout
    taken_in: int = field(default=0, compare=False)
    """Rows that entered the index of its vectors since that was built."""

    @property
    def vector(self) -> str:
        """Name of the column of vectors."""
        return f"vector_{self.number}" if self.number else "vector"

    @property
    def origin(self) -> str:
        """Name of the column of origins; null where a row has no vector."""
        return f"origin_{self.number}" if self.number else "origin"

    @property
    def fields(self) -> list[pa.Field]:
        """Both columns, empty in every row until they are filled."""
        marks = {SPACE_MARK: self.layout.space, FORMAT_MARK: FORMAT}
        return [pa.field(self.vector, self._type, metadata=marks), pa.field(self.origin, pa.string())]

    @property
    def _type(self) -> pa.DataType:
        if self.layout.packed:
            return pa.binary(SCALE_BYTES + self.layout.dimension)
        return pa.list_(pa.float32(), self.layout.dimension)


@dataclass(frozen=True)
class Slots:
    """The open spaces of one version of a gallery."""

    served: Slot
    opened: tuple[Slot, ...]
    """All of them, the served one included, in the order in which they were opened."""

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """The served space, then the others in the order in which they were opened."""
        return (self.served.layout, *(slot.layout for slot in self.opened if slot != self.served))

    def of(self, space: str) -> Slot | None:
        """The slot of a space; `None` if it is not open."""
        return next((slot for slot in self.opened if slot.layout.space == space), None)

    def next(self, layout: Layout) -> Slot:
        """A slot for another space: the lowest that is free."""
        taken = {slot.number for slot in self.opened}
        return Slot(next(number for number in range(len(taken) + 1) if number not in taken), layout)


def new_schema(layout: Layout) -> pa.Schema:
    """The columns of a gallery that is served in its only space."""
    slot = Slot(0, layout)
    # The id stands first: LanceDB was reported to update nothing, silently, under an indexed key elsewhere.
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False, metadata={SERVED_MARK: slot.vector}),
            pa.field("source", pa.string()),
            *slot.fields,
        ]
    )


def slots_in(schema: pa.Schema, path: Path) -> Slots:
    """Read from a table's columns which spaces are open.

    Raises:
        StoreError: The table was not written by Regraft, or by a later one.
    """
    opened = tuple(_slot(column) for column in schema if SPACE_MARK in _marks(column))
    served = _marks(schema.field("id")).get(SERVED_MARK, "vector") if "id" in schema.names else None
    answering = [slot for slot in opened if slot.vector == served]
    if not answering:
        raise StoreError(f"{path} holds a LanceDB table that Regraft did not write; expected a gallery.")
    for slot in opened:
        written = _marks(schema.field(slot.vector)).get(FORMAT_MARK)
        if written not in READABLE:
            raise StoreError(
                f"{path} is a gallery of format {written!r}; this release reads up to format {FORMAT!r}.",
                hint="pip install --upgrade regraft",
            )
    return Slots(answering[0], opened)


def _slot(column: pa.Field) -> Slot:
    packed = pa.types.is_fixed_size_binary(column.type)
    dimension = column.type.byte_width - SCALE_BYTES if packed else column.type.list_size
    number, marks = column.name.removeprefix("vector").removeprefix("_"), _marks(column)
    layout = Layout(marks[SPACE_MARK], dimension, packed)
    return Slot(int(number or 0), layout, int(marks.get(TAKEN_IN_MARK, "0")))


def _marks(column: pa.Field) -> Mapping[str, str]:
    return {key.decode(): value.decode() for key, value in (column.metadata or {}).items()}
