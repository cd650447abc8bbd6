"""Kills `upgrade.run` at random instants; `test_upgrade_run_killed.py` runs it.

Usage: killed_run.py GALLERY NUM_KILLS. The gallery has an upgrade planned. Prints the number of kills in a
phase as JSON. Each run is a process of its own, forked from this one, which has imported everything and has
opened nothing. After every kill another process reads the gallery.
"""

import json
import os
import pickle
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from regraft.recipes import upgrade
from regraft.recipes.place import place_of
from regraft.recipes.search import Searcher
from regraft.recipes.upgrade_plan import has_begun, read_plan
from regraft.retrieval.ledger import Ledger

LONGER_S = 0.15
"""Every run is left alone for a little longer than the one before, so that kills come in every phase."""


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


def main() -> None:
    gallery, num_kills = Path(sys.argv[1]), int(sys.argv[2])
    chance = random.Random(0)
    kills: Counter[str] = Counter()
    served: list[str] = []
    while kills.total() < num_kills and not run_once(
        gallery, killed_after_s=chance.uniform(0, LONGER_S * (1 + kills.total()))
    ):
        phase, space = answer_of(lambda: look(gallery))
        kills[phase] += 1
        served.append(space)
    assert run_once(gallery, killed_after_s=None)
    spaces = list(dict.fromkeys(served))
    assert served == sorted(served, key=spaces.index), "it never goes back"
    rows = answer_of(lambda: contents(gallery))
    Path(f"{gallery}.rows").write_bytes(pickle.dumps(rows))
    print(json.dumps(kills))


if __name__ == "__main__":
    main()
