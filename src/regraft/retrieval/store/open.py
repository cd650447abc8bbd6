"""From a place written as text to a gallery."""

from collections.abc import Callable
from pathlib import Path

from regraft.errors import StoreError
from regraft.retrieval.store.memory import MemoryStore
from regraft.retrieval.store.protocol import VectorStore


def open_gallery(uri: str | Path) -> VectorStore:
    """Open the gallery at `uri`; it is made by the first `put` if nothing is there.

    Args:
        uri: A folder, as a plain path or `lance://folder`, for a LanceDB gallery; `memory://` for a new one
            that lasts as long as the process.

    Raises:
        StoreError: An unknown scheme, or a place that cannot be a gallery.
    """
    scheme, separator, place = str(uri).partition("://")
    if not separator:
        return _open_lance(str(uri))
    if scheme not in OPENERS:
        known = ", ".join(f"{name}://" for name in sorted(OPENERS))
        raise StoreError(f"No gallery has the scheme {scheme!r}; expected a plain path or one of {known}.")
    return OPENERS[scheme](place)


def _open_lance(place: str) -> VectorStore:
    from regraft.retrieval.store.lance import LanceStore

    if not place:
        raise StoreError("The gallery's path is empty; expected a folder.")
    return LanceStore(place)


def _open_memory(place: str) -> VectorStore:
    if place:
        raise StoreError(f"A gallery in memory has no place; expected memory:// without {place!r}.")
    return MemoryStore()


OPENERS: dict[str, Callable[[str], VectorStore]] = {"lance": _open_lance, "memory": _open_memory}
