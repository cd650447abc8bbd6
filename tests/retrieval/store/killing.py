"""Killing a process that changes a gallery, and finding out what it had done."""

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from killed_rounds import SPACES, play

from regraft.retrieval.store.memory import MemoryStore
from regraft.retrieval.store.protocol import VectorStore

SCRIPT = Path(__file__).with_name("killed_rounds.py")


def interrupted(
    uri: str, first_round: int, draw: random.Random, kill: Callable[[subprocess.Popen], None]
) -> int:
    """Let a process make rounds, kill it or what it depends on, and return its last acknowledged round."""
    command = [sys.executable, str(SCRIPT), uri, str(first_round)]
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as writer,
    ):
        assert writer.stdout is not None
        # The first kills fall into the making of the gallery, the others anywhere.
        wanted = 1 + (draw.randint(1, 12) if first_round else 0)
        lines = [writer.stdout.readline() for _ in range(wanted)]
        time.sleep(draw.random() * (0.03 if first_round else 0.4))
        said.seek(0)
        assert writer.poll() is None, f"{lines}: {said.read()}"
        kill(writer)
        lines += writer.stdout.readlines()
    acknowledged = [int(line) for line in lines if line.endswith("\n") and line != "ready\n"]
    return max([first_round - 1, *acknowledged])


def follow(expected: MemoryStore, store: VectorStore, first_round: int, last_round: int) -> int:
    """Bring `expected` to the state of `store`, after `last_round` or the one begun then; return which."""
    for number in range(first_round, last_round + 1):
        play(expected, number)
    if content(store) == content(expected):
        return last_round
    play(expected, last_round + 1)
    assert content(store) == content(expected), f"neither round {last_round} nor the next"
    return last_round + 1


def content(store: VectorStore) -> list[object]:
    """Everything stored, whatever the order of the rows."""
    rows = [
        sorted(
            (name, vector.tobytes(), origin, source or "")
            for batch in store.scan(space=space)
            for name, vector, origin, source in zip(
                batch.ids, batch.vectors, batch.origins, batch.sources, strict=True
            )
        )
        for space in SPACES
    ]
    return [store.layout, store.spaces, rows]
