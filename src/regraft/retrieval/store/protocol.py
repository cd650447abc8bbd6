"""What every gallery can do: six verbs over rows of id, vector, space, origin and source."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

Origin = Literal["native", "transformed"]
"""`native`: the space's own model encoded the item. `transformed`: computed from an older model's vector."""


@dataclass(frozen=True)
class Layout:
    """What the first `put` fixes for the life of a gallery."""

    space: str
    """Fingerprint of the model whose vectors are comparable."""
    dimension: int
    """Numbers in a vector."""


@dataclass(frozen=True, eq=False)
class Records:
    """Rows of a gallery, as parallel columns."""

    ids: list[str]
    vectors: Float32[np.ndarray, "n d"]
    """As they were put, not normalised."""
    spaces: list[str]
    origins: list[str]
    sources: list[str | None]
    """Where each item can be encoded from again, a path or URI; `None` if that place is gone or unknown."""

    def __len__(self) -> int:
        return len(self.ids)

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

    A gallery holds the vectors of one space. The first `put` fixes the space and the dimension, and they stay
    fixed when every row has been dropped. A call that is refused changes nothing.
    """

    @property
    def layout(self) -> Layout | None:
        """The space and dimension of this gallery; `None` before the first `put`."""
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

        A row is replaced whole, its origin and source included: nothing of the old row is kept, so a put
        without `sources` leaves rows without a source.

        Args:
            ids: One name an item, unique within the call.
            vectors: Finite and not zero; stored as float32, not normalised.
            space: Fingerprint of the model that made the vectors.
            origin: Whether that model saw the items.
            sources: Where the items can be encoded from again; `None`, for one or for all, if nowhere.

        Returns:
            The number of rows written, which is the number of ids.

        Raises:
            SpaceMismatch: The gallery holds another space.
            VectorError: Vectors or ids that must not be stored.
            StoreError: The rows could not be written.
        """
        ...

    def get(self, ids: Sequence[str]) -> Records:
        """Read rows by id, in the order asked, one for every id given.

        Raises:
            StoreError: An id is not in the gallery.
        """
        ...

    def search(self, queries: Float[np.ndarray, "q d"], k: int, *, space: str) -> Hits:
        """Find the `k` rows of highest cosine for each query; equal scores in the order of their ids.

        Raises:
            SpaceMismatch: The gallery holds another space.
            VectorError: Queries that have no cosine with the rows, or `k` below 1.
        """
        ...

    def scan(
        self, *, space: str | None = None, origin: Origin | None = None, batch_rows: int = 4096
    ) -> Iterator[Records]:
        """Stream the rows that were present when the scan began, whatever is written meanwhile.

        Args:
            space: Only rows of this space; `None` for all.
            origin: Only rows of this origin; `None` for all.
            batch_rows: Rows in a batch; the last may be shorter.

        Raises:
            StoreError: `batch_rows` is below 1.
        """
        ...

    def count(self, *, space: str | None = None, origin: Origin | None = None) -> int:
        """Count the rows, or those of one space or origin."""
        ...

    def drop(self, ids: Sequence[str]) -> int:
        """Remove rows. Ids that are not present are left out of the count.

        Returns:
            The number of rows removed.
        """
        ...
