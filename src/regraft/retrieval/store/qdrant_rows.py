"""Rows of a gallery as Qdrant's points, and the point that says which spaces there are.

A vector and its origin are two things to Qdrant, changed by two commands. So both are fields of a point's
payload, and a point is always written whole. The vector that Qdrant searches is made of the same field: it
changes with it, and is never read back, for Qdrant brings it to length one.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import cast
from uuid import UUID

import numpy as np
from jaxtyping import Float32

from regraft.errors import StoreError
from regraft.retrieval.store.packing import pack, unpack
from regraft.retrieval.store.protocol import Layout, Records
from regraft.retrieval.store.qdrant_engine import Json, Payload, Point

FORMAT = 1
SPACES_ID = str(UUID(int=0))
ORIGINS = ("native", "transformed")


@dataclass(frozen=True)
class Space:
    """A space and the names under which its vectors are stored."""

    number: int
    """Never given to another space of the gallery."""
    layout: Layout

    @property
    def vector(self) -> str:
        """The name of the vectors that are searched, which a packed space has not."""
        return f"vector_{self.number}"

    @property
    def exact(self) -> str:
        """The field that holds a vector as it was put."""
        return f"exact_{self.number}"

    @property
    def origin(self) -> str:
        """The field that holds a vector's origin; a row has it if it has a vector in this space."""
        return f"origin_{self.number}"


@dataclass(frozen=True)
class Spaces:
    """What a gallery holds vectors of."""

    open: tuple[Space, ...]
    """The served one first, then the others in the order in which they were opened."""
    next_number: int
    indexed: bool = False
    closed: tuple[int, ...] = ()
    """Spaces of which something may be left over."""

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """The open spaces."""
        return tuple(space.layout for space in self.open)

    def named(self, space: str | None) -> Space | None:
        """A space by its name, the served one without; `None` if it is not open."""
        if space is None:
            return self.open[0] if self.open else None
        return next((each for each in self.open if each.layout.space == space), None)

    def point(self) -> Point:
        """The point that says so."""
        spaces: list[Json] = [
            {
                "number": space.number,
                "space": space.layout.space,
                "dimension": space.layout.dimension,
                "packed": space.layout.packed,
            }
            for space in self.open
        ]
        payload: Payload = {
            "regraft_format": FORMAT,
            "spaces": spaces,
            "next_number": self.next_number,
            "indexed": self.indexed,
            "closed": list(self.closed),
        }
        return Point(SPACES_ID, payload)

    @classmethod
    def read(cls, point: Point, place: str) -> "Spaces":
        """Read such a point.

        Raises:
            StoreError: Another release wrote it, or not Regraft.
        """
        written = point.payload.get("regraft_format")
        if written != FORMAT:
            raise StoreError(
                f"{place} is a gallery of format {written!r}; this release reads format {FORMAT}.",
                hint="pip install --upgrade regraft",
            )
        spaces = cast(list[dict[str, int | str | bool]], point.payload["spaces"])
        return cls(
            tuple(
                Space(
                    int(each["number"]),
                    Layout(str(each["space"]), int(each["dimension"]), bool(each["packed"])),
                )
                for each in spaces
            ),
            cast(int, point.payload["next_number"]),
            bool(point.payload["indexed"]),
            tuple(cast(list[int], point.payload["closed"])),
        )


def point_id(name: str) -> str:
    """The id that Qdrant, which takes no other names, knows an item by."""
    return str(UUID(bytes=blake2b(name.encode(), digest_size=16).digest()))


def new_row(name: str, source: str | None) -> Payload:
    """The payload of an item without any vector."""
    return {"id": name, "source": source}


def fields_of(space: Space, vectors: Float32[np.ndarray, "n d"], origin: str) -> list[Payload]:
    """What a payload says of each vector."""
    values = pack(vectors) if space.layout.packed else [row.tobytes() for row in vectors.astype("<f4")]
    return [{space.exact: base64.b64encode(value).decode(), space.origin: origin} for value in values]


def points_of(payloads: Sequence[Payload], spaces: Sequence[Space]) -> list[Point]:
    """Return whole points: of each payload what belongs to an open space, and the vectors to be searched."""
    kept = {"id", "source", *(name for space in spaces for name in (space.exact, space.origin))}
    vectors: list[dict[str, np.ndarray]] = [{} for _ in payloads]
    for space in spaces:
        rows = [row for row, payload in enumerate(payloads) if space.origin in payload]
        if space.layout.packed or not rows:
            continue
        exact = vectors_from([payloads[row] for row in rows], space)
        for row, vector in zip(rows, directions(exact), strict=True):
            vectors[row][space.vector] = vector
    return [
        Point(
            point_id(str(payload["id"])), {name: payload[name] for name in payload if name in kept}, searched
        )
        for payload, searched in zip(payloads, vectors, strict=True)
    ]


def vectors_from(payloads: Sequence[Mapping[str, Json]], space: Space) -> Float32[np.ndarray, "n d"]:
    """Return the vectors of a space as they were put."""
    values = [base64.b64decode(str(payload[space.exact])) for payload in payloads]
    if space.layout.packed:
        return unpack(values, space.layout.dimension)
    return np.frombuffer(b"".join(values), "<f4").reshape(len(values), -1).astype(np.float32)


def records_from(payloads: Sequence[Mapping[str, Json]], space: Space) -> Records:
    """Return payloads, each with a vector in the space, as rows."""
    if not payloads:
        return Records.empty(space.layout.dimension)
    return Records(
        [str(payload["id"]) for payload in payloads],
        vectors_from(payloads, space),
        [space.layout.space] * len(payloads),
        [str(payload[space.origin]) for payload in payloads],
        [cast(str | None, payload["source"]) for payload in payloads],
    )


def directions(vectors: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """Return the vectors at length one.

    Qdrant would do it, but leaves vectors shorter than about 3e-4 as they are.
    """
    wide = vectors.astype(np.float64)
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)
