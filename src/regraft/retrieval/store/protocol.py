"""What every gallery can do: six verbs over rows of id and source, which have a vector in one or more spaces,
four more that put another space in the place of the one it answers in, and one that keeps it quick."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

Origin = Literal["native", "transformed"]
"""`native`: the space's own model encoded the item. `transformed`: computed from an older model's vector."""


@dataclass(frozen=True)
class Layout:
    """A space that a gallery holds vectors of."""

    space: str
    """Fingerprint of the model whose vectors are comparable."""
    dimension: int
    """Numbers in a vector."""
    packed: bool = False
    """Kept as 8-bit integers with a scale a vector: a quarter of the size, to be read and never searched."""


@dataclass(frozen=True)
class Capabilities:
    """What the software under a gallery guarantees."""

    atomic_fill: bool
    """A vector and its origin change in one commit, and so do all rows of one `fill`."""
    several_writers: bool
    """Two processes may write at once. Where they may not, a gallery in a folder makes one wait for the
    other; on a server nothing does, and whoever writes must see to it that nobody else does."""
    opens_online: bool
    """`open_space` rewrites no row and stops no search."""
    rollback: str
    """What a return to the space before costs, and what else can be gone back to, in a few words."""


@dataclass(frozen=True, eq=False)
class Records:
    """Rows of a gallery, as parallel columns."""

    ids: list[str]
    vectors: Float32[np.ndarray, "n d"]
    """In one space, as they were put, not normalised."""
    spaces: list[str]
    origins: list[str]
    sources: list[str | None]
    """Where each item can be encoded from again, a path or URI; `None` if that place is gone or unknown."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int]) -> "Records":
        """Some of the rows, by their places, in this order, repeated or not."""
        return Records(
            [self.ids[row] for row in rows],
            self.vectors[np.array(rows, np.intp)],
            [self.spaces[row] for row in rows],
            [self.origins[row] for row in rows],
            [self.sources[row] for row in rows],
        )

    def named(self, ids: Sequence[str]) -> "Records":
        """The rows of those of some ids that are here, in the order of the ids, repeated or not."""
        place = {name: row for row, name in enumerate(self.ids)}
        return self.take([place[name] for name in ids if name in place])

    @classmethod
    def empty(cls, dimension: int) -> "Records":
        """No rows."""
        return cls([], np.zeros((0, dimension), np.float32), [], [], [])


@dataclass(frozen=True, eq=False)
class Hits:
    """The answers to a search, one entry a query."""

    ids: list[list[str]]
    """Best first; fewer than asked for if the gallery is smaller."""
    scores: list[Float32[np.ndarray, " _"]]
    """Cosine of each hit with its query, in [-1, 1]."""

    @classmethod
    def empty(cls, num_queries: int) -> "Hits":
        """The answers of a gallery that holds nothing."""
        return cls([[] for _ in range(num_queries)], [np.zeros(0, np.float32) for _ in range(num_queries)])


