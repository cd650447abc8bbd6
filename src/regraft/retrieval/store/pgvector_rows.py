"""Rows of a gallery on their way into PostgreSQL and out of it, as bytes in both directions.

Text of any kind is stored as UTF-8 bytes: PostgreSQL's own text cannot hold every string, for it has no NUL,
and its order depends on the server's locale, where bytes sort as Python's strings do.
"""

from collections.abc import Generator, Sequence

import numpy as np
from jaxtyping import Float32

from regraft.retrieval.store.packing import pack, unpack
from regraft.retrieval.store.protocol import Layout, Records

# https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format"
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
NULL = b"\xff\xff\xff\xff"
CHUNK_ROWS = 256

Row = Sequence[object]
"""Id, vector, origin and source as the driver reads them."""


def copied(*columns: Sequence[bytes | None]) -> Generator[bytes]:
    """Yield the text of a `COPY ... FROM STDIN BINARY`, given as columns of equal length."""
    yield HEADER
    num_columns = len(columns).to_bytes(2, "big")
    for start in range(0, len(columns[0]), CHUNK_ROWS):
        parts = zip(*(column[start : start + CHUNK_ROWS] for column in columns), strict=True)
        yield b"".join(num_columns + b"".join(map(_field, row)) for row in parts)
    yield TRAILER


def encoded(layout: Layout, vectors: Float32[np.ndarray, "n d"]) -> list[bytes]:
    """Return vectors as a space's table takes them: the form of pgvector's `vector_recv`, or packed."""
    if layout.packed:
        return pack(vectors)
    head = layout.dimension.to_bytes(2, "big") + bytes(2)
    return [head + row.tobytes() for row in vectors.astype(">f4")]


def decoded(layout: Layout, values: Sequence[bytes]) -> Float32[np.ndarray, "n d"]:
    """Return the vectors that `encoded` was given, as float32 that can be written to."""
    if layout.packed:
        return unpack(values, layout.dimension)
    raw = np.frombuffer(b"".join(values), np.uint8).reshape(len(values), 4 + 4 * layout.dimension)
    return raw[:, 4:].copy().view(">f4").astype(np.float32)


def selected(layout: Layout) -> str:
    """The SQL of a vector, as `decoded` takes it."""
    return "v.vector" if layout.packed else "vector_send(v.vector)"


def records_from(rows: Sequence[Row], layout: Layout) -> Records:
    """Return rows of id, vector, origin and source."""
    if not rows:
        return Records.empty(layout.dimension)
    ids, vectors, origins, sources = zip(*rows, strict=True)
    return Records(
        [name.decode() for name in ids],
        decoded(layout, vectors),
        [layout.space] * len(rows),
        list(origins),
        [None if source is None else source.decode() for source in sources],
    )


def text_of(query: Float32[np.ndarray, " d"]) -> str:
    """Return a vector as pgvector reads it; every float32 has a decimal that reads back as itself."""
    return "[" + ",".join(map(repr, query.tolist())) + "]"


def array_of(names: Sequence[str]) -> str:
    """Return names as an SQL array of bytes; the driver's own way of writing one is several times slower."""
    return "{" + ",".join(f'"\\\\x{name.encode().hex()}"' for name in names) + "}"


def _field(value: bytes | None) -> bytes:
    return NULL if value is None else len(value).to_bytes(4, "big") + value
