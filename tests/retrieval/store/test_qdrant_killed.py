"""A process killed at any instant loses nothing that its calls had returned for, and tears no row."""

import random
import subprocess
from pathlib import Path

import pytest
from killed_rounds import NEW, play, vectors
from killing import content, follow, interrupted

from regraft.retrieval.store.memory import MemoryStore
from regraft.retrieval.store.qdrant import QdrantStore
from regraft.retrieval.store.qdrant_edge import EdgeEngine

NUM_KILLS = 10


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """The gallery equals one in memory after the last acknowledged round, or after the one begun, whole."""
    draw, expected, next_round = random.Random(0), MemoryStore(), 0
    for _ in range(NUM_KILLS):
        last = interrupted(f"qdrant://{tmp_path / 'g'}", next_round, draw, subprocess.Popen.kill)
        reopened = QdrantStore(EdgeEngine(tmp_path / "g"))
        next_round = follow(expected, reopened, next_round, last) + 1
        reopened.close()
    for number in range(next_round, next_round + 10):
        play(reopened, number)
        play(expected, number)
    assert content(reopened) == content(expected)


def test_a_torn_row_would_be_seen() -> None:
    stores = MemoryStore(), MemoryStore()
    for store in stores:
        for number in range(3):
            play(store, number)
    torn, expected = stores
    play(expected, 3)
    assert follow(expected, expected, 4, 3) == 3
    torn.fill(["shared-7"], vectors(NEW, ["shared-7"], 4), space=NEW.space, origin="transformed")
    with pytest.raises(AssertionError, match="neither round 2 nor the next"):
        follow(MemoryStore(), torn, 0, 2)
