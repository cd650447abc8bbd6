"""Upgrades galleries in processes that it kills; `test_upgrade_killed.py` runs it.

Usage: killed_upgrade.py STORE PLACE FOLDER NUM_KILLS. PLACE is where galleries can be made: a folder, or the
address of a server with `{}` for a gallery's name. Prints the number of kills of each step as JSON.

Two upgrades are made again and again until there were enough kills: one to its end, one that is rolled back
half-way. Each step runs in a process of its own, forked from this one, which has imported everything and
opened nothing; it is killed from outside at a random instant, or kills itself between two commits, and is
started again until it gets through. After every kill another process reads the whole gallery, and a further
one has been searching it all the time. What they see is compared with an upgrade in memory.
"""

import json
import os
import pickle
import random
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from upgrade_toys import (
    NEW,
    NEW_DIMENSION,
    OLD,
    OLD_DIMENSION,
    PLAN,
    Toy,
    contents,
    fill_gallery,
    new_model,
    transform,
)

from regraft.errors import SpaceMismatch
from regraft.retrieval import ledger as ledger_module
from regraft.retrieval.backfill import backfill_rows
from regraft.retrieval.batches import Budget
from regraft.retrieval.ledger import Ledger
from regraft.retrieval.store.cosine import best, cosines
from regraft.retrieval.store.memory import MemoryStore
from regraft.retrieval.store.protocol import VectorStore
from regraft.retrieval.upgrade import finish, roll_back, switch, transform_rows

NUM_ITEMS, NUM_ADDED = 80, 12
ADDED = [f"added-{number}" for number in range(NUM_ADDED)]
K, NUM_QUERIES = 10, 12
QUERIES = {
    space: np.random.default_rng(9).standard_normal((NUM_QUERIES, dimension)).astype(np.float32)
    for space, dimension in [(OLD, OLD_DIMENSION), (NEW, NEW_DIMENSION)]
}
ENCODING_S = 0.003
UPGRADES = {
    "forward": ["transform", "switch", "backfill", "finish"],
    "back": ["transform", "switch", "half", "add", "roll_back"],
}
# Of the time that a step takes when left alone: kills come before, so that a long step is killed often.
KILLED_WITHIN = {
    "transform": 0.7,
    "switch": 1.3,
    "backfill": 0.5,
    "half": 0.7,
    "roll_back": 1.0,
    "finish": 1.3,
}

Contents = dict[str, dict[str, tuple[bytes, str, str | None]]]


@dataclass
class Place:
    """Where one upgrade happens."""

    open: Callable[[], VectorStore]
    folder: Path
    """Of the ledger and the logs."""
    reads_inside: bool
    """Only the process that writes can read: its searches come from a thread."""

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.sqlite"

    @property
    def answers(self) -> Path:
        return self.folder / "answers"

    def encoded(self) -> list[str]:
        """Ids in the order in which they were encoded, a model's name before each."""
        path = self.folder / "encoded"
        return path.read_text().split() if path.exists() else []


def do(step: str, store: VectorStore, place: Place) -> None:
    """One step of an upgrade, to its end."""

    def encoder(space: str, dimension: int) -> Callable[..., Any]:
        toy = Toy(space, dimension, log=place.folder / "encoded")

        def encode(ids: Any, sources: Any) -> Any:
            time.sleep(ENCODING_S)
            return toy(ids, sources)

        return encode

    with Ledger.create(place.ledger, PLAN) as ledger:
        match step:
            case "transform":
                transform_rows(store, ledger, transform, batch_rows=16)
            case "switch":
                switch(store, ledger, transform, batch_rows=16)
            case "backfill":
                backfill_rows(store, ledger, encoder(NEW, NEW_DIMENSION), batch_items=8)
            case "half":
                backfill_rows(
                    store, ledger, encoder(NEW, NEW_DIMENSION), batch_items=8, budget=Budget(share=0.5)
                )
            case "add":
                sources = [f"late/{name}" for name in ADDED]
                store.put(ADDED, new_model(ADDED, sources).vectors, space=NEW, sources=sources)
            case "roll_back":
                roll_back(store, ledger, encoder(OLD, OLD_DIMENSION), batch_items=4)
            case "finish":
                finish(store, ledger)
            case _:
                raise AssertionError(step)


