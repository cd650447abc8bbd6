"""Rows of a gallery as Arrow tables, and the filters that choose among them."""

# pyarrow has no type information, so its tables are unknown to pyright wherever they are passed.
# pyright: reportUnknownParameterType=false

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from regraft.errors import StoreError
from regraft.retrieval.store.lance_slots import Slot
from regraft.retrieval.store.packing import SCALE_BYTES, pack, unpack
from regraft.retrieval.store.protocol import Origin, Records


def put_rows(records: Records, slot: Slot, schema: pa.Schema) -> pa.Table:
    """Return rows as a table of every column, without a vector in any other space."""
    columns = {
        "id": pa.array(records.ids, pa.string()),
        "source": pa.array(records.sources, pa.string()),
        slot.vector: _vectors(records.vectors, slot),
        slot.origin: pa.array(records.origins, pa.string()),
    }
    absent = {field.name: field.type for field in schema if field.name not in columns}
    columns |= {name: pa.nulls(len(records), kind) for name, kind in absent.items()}
    return pa.table([columns[name] for name in schema.names], schema=schema)


def filled_rows(
    rows: pa.Table, ids: Sequence[str], vectors: Float32[np.ndarray, "n d"], origin: Origin, slot: Slot
) -> pa.Table:
    """Return some rows of every column with vectors of one space in the place of those they had.

    Args:
        rows: Rows of some of the ids.
        ids: Whose vectors these are, in the same order.
        vectors: The vectors to be.
        origin: The origin to be, of all of them.
        slot: Where they go.
    """
    place = {name: row for row, name in enumerate(ids)}
    chosen = vectors[[place[name] for name in rows["id"].to_pylist()]]
    columns = dict(zip(rows.column_names, rows.columns, strict=True))
    columns[slot.vector] = _vectors(chosen, slot)
    columns[slot.origin] = pa.array([origin] * len(rows), pa.string())
    return pa.table([columns[name] for name in rows.column_names], schema=rows.schema)


def columns_of(slot: Slot) -> list[str]:
    """The columns that `records_from` reads."""
    return ["id", slot.vector, slot.origin, "source"]


def having_vector(table: pa.Table, slot: Slot) -> pa.Table:
    """Those rows of a table that have a vector in a slot."""
    return table.filter(table[slot.origin].is_valid())


def records_from(table: pa.Table, slot: Slot) -> Records:
    """Return rows that have a vector in a slot."""
    return Records(
        table["id"].to_pylist(),
        vectors_from(table, slot),
        [slot.layout.space] * len(table),
        table[slot.origin].to_pylist(),
        table["source"].to_pylist(),
    )


def vectors_from(table: pa.Table, slot: Slot) -> Float32[np.ndarray, "n d"]:
    """Return a copy of a slot's vectors, which unlike Arrow's own memory can be written to."""
    if slot.layout.packed:
        return unpack(table[slot.vector].to_pylist(), slot.layout.dimension)
    vectors = np.empty((len(table), slot.layout.dimension), np.float32)
    start = 0
    for chunk in table[slot.vector].chunks:
        vectors[start : start + len(chunk)] = chunk.flatten().to_numpy().reshape(-1, slot.layout.dimension)
        start += len(chunk)
    return vectors


def having(slot: Slot) -> str:
    """The filter for the rows that have a vector in a slot."""
    # Origin and vector are written together; the origin is the shorter to read.
    return f"{slot.origin} IS NOT NULL"


def lacking(slot: Slot) -> str:
    """The filter for the rows that have no vector in a slot."""
    return f"{slot.origin} IS NULL"


def of_origin(slot: Slot, origin: Origin) -> str:
    """The filter for the rows whose vector in a slot is of an origin."""
    return f"{slot.origin} = {_quoted(origin)}"


def all_of(terms: Sequence[str]) -> str | None:
    """The filter for the rows that pass every one of some filters; `None` if all rows do."""
    return " AND ".join(terms) or None


def any_of(ids: Sequence[str]) -> str:
    """The filter for the rows of these ids, at least one."""
    return f"id IN ({', '.join(_quoted(name) for name in ids)})"


def confirm(num_written: int, *, expected: int) -> None:
    """Raise StoreError unless a commit changed as many rows as it was given.

    LanceDB was reported to acknowledge merges that changed nothing (lancedb issues 3177 and 3515).
    """
    if num_written != expected:
        raise StoreError(
            f"A write of {expected} rows changed {num_written}; the gallery may hold a part of them.",
            hint="Write the same rows again; if it happens again, fill a new gallery.",
        )


def _vectors(vectors: Float32[np.ndarray, "n d"], slot: Slot) -> pa.Array:
    if slot.layout.packed:
        return pa.array(pack(vectors), pa.binary(SCALE_BYTES + slot.layout.dimension))
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), slot.layout.dimension)


def _quoted(text: str) -> str:
    """`text` as SQL: within single quotes only the quote itself means something, unless doubled."""
    return "'" + text.replace("'", "''") + "'"
