"""What a Qdrant engine must do for a gallery; there are two, in this process and on a server."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from regraft.retrieval.store.protocol import Capabilities

Json = str | int | bool | None | list["Json"] | dict[str, "Json"]
Payload = dict[str, Json]


@dataclass(frozen=True, eq=False)
class Point:
    """What an engine stores under an id."""

    id: str
    """A UUID."""
    payload: Payload
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    """By name, of length one; they are only searched, never read back."""


@dataclass(frozen=True)
class Filter:
    """Points whose fields have certain values."""

    field: str
    any_of: tuple[str, ...]
    """Values of the field, one of which a point must have."""
    without: str | None = None
    """Another field, which a point must not have; `None` if that does not matter."""


@runtime_checkable
class Engine(Protocol):
    """Points with a payload and named vectors.

    Every call raises StoreError where the engine cannot do what it is asked.
    """

    @property
    def place(self) -> str:
        """Where the points are, for messages."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What a gallery on this engine guarantees."""
        ...

    @property
    def turn(self) -> AbstractContextManager[object]:
        """The right to call this engine, for one thread at a time, which may take it again."""
        ...

    def make(self, vectors: Mapping[str, int], field: str, points: Sequence[Point]) -> None:
        """Start with some points.

        Args:
            vectors: Names and dimensions of vectors.
            field: A field to be quick to filter by.
            points: The first ones.

        Raises:
            StoreError: Points are there already.
        """
        ...

    def write(self, points: Sequence[Point]) -> None:
        """Put points in the place of those with their ids, each whole: payload and vectors change at once."""
        ...

    def remove(self, ids: Sequence[str]) -> None:
        """Delete points that are there."""
        ...

    def read(self, ids: Sequence[str]) -> list[Point]:
        """Read the payload of those points that are there, in any order."""
        ...

    def walk(self, chosen: Filter, after: str | None, num_points: int) -> tuple[list[Point], str | None]:
        """Read a page of payloads in the order of their ids, and where the next page begins, if one does."""
        ...

    def count(self, chosen: Filter) -> int:
        """Count points."""
        ...

    def nearest(
        self, name: str, query: np.ndarray, num_points: int, *, exact: bool
    ) -> list[tuple[str, float]]:
        """Ids and cosines of the points nearest to a query of length one, best first.

        Args:
            name: Which vectors to compare.
            query: Of length one.
            num_points: Points wanted.
            exact: Compare every point, whatever index there is.
        """
        ...

    def open_field(self, name: str) -> None:
        """Make a field quick to filter by. Done again, it does nothing."""
        ...

    def open_vector(self, name: str, dimension: int) -> None:
        """Make room for vectors of another name, forgetting any that had it."""
        ...

    def close_vector(self, name: str) -> None:
        """Forget the vectors of a name. Done again, it does nothing."""
        ...

    def close_fields(self, chosen: Filter, names: Sequence[str]) -> None:
        """Forget some fields of points. Done again, it does nothing."""
        ...

    def index(self, vectors: Mapping[str, int], neighbours: int, build_candidates: int) -> None:
        """Build the graph of every vector, or bring it up to date."""
        ...

    def tidy(self) -> None:
        """Bring the graphs up to date that were built before, those of vectors named since included."""
        ...

    def close(self) -> None:
        """Let go of the place; a later call takes it again."""
        ...
