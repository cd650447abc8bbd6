"""Neither a killed client nor a killed server loses anything acknowledged, or leaves a part of a call."""

import random
import subprocess
from pathlib import Path

import pytest
from killed_rounds import play
from killing import content, follow, interrupted
from pgvector_here import PostgresHere, url_of

from regraft.errors import StoreError
from regraft.retrieval.store.memory import MemoryStore
from regraft.retrieval.store.pgvector import PgVectorStore

NUM_KILLS = 8
NUM_SERVER_KILLS = 3


@pytest.fixture(scope="module")
def server() -> PostgresHere:
    """A server of its own, for its death must not trouble other tests."""
    return PostgresHere()


def test_a_killed_client_leaves_whole_calls(tmp_path: Path) -> None:
    url, draw, expected, next_round = url_of(tmp_path), random.Random(0), MemoryStore(), 0
    reopened = PgVectorStore(url)
    for _ in range(NUM_KILLS):
        last = interrupted(url, next_round, draw, subprocess.Popen.kill)
        next_round = follow(expected, reopened, next_round, last) + 1
    for number in range(next_round, next_round + 10):
        play(reopened, number)
        play(expected, number)
    assert content(reopened) == content(expected)


def test_a_killed_server_loses_nothing_acknowledged(server: PostgresHere) -> None:
    url, draw, expected, next_round = server.url("killed"), random.Random(0), MemoryStore(), 0
    store = PgVectorStore(url)
    for _ in range(NUM_SERVER_KILLS):
        last = interrupted(url, next_round, draw, lambda writer: server.kill())
        with pytest.raises(StoreError, match="'killed' in postgres@"):
            store.count()
        server.restart()
        # The same object goes on: it finds its old connection broken, and makes another.
        next_round = follow(expected, store, next_round, last) + 1
    play(store, next_round)
    play(expected, next_round)
    assert content(store) == content(expected)
