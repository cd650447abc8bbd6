"""Pairs from columns of a table: Parquet, Arrow, Feather or Lance."""

from collections.abc import Sequence
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
    names = [name for name in (old, new, side, ids, labels) if name is not None]
    columns = _read(table, names)
    return from_arrays(
        _vectors(old, columns[old]),
        _vectors(new, columns[new]),
        side=None if side is None else _vectors(side, columns[side]),
        ids=None if ids is None else [str(name) for name in columns[ids].to_pylist()],
        labels=None if labels is None else _labels(columns[labels]),
    )


def from_named_columns(path: str | Path) -> Pairs:
    """Pair vectors of a table file by the names of its columns: `old` and `new`, and where there are any,
    `side`, `id` and `label`.

    Raises:
        SampleError: See `from_table`.
    """
    table = _open(Path(path))
    side, ids, labels = (name if name in table.column_names else None for name in ("side", "id", "label"))
    return from_table(table, side=side, ids=ids, labels=labels)


def _read(table: str | Path | pa.Table, names: Sequence[str]) -> dict[str, pa.ChunkedArray]:
    where = "the table" if isinstance(table, pa.Table) else str(table)
    opened = table if isinstance(table, pa.Table) else _open(Path(table))
    for name in names:
        if name not in opened.column_names:
            raise SampleError(
                f"{where} has no column {name!r}; it has {', '.join(opened.column_names)}.",
                hint=nearest(name, opened.column_names) or None,
            )
        missing = opened[name].null_count
        if missing:
            row = opened[name].is_null().index(True).as_py()
            raise SampleError(f"Column {name!r} of {where} lacks {missing} values, the first in row {row}.")
    return {name: opened[name] for name in names}


def _open(path: Path) -> pa.Table:
    """The whole table. Reading its wanted columns only would save memory; pairs are few, so it need not."""
    readers = {".parquet": _parquet, ".arrow": _feather, ".feather": _feather, ".lance": _lance}
    if path.suffix not in readers:
        raise SampleError(f"{path} is not a table, expected one of {', '.join(readers)}.")
    if not path.exists():
        raise SampleError(f"There is no table {path}.")
    try:
        return readers[path.suffix](path)
    except (pa.ArrowException, OSError, ValueError, RuntimeError) as error:
        raise SampleError(f"{path} cannot be read as a table: {error}.") from error


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
