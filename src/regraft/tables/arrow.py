"""A table as Arrow record batches, which many programs read, and back to the bit."""

# pyarrow has no type information, so its arrays are unknown to pyright wherever they are passed.
# pyright: reportUnknownParameterType=false

import json
import re
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from regraft.errors import TableError
from regraft.tables.columns import Bytes, Column, TopK, Vector
from regraft.tables.table import Table

KEY = b"regraft_table"
"""Entry of a schema's metadata that holds the manifest, as JSON."""

BATCH_ROWS = 65_536
BATCH_BYTES = 2**22

SAMPLE_ID = "sample_id"
_PROBABILITY = ".probability"

# Half of a character, as in a file name that is not valid UTF-8.
_SURROGATE = re.compile("[\ud800-\udfff]")


def schema_of(table: Table) -> pa.Schema:
    """The schema of a table's batches, with the manifest.

    A row has `sample_id` and `draw`, and each column its own name; of the most probable classes there are
    `NAME.ids`, `NAME.code` and `NAME.rest`, and for readers that do not know the code `NAME.probability`.
    """
    manifest = table.settings.to_json() | {
        "fingerprint": table.fingerprint,
        "block_rows": [block.num_rows for block in table.blocks],
    }
    fields = [field for name, column in table.columns.items() for field in _fields(name, column)]
    keys = [pa.field(SAMPLE_ID, pa.string()), pa.field("draw", pa.uint32())]
    return pa.schema([*keys, *fields], {KEY: json.dumps(manifest)})


def rows_a_batch(columns: Iterable[Column]) -> int:
    """How many rows of some columns are handled at a time."""
    width = sum(column.dtype.itemsize for column in columns)
    return max(1, min(BATCH_ROWS, BATCH_BYTES // width))


def check_ids(ids: Iterable[str]) -> None:
    """Refuse ids that Arrow cannot hold.

    Raises:
        TableError: One is not valid Unicode.
    """
    odd = next(filter(_SURROGATE.search, ids), None)
    if odd is not None:
        raise TableError(
            f"Sample {odd!r} is not valid Unicode, expected ids that other programs can read.",
            hint="Rename the file, and record the table again.",
        )


def batches_of(table: Table) -> Iterator[pa.RecordBatch]:
    """All rows of a table, whose ids Arrow can hold, some at a time."""
    schema = schema_of(table)
    num = rows_a_batch(table.columns.values())
    for start in range(0, table.num_rows, num):
        rows = np.arange(start, min(start + num, table.num_rows))
        yield pa.record_batch(_arrays_of(table, rows), schema=schema)


def exact_names(name: str, column: Column) -> list[str]:
    """The names of what keeps a column to the bit."""
    return [field.name for field in _fields(name, column) if not field.name.endswith(_PROBABILITY)]


def records_from(name: str, column: Column, rows: pa.Table) -> np.ndarray:
    """The records of a column, from the rows that `batches_of` made.

    Raises:
        TableError: Something is of another type, or missing in a row.
    """
    types = {field.name: field.type for field in _fields(name, column)}
    parts = [_numbers(part, types[part], rows[part].combine_chunks()) for part in exact_names(name, column)]
    if not isinstance(column, TopK):
        return parts[0]
    records = np.empty(len(rows), column.dtype)
    records["ids"], records["code"], records["rest"] = parts
    return records


def _fields(name: str, column: Column) -> list[pa.Field]:
    match column:
        case TopK():
            return [
                pa.field(f"{name}.ids", pa.list_(pa.uint16(), column.k)),
                pa.field(f"{name}.code", pa.list_(pa.uint8(), column.k)),
                pa.field(f"{name}.rest", pa.uint8()),
                pa.field(f"{name}{_PROBABILITY}", pa.list_(pa.float32(), column.k)),
            ]
        case Vector():
            number = pa.from_numpy_dtype(np.dtype(column.number))
            return [pa.field(name, pa.list_(number, column.width))]
        case Bytes():
            return [pa.field(name, pa.binary(column.width))]


def _arrays_of(table: Table, rows: np.ndarray) -> list[pa.Array]:
    ranks, draws = np.divmod(rows, table.num_draws)
    first, last = int(ranks[0]), int(ranks[-1])
    sample_ids = pa.array(table.ids[first : last + 1], pa.string()).take(pa.array(ranks - first))
    parts = [_arrays(column, table.read(name, ranks, draws)) for name, column in table.columns.items()]
    return [sample_ids, pa.array(draws.astype(np.uint32)), *(array for part in parts for array in part)]


def _arrays(column: Column, records: np.ndarray) -> list[pa.Array]:
    match column:
        case TopK():
            probabilities = column.decode(records).probabilities
            lists = [_lists(part) for part in (records["ids"], records["code"], probabilities)]
            return [*lists[:2], pa.array(np.ascontiguousarray(records["rest"])), lists[2]]
        case Vector():
            return [_lists(records)]
        case Bytes():
            buffers = [None, pa.py_buffer(np.ascontiguousarray(records))]
            return [pa.Array.from_buffers(pa.binary(column.width), len(records), buffers)]


def _lists(rows: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).reshape(-1)), rows.shape[1])


def _numbers(name: str, wanted: pa.DataType, array: pa.Array) -> np.ndarray:
    """The numbers of an array as NumPy keeps them, a row each."""
    if array.type != wanted or array.null_count:
        raise TableError(
            f"Column {name!r} is {array.type} with {array.null_count} missing values, expected {wanted}.",
            hint="Import the file as it was exported.",
        )
    if pa.types.is_fixed_size_binary(wanted):
        width = wanted.byte_width
        data = np.frombuffer(array.buffers()[1], np.uint8)
        return data[array.offset * width : (array.offset + len(array)) * width].reshape(-1, width)
    if pa.types.is_fixed_size_list(wanted):
        return array.flatten().to_numpy().reshape(len(array), wanted.list_size)
    return array.to_numpy()
