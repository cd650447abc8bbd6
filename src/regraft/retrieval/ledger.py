"""The memory of one upgrade: its plan, its batches, what they cost, what could not be done.

An SQLite file in WAL mode, so that other processes can look at it and ask for a pause while one works. The
gallery is the truth about vectors; the ledger knows which items belong into one batch, which a gallery cannot
know and which decides the last bits of what a network or a matrix product computes.

Every commit waits for the disk (`synchronous=FULL`): there is one before a batch and one after it, which is
little beside encoding, and so neither a killed process nor a power failure makes a batch be laid out twice.
"""

import json
import os
import socket
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import cast, final

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Float32

from regraft.errors import RunError
from regraft.files import check_place
from regraft.retrieval.ledger_entries import (
    Batch,
    Done,
    Metric,
    Phase,
    Plan,
    Progress,
    Stage,
    Status,
    Worker,
)
from regraft.retrieval.ledger_file import check_format, connect, format_of, initialise, transaction
from regraft.retrieval.store.protocol import Layout

NOTHING_DONE = (0, 0, 0, 0, 0, 0, 0.0, 0.0)
WORKER_WAIT_S = 2.0  # longer than another process needs to find out whether anyone works


@final
class Ledger:
    """The ledger at `path`. One upgrade, one file: kept after its end, it is the upgrade's history.

    Not to be shared between threads, nor carried over a fork.

    Raises:
        RunError: There is none, or it is not one.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise RunError(f"{path} does not exist; expected the ledger of an upgrade.", hint="Plan one.")
        self.path = path
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        self._database = connect(path)
        try:
            check_format(self._database, path)
        except RunError:
            self.close()
            raise
        self.plan = _plan_from(self._fact("plan"))

    @classmethod
    def create(cls, path: Path, plan: Plan) -> "Ledger":
        """Make the ledger of a new upgrade. Done again with the same plan, it opens what is there.

        Raises:
            RunError: Another upgrade's ledger is there.
            PlaceError: Nothing can be written there.
        """
        check_place(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        written = json.dumps(asdict(plan), sort_keys=True)
        with closing(connect(path)) as database:
            initialise(database, {"plan": written, "phase": "planned", "paused": "no"})
        ledger = cls(path)
        if ledger.plan != plan:
            ledger.close()
            raise RunError(
                f"{path} is the ledger of another upgrade, from {ledger.plan.old_space!r} to "
                f"{ledger.plan.new.space!r}.",
                hint="Finish that one or roll it back, and keep a ledger for each upgrade.",
            )
        return ledger

    @classmethod
    def exists(cls, path: Path) -> bool:
        """Whether there is a ledger. A process may have died when it had made no more than the file.

        Raises:
            RunError: The file is of another kind, or of another release.
        """
        if not path.is_file():
            return False
        with closing(connect(path)) as database:
            return format_of(database) != 0

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    # Phases.

    @property
    def phase(self) -> Phase:
        """Where the upgrade is."""
        return cast(Phase, self._fact("phase"))

    def enter(self, phase: Phase) -> None:
        """Remember that the upgrade is in another phase."""
        self._set_fact("phase", phase)

    @property
    def order(self) -> str | None:
        """The order in which the backfill was laid out; `None` before."""
        found = self._one("SELECT value FROM facts WHERE name = 'order'")
        return None if found is None else cast(str, found[0])

    # Pausing, from any process.

    @property
    def paused(self) -> bool:
        """Whether whoever works is to stop after the batch in flight."""
        return self._fact("paused") == "yes"

    def pause(self) -> None:
        """Ask the worker to stop after the batch in flight, and keep others from starting one."""
        self._set_fact("paused", "yes")

    def resume(self) -> None:
        """Take the request back."""
        self._set_fact("paused", "no")

    # Working, one process at a time.

    @contextmanager
    def working(self) -> Generator[int]:
        """Be the one process that works on the upgrade until the block ends; yields the number of the run.

        The operating system frees the place of a process that dies.

        Raises:
            RunError: Another process has it.
        """
        try:
            self._lock.acquire(timeout=WORKER_WAIT_S)
        except Timeout:
            worker = self._last_worker()
            name = "another process" if worker is None else f"process {worker.process} on {worker.host}"
            raise RunError(
                f"{name} works on the upgrade in {self.path}; expected to be the only one.",
                hint="Pause it, or wait for it.",
            ) from None
        try:
            with transaction(self._database):
                now = (os.getpid(), socket.gethostname(), _now(), time.time(), _now())
                self._database.execute(
                    "INSERT INTO runs (process, host, since, began, seen) VALUES (?, ?, ?, ?, ?)", now
                )
            yield self.run
        finally:
            self._lock.release()

    @property
    def run(self) -> int:
        """Number of the last run, from 1; 0 before the first."""
        found = self._one("SELECT max(number) FROM runs")
        return cast(int, found[0]) if found is not None and found[0] is not None else 0

    @property
    def worker(self) -> Worker | None:
        """The process that works now; `None` if none does."""
        try:
            with FileLock(self._lock.lock_file, timeout=0):
                return None
        except Timeout:
            return self._last_worker()

    # Batches.

    def lay_out(self, stage: Stage, batches: Iterable[Sequence[str]], *, order: str | None = None) -> None:
        """Fix which items are computed together, all batches in one commit, to be done in this order."""
        with transaction(self._database):
            rows = ((stage, json.dumps(list(ids)), len(ids)) for ids in batches)
            self._database.executemany(
                "INSERT INTO batches (stage, ids, items, state) VALUES (?, ?, ?, 'waiting')", rows
            )
            if order is not None:
                self._database.execute("INSERT OR REPLACE INTO facts VALUES ('order', ?)", (order,))

    def num_batches(self, stage: Stage) -> int:
        """Batches of a stage that were ever laid out."""
        return self.progress(stage).batches_total

    def unfinished(self, stage: Stage) -> Iterator[Batch]:
        """The batches of a stage that are to be done, in order. Each is read when it is asked for."""
        number = 0
        query = (
            "SELECT number, ids, state FROM batches"
            " WHERE stage = ? AND state != 'done' AND number > ? ORDER BY number LIMIT 1"
        )
        while (row := self._one(query, stage, number)) is not None:
            number = cast(int, row[0])
            yield Batch(number, stage, json.loads(cast(str, row[1])), row[2] == "taken")

    def take(self, batch: Batch) -> None:
        """Remember that this run has begun a batch."""
        with transaction(self._database):
            taken = "UPDATE batches SET state = 'taken', run = ? WHERE number = ?"
            self._database.execute(taken, (self.run, batch.number))
            self._beat()

    def acknowledge(self, batch: Batch, done: Done) -> None:
        """Remember that a batch is done, what it cost, and what of it is gone; in one commit."""
        blob = None if done.uncertainty is None else done.uncertainty.astype("<f4").tobytes()
        costs = (
            self.run,
            time.time(),
            done.rows,
            done.bytes,
            done.compute_s,
            done.store_s,
            blob,
            batch.number,
        )
        with transaction(self._database):
            self._database.execute(
                "UPDATE batches SET state = 'done', run = ?, done_at = ?, rows = ?, bytes = ?, compute_s = ?,"
                " store_s = ?, uncertainty = ? WHERE number = ?",
                costs,
            )
            found = ((name,) for name in batch.ids if name not in done.gone)
            self._database.executemany("DELETE FROM gone WHERE id = ?", found)
            gone = ((name, reason, self.run) for name, reason in done.gone.items())
            self._database.executemany("INSERT OR REPLACE INTO gone VALUES (?, ?, ?)", gone)
            self._beat()

    def uncertainties(self) -> Iterator[tuple[list[str], Float32[np.ndarray, " n"]]]:
        """What the transformation said of its items, batch by batch as they were laid out."""
        query = "SELECT ids, uncertainty FROM batches WHERE stage = 'transform' AND uncertainty IS NOT NULL"
        for ids, blob in self._database.execute(f"{query} ORDER BY number"):
            yield json.loads(ids), np.frombuffer(blob, "<f4").astype(np.float32)

    # What can be told.

    def gone(self, *, run: int | None = None) -> dict[str, str]:
        """The items that could not be encoded when last tried, and why; of one run, if it is given."""
        query = "SELECT id, reason FROM gone WHERE ? IS NULL OR run = ? ORDER BY id"
        return dict(self._database.execute(query, (run, run)).fetchall())

    def found(self, ids: Iterable[str]) -> None:
        """Forget that these items could not be encoded."""
        with transaction(self._database):
            self._database.executemany("DELETE FROM gone WHERE id = ?", ((name,) for name in ids))

    def measure(self, name: str, value: float) -> None:
        """Remember a measurement at this point of the backfill."""
        done = self.progress("backfill").items_done
        with transaction(self._database):
            self._database.execute(
                "INSERT INTO metrics (name, value, items_done, at) VALUES (?, ?, ?, ?)",
                (name, value, done, _now()),
            )

    def metrics(self) -> list[Metric]:
        """Every measurement, oldest first."""
        return [
            Metric(*row)
            for row in self._database.execute(
                "SELECT name, value, items_done, at FROM metrics ORDER BY number"
            )
        ]

    def progress(self, stage: Stage) -> Progress:
        """How far a stage is."""
        found = self._one(
            "SELECT items_done, items, batches_done, batches, rows, bytes, compute_s, store_s FROM totals"
            " WHERE stage = ?",
            stage,
        )
        row = cast("tuple[int, int, int, int, int, int, float, float]", found or NOTHING_DONE)
        pace = self._seconds_an_item(stage)
        return Progress(stage, *row, None if pace is None else pace * (row[1] - row[0]))

    def status(self) -> Status:
        """Everything that a person wants to see."""
        stages: list[Stage] = ["transform", "backfill", "return"]
        begun: dict[Stage, Progress] = {
            stage: self.progress(stage) for stage in stages if self.num_batches(stage)
        }
        return Status(self.phase, self.paused, self.worker, begun, len(self.gone()), self.metrics())

    def _seconds_an_item(self, stage: Stage) -> float | None:
        row = self._one(
            "SELECT (done_at - began) / max(items, 1) FROM paces JOIN runs ON number = run"
            " WHERE stage = ? AND run = ?",
            stage,
            self.run,
        )
        return None if row is None else cast(float, row[0])

    def _last_worker(self) -> Worker | None:
        row = self._one("SELECT process, host, since, seen FROM runs ORDER BY number DESC LIMIT 1")
        return None if row is None else Worker(*cast("tuple[int, str, str, str]", row))

    def _beat(self) -> None:
        self._database.execute("UPDATE runs SET seen = ? WHERE number = ?", (_now(), self.run))

    def _fact(self, name: str) -> str:
        row = self._one("SELECT value FROM facts WHERE name = ?", name)
        assert row is not None
        return cast(str, row[0])

    def _set_fact(self, name: str, value: str) -> None:
        with transaction(self._database):
            self._database.execute("UPDATE facts SET value = ? WHERE name = ?", (value, name))

    def _one(self, query: str, *values: object) -> tuple[object, ...] | None:
        return self._database.execute(query, values).fetchone()


def _plan_from(written: str) -> Plan:
    values = json.loads(written)
    return Plan(**values | {"new": Layout(**values["new"])})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
