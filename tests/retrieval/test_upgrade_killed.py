"""Upgrades that are killed at any instant end like one that is left alone, and are right all the while.

`REGRAFT_NUM_KILLS` sets the number of kills at random instants on each store.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from killed_upgrade import UPGRADES, Reference, Seen, answer_in, check, check_answers, reference_of
from upgrade_toys import NEW, OLD

SCRIPT = Path(__file__).with_name("killed_upgrade.py")
STORES = ("lance", "pgvector", "qdrant-edge")
NUM_KILLS = 100
STEPS = {"transform", "switch", "backfill", "half", "roll_back", "finish"}


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def place(kind: str, tmp_path: Path) -> str:
    if kind == "pgvector":
        from pgvector_here import postgres_here

        return postgres_here().url("{}")
    if kind == "qdrant-edge":
        pytest.importorskip("qdrant_edge", reason="needs the extra qdrant")
    return str(tmp_path / "galleries")


def test_upgrades_survive_any_kill(kind: str, place: str, tmp_path: Path) -> None:
    num_kills = int(os.environ.get("REGRAFT_NUM_KILLS", NUM_KILLS))
    (tmp_path / "galleries").mkdir()
    command = [sys.executable, str(SCRIPT), kind, place, str(tmp_path), str(num_kills)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    print(report)
    assert sum(report["kills"].values()) >= num_kills
    assert {*report["kills"], *report["between_commits"]} == STEPS
    assert report["answers"] > report["upgrades"]


# Negative controls: what the checks must not let pass.


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return reference_of(UPGRADES["forward"], tmp_path_factory.mktemp("reference") / "forward")


def halfway(reference: Reference, num_batches: int, *, num_rows: int = 0) -> Seen:
    """A backfill after some batches, and some rows of the next."""
    done = reference.batches["backfill"][:num_batches]
    native = {name for ids in done for name in ids} | {*reference.batches["backfill"][num_batches][:num_rows]}
    before, after = reference.after["switch"], reference.after["backfill"]
    rows = {name: (after if name in native else before)[NEW][name] for name in before[NEW]}
    batches = {"transform": reference.batches["transform"], "backfill": done, "return": []}
    return Seen({NEW: rows, OLD: before[OLD]}, NEW, batches)


def test_checks_let_pass_what_is_whole(reference: Reference) -> None:
    check(halfway(reference, 0), "switch", "backfill", reference)
    check(halfway(reference, 4), "switch", "backfill", reference)


def test_a_torn_row_is_caught(reference: Reference) -> None:
    seen = halfway(reference, 4)
    name = reference.batches["backfill"][0][0]
    for torn in [("native", "switch"), ("transformed", "backfill")]:
        origin, step = torn
        vector, _, source = reference.after[step][NEW][name]
        seen.contents[NEW][name] = (vector, origin, source)
        with pytest.raises(AssertionError, match=name):
            check(seen, "switch", "backfill", reference)


def test_other_damage_is_caught(reference: Reference) -> None:
    torn_batch = halfway(reference, 4, num_rows=3)
    forgotten = halfway(reference, 4)
    forgotten.done["backfill"] = reference.batches["backfill"][:5]
    lost_row = halfway(reference, 4)
    del lost_row.contents[NEW][reference.batches["backfill"][6][0]]
    switched_back = halfway(reference, 4)
    switched_back.served = OLD
    for damaged in [torn_batch, forgotten, lost_row, switched_back]:
        with pytest.raises(AssertionError):
            check(damaged, "switch", "backfill", reference)


def test_wrong_answers_are_caught(reference: Reference, tmp_path: Path) -> None:
    right = [answer_in(*state) for state in reference.states]
    assert len(set(right)) > 10
    path = tmp_path / "answers"
    path.write_text("\n".join(right))
    assert check_answers(path, reference) == len(right)
    path.write_text("\n".join([*right[:5], right[0]]))  # back to the old space
    with pytest.raises(AssertionError, match="is wrong"):
        check_answers(path, reference)
    space, rows = reference.states[-1]
    mixed = dict(rows) | dict(list(reference.states[1][1].items())[::2])  # not a state of any instant
    path.write_text("\n".join([right[0], answer_in(space, mixed)]))
    with pytest.raises(AssertionError, match="is wrong"):
        check_answers(path, reference)