# What an upgrade that nothing interrupts looks like.


@dataclass
class Reference:
    """A gallery in memory before and after every step, and whatever a search can find on the way."""

    after: dict[str, Contents] = field(default_factory=dict)
    states: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    """The served space and its vectors, in the order in which they follow each other."""
    batches: dict[str, list[list[str]]] = field(default_factory=dict)
    """By stage."""


class Watched(MemoryStore):
    """Notes what it serves after every change."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[tuple[str, dict[str, bytes]]] = []

    def note(self) -> None:
        assert self.layout is not None
        rows = contents(self)[self.layout.space]
        state = (self.layout.space, {name: vector for name, (vector, _, _) in rows.items()})
        if not self.states or self.states[-1] != state:
            self.states.append(state)

    def put(self, *args: Any, **options: Any) -> int:
        number = super().put(*args, **options)
        self.note()
        return number

    def fill(self, *args: Any, **options: Any) -> int:
        number = super().fill(*args, **options)
        self.note()
        return number

    def serve(self, space: str) -> None:
        super().serve(space)
        self.note()


def reference_of(steps: list[str], folder: Path) -> Reference:
    folder.mkdir()
    store = Watched()
    fill_gallery(store, NUM_ITEMS)
    reference = Reference({"fill": contents(store)})
    for step in steps:
        do(step, store, Place(lambda: store, folder, False))
        reference.after[step] = contents(store)
    reference.states = store.states
    with Ledger(folder / "ledger.sqlite") as ledger:
        reference.batches = all_batches(ledger)
    return reference


def all_batches(ledger: Ledger, *, state: str = "done") -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {"transform": [], "backfill": [], "return": []}
    query = "SELECT stage, ids FROM batches WHERE state = ? ORDER BY number"
    for stage, ids in ledger._database.execute(query, (state,)):
        found[stage].append(json.loads(ids))
    return found


# Processes.


def forked(action: Callable[[], object]) -> int:
    """Start a process that does this and nothing else."""
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


def ended_within(process: int, seconds: float) -> int | None:
    """How a process ended; `None` if it goes on."""
    end_s = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end_s:
            return None
        time.sleep(0.0005)


def through(action: Callable[[], object], *, limit_s: float = 120) -> float:
    """Let a process do this to its end; return the seconds that it took."""
    start_s = time.monotonic()
    code = ended_within(forked(action), limit_s)
    assert code == 0, f"ended with {code}"
    return time.monotonic() - start_s


@contextmanager
def dying_after(num_commits: int) -> Iterator[Callable[[VectorStore], VectorStore]]:
    """Kill this process right before or after one of its next commits, of the store or of the ledger."""
    left = num_commits

    def boundary() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    commit = ledger_module.transaction

    @contextmanager
    def transaction(database: Any) -> Iterator[None]:
        boundary()
        with commit(database):
            yield
        boundary()

    class Mortal:
        def __init__(self, store: VectorStore) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            found = getattr(self._store, name)
            if name not in ("fill", "serve", "open_space", "close_space"):
                return found

            def call(*args: Any, **options: Any) -> Any:
                boundary()
                answer = found(*args, **options)
                boundary()
                return answer

            return call

    ledger_module.transaction = transaction
    yield Mortal  # type: ignore[misc]  # its verbs are the inner store's, found by name


def work(step: str, place: Place, *, num_commits: int | None) -> None:
    store = place.open()
    if place.reads_inside:
        threading.Thread(target=search_for_ever, args=(store, place), daemon=True).start()
    if num_commits is None:
        do(step, store, place)
        return
    with dying_after(num_commits) as mortal:
        do(step, mortal(store), place)


# What is seen from outside.


def search_for_ever(store: VectorStore, place: Place) -> None:
    """Note every answer that is another than the one before."""
    answers = os.open(place.answers, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    before = b""
    while True:
        layout = store.layout
        assert layout is not None
        try:
            hits = store.search(QUERIES[layout.space], K, space=layout.space)
        except SpaceMismatch:
            continue  # switched between the two calls: refused, as it must be
        answer = json.dumps([layout.space, hits.ids]).encode() + b"\n"
        if answer != before:
            os.write(answers, answer)
        before = answer
        time.sleep(0.03)


@dataclass
class Seen:
    """A gallery and its ledger at rest."""

    contents: Contents
    served: str
    done: dict[str, list[list[str]]]


def look(place: Place) -> Seen:
    """Let a process of its own read everything."""
    file = place.folder / "seen"

    def read() -> None:
        store = place.open()
        done: dict[str, list[list[str]]] = {"transform": [], "backfill": [], "return": []}
        if place.ledger.exists() and place.ledger.stat().st_size:
            with Ledger.create(place.ledger, PLAN) as ledger:
                done = all_batches(ledger)
        assert store.layout is not None
        file.write_bytes(pickle.dumps(Seen(contents(store), store.layout.space, done)))

    through(read)
    return pickle.loads(file.read_bytes())


def check(seen: Seen, before: str, step: str, reference: Reference) -> None:
    """A gallery whose `step` was killed is between what it was before the step and what it is to be after."""
    old, new = reference.after[before], reference.after[step]
    for space, rows in seen.contents.items():
        # Whole vectors with their own origins, in every row. A space that is to be closed is there whole.
        possible = [old.get(space, {}), new.get(space, old.get(space, {}))]
        assert rows.keys() <= possible[0].keys() | possible[1].keys()
        for name in possible[0].keys() | possible[1].keys():
            assert rows.get(name) in [state.get(name) for state in possible], (space, name)
    assert {*old} & {*new} <= seen.contents.keys() <= {*old} | {*new}
    # What is served, the first of the spaces, is complete.
    assert seen.served in [next(iter(old)), next(iter(new))]
    assert seen.contents[seen.served].keys() == old[next(iter(old))].keys()
    # Batches are there whole or not at all, and those that the ledger calls done are there.
    made = {stage: having(seen.contents, stage) for stage in seen.done}
    for stage, batches in reference.batches.items():
        if stage_space(stage) in seen.contents:
            assert all(len(made[stage].intersection(ids)) in (0, len(ids)) for ids in batches), stage
            assert made[stage] >= set().union(*seen.done[stage]), stage
        for ids in seen.done[stage]:
            assert ids in batches


def stage_space(stage: str) -> str:
    return OLD if stage == "return" else NEW


def having(rows: Contents, stage: str) -> set[str]:
    """The ids that a stage has dealt with."""
    native_only = stage == "backfill"
    return {
        name
        for name, (_, origin, _) in rows.get(stage_space(stage), {}).items()
        if not native_only or origin == "native"
    }


def answer_in(space: str, rows: dict[str, bytes]) -> str:
    """What a search finds among these vectors."""
    ids = sorted(rows)
    vectors = np.array([np.frombuffer(rows[name], np.float32) for name in ids])
    return json.dumps([space, [best(ids, scores, K)[0] for scores in cosines(QUERIES[space], vectors)]])


def check_answers(path: Path, reference: Reference) -> int:
    """Each answer is right for a state of the gallery, and these follow each other as they should."""
    right: dict[str, list[int]] = {}
    for number, state in enumerate(reference.states):
        right.setdefault(answer_in(*state), []).append(number)
    reached = 0
    answers = path.read_text().splitlines()
    for answer in answers:
        later = [number for number in right.get(answer, []) if number >= reached]
        assert later, f"after state {reached} of {len(reference.states)}: {answer[:80]} is wrong"
        reached = later[0]
    return len(answers)


# The upgrades.


@dataclass
class Killer:
    """Kills steps, and counts."""

    draw: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    between: Counter[str] = field(default_factory=Counter)
    duration_s: dict[str, float] = field(default_factory=dict)
    num_answers: int = 0

    def run(self, steps: list[str], place: Place, reference: Reference, *, killing: bool) -> None:
        place.folder.mkdir()
        through(lambda: fill_gallery(place.open(), NUM_ITEMS))
        reader = None
        if not place.reads_inside:
            reader = forked(lambda: search_for_ever(place.open(), place))
        before = "fill"
        for step in steps:
            start_s = time.monotonic()
            if killing and step != "add":
                self.get_through(step, before, place, reference)
            else:
                through(lambda step=step: work(step, place, num_commits=None))
            self.duration_s.setdefault(step, time.monotonic() - start_s)
            before = step
        if reader is not None:
            time.sleep(0.05)
            assert ended_within(reader, 0) is None, "the reader failed"
            os.kill(reader, signal.SIGKILL)
            os.waitpid(reader, 0)
        assert look(place).contents == reference.after[steps[-1]]
        self.num_answers += check_answers(place.answers, reference)

    def get_through(self, step: str, before: str, place: Place, reference: Reference) -> None:
        """Start a step until it ends by itself, and kill it before that as often as it can be killed."""
        known: dict[str, set[str]] = {"backfill": set(), "return": set()}
        num_logged = len(place.encoded())
        while True:
            inside = self.draw.random() < 0.25
            num_commits = self.draw.randrange(6) if inside else None
            process = forked(lambda n=num_commits: work(step, place, num_commits=n))
            delay_s = 120 if inside else self.draw.uniform(0, KILLED_WITHIN[step] * self.duration_s[step])
            code = ended_within(process, delay_s)
            if code is None:
                os.kill(process, signal.SIGKILL)
                code = ended_within(process, 60)
            assert code in (0, -signal.SIGKILL), f"{step} ended with {code}"
            # What had been there before this process began was not encoded again.
            encoded = place.encoded()
            again = known["return" if step == "roll_back" else "backfill"].intersection(encoded[num_logged:])
            assert not again, again
            num_logged = len(encoded)
            if code == 0:
                return
            (self.between if inside else self.kills)[step] += 1
            seen = look(place)
            check(seen, before, step, reference)
            known = {stage: having(seen.contents, stage) for stage in known}


def places(kind: str, place: str, folder: Path) -> Iterator[Place]:
    number = 0
    while True:
        yield Place(opener(kind, place, number), folder / f"upgrade-{number}", kind == "qdrant-edge")
        number += 1


def opener(kind: str, place: str, number: int) -> Callable[[], VectorStore]:
    """What opens a gallery; the imports are made now, so that they need not be made again after each kill."""
    match kind:
        case "lance":
            from regraft.retrieval.store.lance import LanceStore

            return lambda: LanceStore(Path(place) / f"gallery-{number}")
        case "pgvector":
            from regraft.retrieval.store.pgvector import PgVectorStore

            return lambda: PgVectorStore(place.format(f"gallery{number}"))
        case "qdrant-edge":
            from regraft.retrieval.store.qdrant import QdrantStore
            from regraft.retrieval.store.qdrant_edge import EdgeEngine

            return lambda: QdrantStore(EdgeEngine(Path(place) / f"gallery-{number}"))
        case _:
            raise AssertionError(kind)


def main(kind: str, place: str, folder: Path, num_kills: int) -> None:
    killer = Killer(random.Random(num_kills))
    each = places(kind, place, folder)
    references = {name: reference_of(steps, folder / name) for name, steps in UPGRADES.items()}
    for name, steps in UPGRADES.items():
        killer.run(steps, next(each), references[name], killing=False)
    num_upgrades = 0
    while killer.kills.total() < num_kills or {*killer.kills, *killer.between} != KILLED_WITHIN.keys():
        for name, steps in UPGRADES.items():
            killer.run(steps, next(each), references[name], killing=True)
            num_upgrades += 1
    report = {
        "kills": killer.kills,
        "between_commits": killer.between,
        "upgrades": num_upgrades,
        "answers": killer.num_answers,
        "duration_s": killer.duration_s,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
