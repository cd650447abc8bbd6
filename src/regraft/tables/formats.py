"""Files of record batches: Arrow, Parquet and Lance."""

# pyarrow has no type information, so its batches are unknown to pyright wherever they are passed.
# pyright: reportUnknownParameterType=false

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, final, runtime_checkable

import pyarrow as pa

from regraft.errors import TableError


@runtime_checkable
class Format(Protocol):
    """Writes and reads record batches, with their schema and its metadata."""

    def write(self, path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        """Write all batches to a new file or folder."""
        ...

    def schema(self, path: Path) -> pa.Schema:
        """What was written."""
        ...

    def batches(self, path: Path, names: Sequence[str], num_rows: int) -> Iterator[pa.RecordBatch]:
        """Some columns of all rows in the order they were written in, about so many at a time."""
        ...


@final
class Arrow:
    """The Arrow IPC file, which can be mapped into memory."""

    def write(self, path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        """Write all batches to a new file."""
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)

    def schema(self, path: Path) -> pa.Schema:
        """What was written."""
        with pa.memory_map(str(path)) as file:
            return pa.ipc.open_file(file).schema

    def batches(self, path: Path, names: Sequence[str], num_rows: int) -> Iterator[pa.RecordBatch]:
        """Some columns of all rows in the order they were written in, about so many at a time."""
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number).select(list(names))


@final
class Parquet:
    """The Parquet file, which is smaller."""

    def write(self, path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        """Write all batches to a new file."""
        from pyarrow.parquet import ParquetWriter

        with ParquetWriter(path, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)

    def schema(self, path: Path) -> pa.Schema:
        """What was written."""
        from pyarrow.parquet import read_schema

        return read_schema(path)

    def batches(self, path: Path, names: Sequence[str], num_rows: int) -> Iterator[pa.RecordBatch]:
        """Some columns of all rows in the order they were written in, about so many at a time."""
        from pyarrow.parquet import ParquetFile

        with ParquetFile(path) as file:
            yield from file.iter_batches(num_rows, columns=list(names))


@final
class Lance:
    """The Lance folder, which has versions and may lie in an object store. Its names have no points."""

    def write(self, path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        """Write all batches to a new folder."""
        import lancedb

        renamed = pa.schema(
            [field.with_name(_without_point(field.name)) for field in schema], schema.metadata
        )
        rows = pa.RecordBatchReader.from_batches(
            renamed, (pa.record_batch(batch.columns, schema=renamed) for batch in batches)
        )
        lancedb.connect(path.parent).create_table(path.stem, rows)

    def schema(self, path: Path) -> pa.Schema:
        """What was written."""
        import lancedb

        schema = lancedb.connect(path.parent).open_table(path.stem).schema
        return pa.schema([field.with_name(_with_point(field.name)) for field in schema], schema.metadata)

    def batches(self, path: Path, names: Sequence[str], num_rows: int) -> Iterator[pa.RecordBatch]:
        """Some columns of all rows in the order they were written in, about so many at a time."""
        import lancedb

        table = lancedb.connect(path.parent).open_table(path.stem)
        rows = table.search().select([_without_point(name) for name in names])
        for batch in rows.to_batches(num_rows):
            yield batch.rename_columns(list(map(_with_point, batch.schema.names)))


FORMATS: dict[str, Format] = {".arrow": Arrow(), ".parquet": Parquet(), ".lance": Lance()}


def format_of(path: Path) -> Format:
    """The format that a file's name asks for.

    Raises:
        TableError: There is none.
    """
    if path.suffix not in FORMATS:
        raise TableError(f"{path} could be anything, expected a name that ends in {', '.join(FORMATS)}.")
    return FORMATS[path.suffix]


def _without_point(name: str) -> str:
    # No name of a column holds two underscores side by side.
    return name.replace(".", "__")


def _with_point(name: str) -> str:
    return name.replace("__", ".")
