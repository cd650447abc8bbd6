import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from regraft.errors import PlaceError, RunError
from regraft.retrieval.ledger import Ledger
from regraft.retrieval.ledger_entries import Done, Plan
from regraft.retrieval.store.protocol import Layout

PLAN = Plan(old_space="old", new=Layout("new", 8), facts={"stop": 0.25, "orders": ["sigma"]})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.create(tmp_path / "upgrade" / "ledger.sqlite", PLAN)


def numbers(ledger: Ledger) -> list[int]:
    return [batch.number for batch in ledger.unfinished("backfill")]


def test_it_is_made_once(ledger: Ledger) -> None:
    ledger.enter("transforming")
    again = Ledger.create(ledger.path, PLAN)
    assert (again.plan, again.phase) == (PLAN, "transforming")
    with pytest.raises(RunError, match="another upgrade"):
        Ledger.create(ledger.path, Plan(old_space="old", new=Layout("newer", 8)))


def test_what_is_no_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        Ledger(tmp_path / "none.sqlite")
    (tmp_path / "text").write_text(
        "This is not a database, and it is long enough to be seen not to be one. " * 20
    )
    with pytest.raises(RunError, match="cannot be opened"):
        Ledger(tmp_path / "text")
    (tmp_path / "empty").touch()
    with pytest.raises(RunError, match="holds no upgrade"):
        Ledger(tmp_path / "empty")
    with pytest.raises(PlaceError):
        Ledger.create(tmp_path, PLAN)
    later = Ledger.create(tmp_path / "later", PLAN)
    later.close()
    with sqlite3.connect(tmp_path / "later") as database:
        database.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(RunError, match="format 7"):
        Ledger(tmp_path / "later")


def test_a_file_that_a_kill_left_empty_becomes_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").touch()
    assert Ledger.create(tmp_path / "ledger.sqlite", PLAN).phase == "planned"


def test_batches_keep_their_composition_and_order(ledger: Ledger) -> None:
    ledger.lay_out("backfill", [["b", "a"], ["d", "c"], ["e"]], order="sigma")
    with ledger.working():
        first = next(ledger.unfinished("backfill"))
        ledger.take(first)
        assert [batch.taken_before for batch in ledger.unfinished("backfill")] == [True, False, False]
        ledger.acknowledge(first, Done(rows=2, bytes=64, compute_s=1.0, store_s=0.5))
    reopened = Ledger(ledger.path)
    assert [batch.ids for batch in reopened.unfinished("backfill")] == [["d", "c"], ["e"]]
    assert list(reopened.unfinished("transform")) == []
    assert reopened.order == "sigma"
    progress = reopened.progress("backfill")
    assert (progress.items_done, progress.items_total) == (2, 5)
    assert (progress.batches_done, progress.batches_total) == (1, 3)
    assert (progress.rows_written, progress.bytes_written) == (2, 64)
    assert (progress.compute_s, progress.store_s) == (1.0, 0.5)
    assert progress.eta_s is not None
    assert progress.eta_s >= 0


def test_laying_out_is_all_or_nothing(ledger: Ledger) -> None:
    def broken():
        yield ["a"]
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        ledger.lay_out("backfill", broken(), order="sigma")
    assert ledger.num_batches("backfill") == 0
    assert ledger.order is None


def test_uncertainty_comes_back_to_the_bit(ledger: Ledger) -> None:
    values = np.array([0.1, np.nan, -3e-20], np.float32)
    ledger.lay_out("transform", [["a", "b", "c"], ["d"]])
    with ledger.working():
        for batch, uncertainty in zip(ledger.unfinished("transform"), [values, None], strict=True):
            ledger.take(batch)
            ledger.acknowledge(batch, Done(uncertainty=uncertainty))
    ((ids, found),) = ledger.uncertainties()
    assert ids == ["a", "b", "c"]
    assert found.tobytes() == values.tobytes()


def test_gone_items_are_listed_until_they_are_found(ledger: Ledger) -> None:
    for gone in [{"b": "deleted", "c": "unreadable"}, {"c": "still unreadable"}]:
        ledger.lay_out("backfill", [["a", "b", "c"]])
        with ledger.working() as run:
            batch = next(ledger.unfinished("backfill"))
            ledger.take(batch)
            ledger.acknowledge(batch, Done(gone=gone))
            assert ledger.gone() == ledger.gone(run=run) == gone
    ledger.found(["c", "nobody"])
    assert ledger.gone() == {}


def test_metrics_know_how_far_the_backfill_was(ledger: Ledger) -> None:
    ledger.lay_out("backfill", [["a", "b"]])
    ledger.measure("map", 0.5)
    with ledger.working():
        batch = next(ledger.unfinished("backfill"))
        ledger.take(batch)
        ledger.acknowledge(batch, Done())
    ledger.measure("map", 0.75)
    assert [(row.name, row.value, row.items_done) for row in ledger.metrics()] == [
        ("map", 0.5, 0),
        ("map", 0.75, 2),
    ]


HOLDER = """
import sys, time
from pathlib import Path
from regraft.retrieval.ledger import Ledger
with Ledger(Path(sys.argv[1])).working():
    print("working", flush=True)
    time.sleep(600)
"""


def test_one_process_works_and_others_look_and_ask_it_to_pause(ledger: Ledger) -> None:
    assert ledger.worker is None
    command = [sys.executable, "-c", HOLDER, str(ledger.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "working\n"
        worker = ledger.status().worker
        assert worker is not None
        assert worker.process == holder.pid
        with pytest.raises(RunError, match=f"process {holder.pid}"), ledger.working():
            pass
        ledger.pause()
        assert ledger.status().paused
        holder.kill()
    # The system has freed the place.
    assert ledger.worker is None
    with ledger.working() as run:
        assert run == 2
        assert ledger.worker is not None
        assert ledger.worker.process == os.getpid()
    ledger.resume()
    assert not ledger.paused


COMMITTER = """
import sys
from pathlib import Path
from regraft.retrieval.ledger import Ledger
from regraft.retrieval.ledger_entries import Done
ledger = Ledger(Path(sys.argv[1]))
with ledger.working():
    for batch in ledger.unfinished("backfill"):
        ledger.take(batch)
        ledger.acknowledge(batch, Done(rows=len(batch.ids)))
        print(batch.number, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(ledger: Ledger) -> None:
    ledger.lay_out("backfill", [[f"{number}"] for number in range(20_000)])
    last = 0
    for _ in range(3):
        command = [sys.executable, "-c", COMMITTER, str(ledger.path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as committer:
            assert committer.stdout is not None
            assert int(committer.stdout.readline()) > last
            time.sleep(0.05)
            assert committer.poll() is None
            committer.kill()
            last = int(committer.stdout.read().split()[-1])
        assert committer.returncode == -signal.SIGKILL
        left = numbers(Ledger(ledger.path))
        assert left[0] in (last + 1, last + 2)  # the one in flight was committed, or was not
        assert left == list(range(left[0], 20_001))
        last = left[0] - 1
