"""Random calls, with scans left open and fills of what was seen, answered as in memory."""

from collections.abc import Callable
from pathlib import Path

import pytest
from calls import replay
from pgvector_here import url_of
from qdrant_client import QdrantClient

from regraft.retrieval.store.memory import MemoryStore
from regraft.retrieval.store.pgvector import PgVectorStore
from regraft.retrieval.store.protocol import VectorStore
from regraft.retrieval.store.qdrant import QdrantStore
from regraft.retrieval.store.qdrant_edge import EdgeEngine
from regraft.retrieval.store.qdrant_server import ServerEngine


def on_client_alone(folder: Path) -> VectorStore:
    """The code for a server, on the client's own stand-in for one, which keeps to the same interface."""
    return QdrantStore(ServerEngine(QdrantClient(":memory:"), "gallery", place=":memory:"))


STORES: dict[str, Callable[[Path], VectorStore]] = {
    "pgvector": lambda folder: PgVectorStore(url_of(folder)),
    "qdrant-edge": lambda folder: QdrantStore(EdgeEngine(folder / "gallery")),
    "qdrant-client": on_client_alone,
}


# The stand-in has no indexes, and says so.
@pytest.mark.filterwarnings("ignore:Payload indexes have no effect", "ignore:Local mode performs exact")
@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("seed", [6, 11])
def test_answers_as_memory_does(name: str, seed: int, tmp_path: Path) -> None:
    """Equal to the bit: vectors, scores, and what is refused."""
    answers = replay(STORES[name](tmp_path), seed, 60), replay(MemoryStore(), seed, 60)
    for number, (mine, theirs) in enumerate(zip(*answers, strict=True)):
        assert mine == theirs, f"answer {number}"


def test_other_calls_are_answered_otherwise() -> None:
    assert list(replay(MemoryStore(), 6, 60)) != list(replay(MemoryStore(), 11, 60))
