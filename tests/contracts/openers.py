"""Every gallery that is held to the contract, opened in a folder. Opened twice, it is the same gallery."""

from collections.abc import Callable
from pathlib import Path

from pgvector_here import url_of

from regraft.retrieval.store.lance import LanceStore
from regraft.retrieval.store.memory import MemoryStore
from regraft.retrieval.store.pgvector import PgVectorStore
from regraft.retrieval.store.protocol import VectorStore
from regraft.retrieval.store.qdrant import QdrantStore
from regraft.retrieval.store.qdrant_edge import EdgeEngine


class IndexedOnce(LanceStore):
    """Its index knows only the first put: every later row must be found without it."""

    def put(self, ids, vectors, **columns) -> int:
        is_first = self.layout is None
        written = super().put(ids, vectors, **columns)
        if is_first and written:
            self.index(num_partitions=1)
        return written


class IndexedAnew(LanceStore):
    """Its index is rebuilt after every put, and after every switch."""

    def put(self, ids, vectors, **columns) -> int:
        written = super().put(ids, vectors, **columns)
        if written:
            self.index(num_partitions=2)
        return written

    def serve(self, space: str) -> None:
        super().serve(space)
        if self.count():
            self.index(num_partitions=2)


class PgVectorIndexed(PgVectorStore):
    """Every space that is served has an index, which takes in later rows by itself."""

    def put(self, ids, vectors, **columns) -> int:
        is_first = self.layout is None
        written = super().put(ids, vectors, **columns)
        if is_first and written:
            self.index()
        return written

    def serve(self, space: str) -> None:
        super().serve(space)
        self.index()


LASTING: dict[str, Callable[[Path], VectorStore]] = {
    "lance": lambda folder: LanceStore(folder / "gallery"),
    "lance-indexed-once": lambda folder: IndexedOnce(folder / "gallery"),
    "lance-indexed-anew": lambda folder: IndexedAnew(folder / "gallery"),
    "pgvector": lambda folder: PgVectorStore(url_of(folder)),
    "pgvector-indexed": lambda folder: PgVectorIndexed(url_of(folder)),
    "qdrant-edge": lambda folder: QdrantStore(EdgeEngine(folder / "gallery")),
}
"""Those that outlive their process."""

OPENERS: dict[str, Callable[[Path], VectorStore]] = {"memory": lambda folder: MemoryStore(), **LASTING}
