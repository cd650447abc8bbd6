"""Pairs from columns of a table: Parquet, Arrow, Feather or Lance."""

# pyarrow has no type information, so its tables are unknown to pyright wherever they are passed.
# pyright: reportUnknownParameterType=false

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from regraft.errors import SampleError, nearest
from regraft.retrieval.pairs import Pairs, from_arrays, matrix


def from_table(
    table: str | Path | pa.Table,
    *,
    old: str = "old",
    new: str = "new",
    side: str | None = None,
    ids: str | None = None,
    labels: str | None = None,
) -> Pairs:
    """Pair vectors that are columns of one table.

    Args:
        table: An Arrow table, or the path of a `.parquet`, `.arrow`, `.feather` or `.lance` one.
        old: Name of the column of old vectors: lists of numbers, all of one length.
        new: Name of the column of new vectors.
        side: Name of the column of side-information, if there is one.
        ids: Name of the column of ids; `None` numbers the rows.
        labels: Name of the column of labels: whole numbers, or names, which are numbered as they sort.

    Raises:
        SampleError: No such table or column, a missing value, or vectors of different lengths; it names
            the column and the row. See also `Pairs`.
    """
    where, columns = _read(table)
    for name in (old, new, side, ids, labels):
        if name is not None:
            _check(name, columns, where)
    return from_arrays(
        _vectors(old, columns[old]),
        _vectors(new, columns[new]),
        side=None if side is None else _vectors(side, columns[side]),
        ids=None if ids is None else [str(name) for name in columns[ids].to_pylist()],
        labels=None if labels is None else _labels(columns[labels]),
    )


def _read(table: str | Path | pa.Table) -> tuple[str, Mapping[str, pa.ChunkedArray]]:
    """A name for the table, and all of its columns. Pairs are few: the unwanted need not be spared."""
    if isinstance(table, str | Path):
        opened, where = _open(Path(table)), str(table)
    else:
        opened, where = table, "the table"
    return where, dict(zip(opened.column_names, opened.columns, strict=True))


def _check(name: str, columns: Mapping[str, pa.ChunkedArray], where: str) -> None:
    if name not in columns:
        raise SampleError(
            f"{where} has no column {name!r}; it has {', '.join(columns)}.",
            hint=nearest(name, columns) or None,
        )
    num_missing = columns[name].null_count
    if num_missing:
        row = columns[name].is_null().index(True).as_py()
        raise SampleError(f"Column {name!r} of {where} lacks {num_missing} values, the first in row {row}.")


def _open(path: Path) -> pa.Table:
    readers = {".parquet": _parquet, ".arrow": _feather, ".feather": _feather, ".lance": _lance}
    if path.suffix not in readers:
        raise SampleError(f"{path} is not a table, expected one of {', '.join(readers)}.")
    if not path.exists():
        raise SampleError(f"There is no table {path}.")
    try:
        return readers[path.suffix](path)
    except (pa.ArrowException, OSError, ValueError, RuntimeError) as error:
        reason = str(error).rstrip(".")
        raise SampleError(f"{path} cannot be read as a table: {reason}.") from error


def _parquet(path: Path) -> pa.Table:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path)


def _feather(path: Path) -> pa.Table:
    import pyarrow.feather

    return pyarrow.feather.read_table(path)


def _lance(path: Path) -> pa.Table:
    import lancedb

    return lancedb.connect(path.parent).open_table(path.stem).to_arrow()


def _vectors(name: str, column: pa.ChunkedArray) -> Float32[np.ndarray, "n d"]:
    array = column.combine_chunks()
    lengths = _lengths(array)
    if lengths is None:
        raise SampleError(f"Column {name!r} holds {array.type}, expected lists of numbers.")
    odd = np.flatnonzero(lengths != lengths[:1])
    if len(odd):
        row = int(odd[0])
        raise SampleError(
            f"Vector {name!r} of row {row} has {lengths[row]} numbers, but that of row 0 has {lengths[0]}."
        )
    numbers = np.asarray(array.flatten().to_numpy(zero_copy_only=False))
    return matrix(name, numbers.reshape(len(array), -1))


def _lengths(array: pa.Array) -> np.ndarray | None:
    if pa.types.is_fixed_size_list(array.type):
        return np.full(len(array), array.type.list_size)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return array.value_lengths().to_numpy(zero_copy_only=False)
    return None


def _labels(column: pa.ChunkedArray) -> np.ndarray:
    values = np.asarray(column.to_pylist())
    if values.dtype.kind in "iu":
        return values
    return np.unique(values, return_inverse=True)[1]
