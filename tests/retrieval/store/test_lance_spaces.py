"""Processes that search a gallery while another changes its spaces, and changes that are killed."""

import random
import subprocess
import sys
import time
from pathlib import Path

import lancedb
from killed_rounds import NEW, OLD, play
from killing import content, follow, interrupted
from search_for_ever import answer

from regraft.retrieval.store.lance import LanceStore
from regraft.retrieval.store.memory import MemoryStore

NUM_KILLS = 8
NUM_CYCLES = 4
PATIENCE_S = 60
SEARCHER = Path(__file__).with_name("search_for_ever.py")


def no_row_is_torn(folder: Path) -> bool:
    table = lancedb.connect(folder).open_table("gallery").to_arrow()
    slots = [name for name in table.column_names if name.startswith("vector")]
    return all(table[slot].is_valid() == table[slot.replace("vector", "origin")].is_valid() for slot in slots)


def test_a_killed_writer_leaves_whole_calls(tmp_path: Path) -> None:
    """Puts, fills, switches, openings, closings and drops, each there whole or not at all."""
    folder, draw, expected, next_round = tmp_path / "gallery", random.Random(0), MemoryStore(), 0
    for _ in range(NUM_KILLS):
        last = interrupted(str(folder), next_round, draw, subprocess.Popen.kill)
        reopened = LanceStore(folder)
        next_round = follow(expected, reopened, next_round, last) + 1
        assert reopened.count() == 0 or no_row_is_torn(folder)
    for number in range(next_round, next_round + 10):
        play(reopened, number)
        play(expected, number)
    assert content(reopened) == content(expected)


def test_every_answer_is_that_of_one_state(tmp_path: Path) -> None:
    """Two processes search all the while, and find what a gallery in memory finds between two calls."""
    store, memory = LanceStore(tmp_path / "gallery"), MemoryStore()
    for number in range(3):
        play(store, number)
        play(memory, number)
    possible = {answer(memory, OLD)}
    logs = [tmp_path / "first", tmp_path / "second"]
    readers = [searching(store.path, log) for log in logs]
    try:
        for number in range(3, 10 * NUM_CYCLES):
            play(memory, number)
            served = OLD if memory.layout == OLD else NEW
            possible.add(answer(memory, served))
            play(store, number)
            if number % 10 in (3, 4, 7):  # the switches, and a fill of what is served
                for log in logs:
                    wait_for(log, answer(memory, served))
        assert all(reader.poll() is None for reader in readers)
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
    for log in logs:
        *answers, _ = log.read_text().split("\n")
        assert set(answers) <= possible
        assert len(answers) >= 3 * NUM_CYCLES - 1


def searching(gallery: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as written:
        return subprocess.Popen([sys.executable, str(SEARCHER), str(gallery)], stdout=written)


def wait_for(log: Path, last_answer: str) -> None:
    """Wait until a reader has given this answer, and none since."""
    since = time.monotonic()
    while not log.read_text().endswith(last_answer + "\n"):
        assert time.monotonic() < since + PATIENCE_S, "the reader does not see what was written"
        time.sleep(0.002)
