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
            that lasts as long as the process; `postgresql://user@host/database?gallery=name` for one in
            PostgreSQL; `qdrant://folder` for one in Qdrant's embedded engine, and
            `qdrant+http://host:6333/collection`, or `qdrant+https`, for one on a Qdrant server.

    Raises:
        StoreError: An unknown scheme, or a place that cannot be a gallery.
        MissingExtra: The packages for this kind of gallery are not installed.
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


def _open_postgresql(place: str) -> VectorStore:
    from regraft.retrieval.store.pgvector import PgVectorStore

    return PgVectorStore(f"postgresql://{place}")


def _open_qdrant_folder(place: str) -> VectorStore:
    from regraft.retrieval.store.qdrant import QdrantStore
    from regraft.retrieval.store.qdrant_edge import EdgeEngine

    if not place:
        raise StoreError("The gallery's path is empty; expected a folder.")
    return QdrantStore(EdgeEngine(place))


def _open_qdrant_server(url: str) -> VectorStore:
    from regraft.retrieval.store.qdrant import QdrantStore
    from regraft.retrieval.store.qdrant_server import ServerEngine

    return QdrantStore(ServerEngine.at(url))


OPENERS: dict[str, Callable[[str], VectorStore]] = {
    "lance": _open_lance,
    "memory": _open_memory,
    "postgresql": _open_postgresql,
    "qdrant": _open_qdrant_folder,
    "qdrant+http": lambda place: _open_qdrant_server(f"qdrant+http://{place}"),
    "qdrant+https": lambda place: _open_qdrant_server(f"qdrant+https://{place}"),
}
