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

NUM_KILLS = 8
# What LanceDB writes for one commit, in this order; `_deletions` marks the rows that were replaced.
STAGES = ["data", "_transactions", "_versions", "_deletions"]
SCRIPT = Path(__file__).with_name("killed_writer.py")
_spec = importlib.util.spec_from_file_location("killed_writer", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
killed_writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(killed_writer)


def num_files(folder: Path) -> int:
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def kill_a_writer(gallery: Path, first_round: int, *, stage: str, num_new: int) -> int:
    """Run a writer, kill it when it has made so many files of a stage; return its last acknowledged round."""
    folder = gallery / "gallery.lance" / stage
    wanted = num_files(folder) + num_new
    command = [sys.executable, str(SCRIPT), str(gallery), str(first_round)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        while num_files(folder) < wanted and writer.poll() is None:
            time.sleep(0.0005)  # a stage takes a few times as long
        assert writer.poll() is None
        writer.kill()
        acknowledged = [int(line) for line in writer.stdout.read().split()]
    return max([first_round - 1, *acknowledged])


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
        # The first kills fall into the making of the gallery.
        last = kill_a_writer(
            tmp_path,
            next_round,
            stage=STAGES[kill % len(STAGES)],
            num_new=1 if kill < 3 else draw.randint(1, 3),
        )
        for number in range(next_round, last + 1):
            killed_writer.put_round(expected, number)
        reopened = LanceStore(tmp_path)
        if reopened.count() != expected.count():
            last += 1  # the round in flight had been committed, but not yet acknowledged
            killed_writer.put_round(expected, last)
        assert content(reopened) == content(expected)
        assert reopened.count() == expected.count()
        next_round = last + 1
    assert reopened.layout == expected.layout
    killed_writer.put_round(reopened, next_round)
    assert reopened.count() == expected.count() + 4
