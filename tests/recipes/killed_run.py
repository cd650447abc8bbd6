"""Kills `upgrade.run` at random instants; `test_upgrade_run_killed.py` runs it.

Usage: killed_run.py GALLERY NUM_KILLS. The gallery has an upgrade planned, which is run on copies of it: once
left alone, then again and again until there were enough kills, in two phases or more. Prints how many came in
each phase, as JSON. Each run is a process of its own, forked from this one, which has imported all it needs
and has opened nothing. After every kill another process reads the gallery.
"""

import json
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from regraft.recipes import upgrade
from regraft.recipes.place import place_of
from regraft.recipes.search import Searcher
from regraft.recipes.upgrade_plan import has_begun, read_plan
from regraft.retrieval.ledger import Ledger

MAX_ROUNDS, MIN_PHASES = 30, 2


def forked(action: Callable[[], object]) -> int:
    process = os.fork()
    if process == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    return process


def answer_of(action: Callable[[], Any]) -> Any:
    """What an action in a process of its own returns."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answer"
        process = forked(lambda: file.write_bytes(pickle.dumps(action())))
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
        return pickle.loads(file.read_bytes())


def look(gallery: Path) -> tuple[str, str]:
    """Check that the gallery is whole and answers in one space; return its phase and the space."""
    place = place_of(gallery)
    plan, store = read_plan(place), place.open()
    served = place.served(store).space
    assert served in (plan.old.space, plan.new.space)
    assert store.count(lacking=served) == 0
    phase = "planned"
    if has_begun(place):
        with Ledger(place.upgrade / "ledger.sqlite") as ledger:
            phase = ledger.phase
    rows = next(iter(store.scan(space=served)))
    answers = Searcher(gallery)([Path(str(rows.sources[0]))], 3)
    assert answers[0].space == served
    assert answers[0].hits[0].id == rows.ids[0] or served == plan.new.space
    return phase, served


def contents(gallery: Path) -> dict[str, tuple[bytes, str]]:
    """Every row of the served space."""
    store = place_of(gallery).open()
    return {
        name: (np.asarray(vector, np.float32).tobytes(), origin)
        for rows in store.scan()
        for name, vector, origin in zip(rows.ids, rows.vectors, rows.origins, strict=True)
    }


def run_once(gallery: Path, *, killed_after_s: float | None) -> bool:
    """Whether a run came to its end."""
    process = forked(lambda: upgrade.run(gallery, until=1.0))
    if killed_after_s is not None:
        end_s = time.monotonic() + killed_after_s
        while time.monotonic() < end_s:
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                assert os.waitstatus_to_exitcode(status) == 0
                return True
            time.sleep(0.001)
        os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code == 0


def upgrade_killed(gallery: Path, chance: random.Random, longest_s: float, kills: Counter[str]) -> None:
    """Run the upgrade of one copy to its end, killing it at random instants."""
    served: list[str] = []
    while not run_once(gallery, killed_after_s=chance.uniform(0, longest_s)):
        phase, space = answer_of(lambda: look(gallery))
        kills[phase] += 1
        served.append(space)
    assert len(set(served)) == 1 + sum(a != b for a, b in pairwise(served)) or not served, "it went back"


def main() -> None:
    planned, num_kills = Path(sys.argv[1]), int(sys.argv[2])
    alone = Path(shutil.copytree(planned, f"{planned}-alone"))
    started_s = time.monotonic()
    assert run_once(alone, killed_after_s=None)
    duration_s = time.monotonic() - started_s
    expected = answer_of(lambda: contents(alone))
    assert {origin for _, origin in expected.values()} == {"native"}
    chance, kills = random.Random(0), Counter[str]()
    for number in range(MAX_ROUNDS):
        copy = Path(shutil.copytree(planned, f"{planned}-{number}"))
        upgrade_killed(copy, chance, duration_s, kills)
        assert answer_of(lambda copy=copy: contents(copy)) == expected
        if kills.total() >= num_kills and len(kills) >= MIN_PHASES:
            break
    print(json.dumps(kills))


if __name__ == "__main__":
    main()
