"""Rows of a gallery as Arrow tables, and the filters that choose among them."""

# pyarrow has no type information, so its tables are unknown to pyright wherever they are passed.
# pyright: reportUnknownParameterType=false

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from regraft.errors import StoreError
from regraft.retrieval.store.protocol import Layout, Origin, Records

COLUMNS = ["id", "vector", "space", "origin", "source"]
FORMAT = b"1"


def arrow_from(records: Records) -> pa.Table:
    """Return rows as a table; the vector's column says which space and format it holds."""
    dimension = records.vectors.shape[1]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(records.vectors.ravel()), dimension)
    # The id stands first: LanceDB was reported to update nothing, silently, under an indexed key elsewhere.
    columns = [
        pa.array(records.ids, pa.string()),
        vectors,
        pa.array(records.spaces, pa.string()),
        pa.array(records.origins, pa.string()),
        pa.array(records.sources, pa.string()),
    ]
    return pa.table(columns, schema=_schema(records.spaces[0], dimension))


def records_from(table: pa.Table) -> Records:
    """Return a table of every column as rows."""
    return Records(
        table["id"].to_pylist(),
        vectors_from(table),
        table["space"].to_pylist(),
        table["origin"].to_pylist(),
        table["source"].to_pylist(),
    )


def vectors_from(table: pa.Table) -> Float32[np.ndarray, "n d"]:
    """Return a copy of a table's vectors, which unlike Arrow's own memory can be written to."""
    vectors = np.empty((len(table), _dimension(table.schema)), np.float32)
    start = 0
    for chunk in table["vector"].chunks:
        vectors[start : start + len(chunk)] = chunk.flatten().to_numpy().reshape(len(chunk), -1)
        start += len(chunk)
    return vectors


def layout_of(schema: pa.Schema, path: Path) -> Layout:
    """Read what the first put fixed.

    Raises:
        StoreError: The table was not written by Regraft, or by a later one.
    """
    marks = schema.field("vector").metadata if "vector" in schema.names else None
    if not marks or b"regraft.space" not in marks:
        raise StoreError(f"{path} holds a LanceDB table that Regraft did not write; expected a gallery.")
    written = marks.get(b"regraft.format")
    if written != FORMAT:
        raise StoreError(
            f"{path} is a gallery of format {written!r}; this release reads format {FORMAT!r}.",
            hint="pip install --upgrade regraft",
        )
    return Layout(marks[b"regraft.space"].decode(), _dimension(schema))


def in_space(space: str) -> str:
    """The filter for the rows of a space."""
    return f"space = {_quoted(space)}"


def kept_by(space: str | None, origin: Origin | None) -> str | None:
    """The filter for the rows of a space and an origin, each only if named; `None` if all rows pass."""
    terms = [] if space is None else [in_space(space)]
    if origin is not None:
        terms.append(f"origin = {_quoted(origin)}")
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
            f"A put of {expected} rows changed {num_written}; the gallery may hold a part of them.",
            hint="Put the same rows again; if it happens again, fill a new gallery.",
        )


def _schema(space: str, dimension: int) -> pa.Schema:
    marks = {b"regraft.format": FORMAT, b"regraft.space": space.encode()}
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), dimension), nullable=False, metadata=marks),
            pa.field("space", pa.string(), nullable=False),
            pa.field("origin", pa.string(), nullable=False),
            pa.field("source", pa.string()),
        ]
    )


def _dimension(schema: pa.Schema) -> int:
    return schema.field("vector").type.list_size


def _quoted(text: str) -> str:
    """`text` as SQL: within single quotes only the quote itself means something, unless doubled."""
    return "'" + text.replace("'", "''") + "'"
