"""A writer killed at any instant loses nothing that its puts had returned for."""

import importlib.util
import random
import subprocess
import sys
import time
from pathlib import Path

from regraft.retrieval.store.lance import LanceStore
from regraft.retrieval.store.memory import MemoryStore
from regraft.retrieval.store.protocol import VectorStore

NUM_KILLS = 10
SCRIPT = Path(__file__).with_name("killed_writer.py")
_spec = importlib.util.spec_from_file_location("killed_writer", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
killed_writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(killed_writer)


def kill_a_writer(gallery: Path, first_round: int, *, after_rounds: int, delay_s: float) -> int:
    """Run a writer, kill it `delay_s` after some acknowledgements, and return the last one it gave."""
    command = [sys.executable, str(SCRIPT), str(gallery), str(first_round)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        for _ in range(after_rounds):
            writer.stdout.readline()
        time.sleep(delay_s)
        writer.kill()
        acknowledged = [int(line) for line in writer.stdout.read().split()]
    return max([first_round + after_rounds - 1, *acknowledged])


def content(store: VectorStore) -> dict[str, tuple[list[float], str | None]]:
    return {
        name: (vector.tolist(), source)
        for batch in store.scan()
        for name, vector, source in zip(batch.ids, batch.vectors, batch.sources, strict=True)
    }


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """The gallery equals one in memory after the last acknowledged round, or after the one begun, whole."""
    draw = random.Random(0)
    expected, next_round = MemoryStore(), 0
    for kill in range(NUM_KILLS):
        after_rounds = draw.randrange(4) if kill else 0  # the first kill falls into the making of the gallery
        last = kill_a_writer(
            tmp_path / "gallery", next_round, after_rounds=after_rounds, delay_s=draw.uniform(0, 0.02)
        )
        for number in range(next_round, last + 1):
            killed_writer.put_round(expected, number)
        reopened = LanceStore(tmp_path / "gallery")
        if reopened.count() != expected.count():
            last += 1  # the round in flight had been committed, but not yet acknowledged
            killed_writer.put_round(expected, last)
        assert content(reopened) == content(expected)
        assert reopened.count() == expected.count()
        next_round = last + 1
    assert next_round > 0
    assert reopened.layout == expected.layout
    killed_writer.put_round(reopened, next_round)
    assert reopened.count() == expected.count() + 4