@runtime_checkable
class VectorStore(Protocol):
    """A gallery of embeddings. `MemoryStore` is the specification; every other store must agree with it.

    A gallery answers in one space, the one it serves. The first `put` fixes it, and it stays when every row
    has been dropped. Every row has a vector in it. Further spaces can be opened beside it, to be filled,
    served in its place, or read only. A call that is refused changes nothing. A search never crosses spaces.
    """

    @property
    def layout(self) -> Layout | None:
        """The space that is served; `None` before the first `put`."""
        ...

    @property
    def spaces(self) -> tuple[Layout, ...]:
        """Every open space: the served one, then the others in the order in which they were opened."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What this store guarantees."""
        ...

    def put(
        self,
        ids: Sequence[str],
        vectors: Float[np.ndarray, "n d"],
        *,
        space: str,
        origin: Origin = "native",
        sources: Sequence[str | None] | None = None,
    ) -> int:
        """Write rows, replacing those whose id is present. Rows are durable against process death on return.

        A row is replaced whole, its origin, source and vectors in other spaces included: nothing of the old
        row is kept, so a put without `sources` leaves rows without a source.

        Args:
            ids: One name an item, unique within the call.
            vectors: Finite and not zero; stored as float32, not normalised.
            space: Fingerprint of the model that made the vectors: the space that is served.
            origin: Whether that model saw the items.
            sources: Where the items can be encoded from again; `None`, for one or for all, if nowhere.

        Returns:
            The number of rows written, which is the number of ids.

        Raises:
            SpaceMismatch: The gallery serves another space.
            VectorError: Vectors or ids that must not be stored.
            StoreError: The rows could not be written.
        """
        ...

    def fill(
        self,
        ids: Sequence[str],
        vectors: Float[np.ndarray, "n d"],
        *,
        space: str,
        origin: Origin,
        seen: Records | None = None,
    ) -> int:
        """Set the vectors of rows that are present in one open space, leaving everything else of them.

        Ids that are not in the gallery are left out: an item may be dropped while it is being encoded.
        Durable against process death on return.

        Args:
            ids: One name an item, unique within the call.
            vectors: Finite and not zero.
            space: An open space, the served one included.
            origin: Whether that space's model saw the items.
            seen: These rows, in this order, as they were read in any one space before the vectors were made.
                Rows that have changed since are left out: whose source is another now, or whose vector or
                origin in that space, or that by now have a native vector in `space`. `None` to set all.

        Returns:
            The number of rows set.

        Raises:
            SpaceMismatch: The space is not open.
            VectorError: Vectors or ids that must not be stored.
            StoreError: The rows could not be written.
        """
        ...

    def get(self, ids: Sequence[str], *, space: str | None = None) -> Records:
        """Read rows by id, in the order asked, one for every id given.

        Args:
            ids: Names of rows, in any order, repeated or not.
            space: Whose vectors to read; `None` for the served space.

        Raises:
            StoreError: An id is not in the gallery, or has no vector in this space.
        """
        ...

    def find(self, ids: Sequence[str], *, space: str | None = None) -> Records:
        """Read those of some rows that are present and have a vector in a space, in the order asked.

        Args:
            ids: Names of rows, unique.
            space: Whose vectors to read; `None` for the served space.
        """
        ...

    def search(self, queries: Float[np.ndarray, "q d"], k: int, *, space: str) -> Hits:
        """Find the `k` rows of highest cosine for each query; equal scores in the order of their ids.

        All answers of one call come from one state of the gallery.

        Raises:
            SpaceMismatch: The gallery serves another space.
            VectorError: Queries that have no cosine with the rows, or `k` below 1.
        """
        ...

    def scan(
        self,
        *,
        space: str | None = None,
        origin: Origin | None = None,
        lacking: str | None = None,
        batch_rows: int = 4096,
    ) -> Iterator[Records]:
        """Stream the rows that were present when the scan began, whatever is written meanwhile.

        Args:
            space: Whose vectors to read, leaving out rows without; `None` for the served space.
            origin: Only rows whose vector in that space is of this origin; `None` for all.
            lacking: Only rows without a vector in this other space; `None` for all.
            batch_rows: Rows in a batch; the last may be shorter.

        Raises:
            StoreError: `batch_rows` is below 1.
        """
        ...

    def count(
        self, *, space: str | None = None, origin: Origin | None = None, lacking: str | None = None
    ) -> int:
        """Count the rows that `scan` would yield."""
        ...

    def drop(self, ids: Sequence[str]) -> int:
        """Remove rows. Ids that are not present are left out of the count.

        Returns:
            The number of rows removed.
        """
        ...

    def open_space(self, layout: Layout) -> None:
        """Make room for the vectors of another space. No row has one until `fill` gives it one.

        Does nothing if this very space is open.

        Raises:
            SpaceMismatch: The space is open with another dimension or packing.
            StoreError: Nothing was ever put.
        """
        ...

    def serve(self, space: str) -> None:
        """Answer in `space` from now on, in one atomic step. Done again, it does nothing.

        Raises:
            SpaceMismatch: The space is not open, or is packed.
            StoreError: A row has no vector in it; nothing has changed.
        """
        ...

    def close_space(self, space: str) -> None:
        """Forget every vector of a space that is not served. Done again, it does nothing.

        Raises:
            SpaceMismatch: The space is served.
        """
        ...

    def tidy(self, *, space: str | None = None) -> None:
        """Do what the store needs after many writes, so that it stays quick and small.

        Changes no row, and no answer but where an index decides which rows are compared. Where the gallery
        has an index, of whichever space, there is one of `space` afterwards, as far as the store can have
        one, and it is up to date: so a space can be made quick before it is served. Answers go on meanwhile.

        Args:
            space: In which searches are to be quick; `None` for the served space.

        Raises:
            SpaceMismatch: The space is not open, or is packed.
        """
        ...
