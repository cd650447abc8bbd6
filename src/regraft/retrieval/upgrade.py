"""The phases of an upgrade before and after the backfill. Each may be killed at any instant and called again.

A gallery answers in the old space until `switch`, and in the new one from then on; `roll_back` undoes
everything until `finish` forgets the old space.
"""

import time
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from regraft.errors import RunError, StoreError
from regraft.retrieval.batches import UNLIMITED, Ending, Watch, unwatched, work_off
from regraft.retrieval.encoding import Encode, Executor, here
from regraft.retrieval.encoding_rows import BYTES_A_NUMBER, encoding_rows
from regraft.retrieval.ledger import Ledger
from regraft.retrieval.ledger_entries import ENDED, Batch, Done, Phase, Plan
from regraft.retrieval.store.checks import named
from regraft.retrieval.store.protocol import Records, VectorStore

BATCH_ROWS = 4096
BATCH_ITEMS = 64
MAX_ATTEMPTS = 20
BEFORE_FINISH: tuple[Phase, ...] = ("planned", "transforming", "ready", "backfilling")


@runtime_checkable
class TransformedVectors(Protocol):
    """What a transformation gives."""

    @property
    def vectors(self) -> Float32[np.ndarray, "n d"]:
        """In the new space."""
        ...

    @property
    def log_variance(self) -> Float32[np.ndarray, " n"] | None:
        """Higher where less certain."""
        ...


Transform = Callable[[Float32[np.ndarray, "n d"], Float32[np.ndarray, "n s"] | None], TransformedVectors]
"""From old vectors, and side-information if the plan names a space of it, to new ones, as one batch."""


def transform_rows(
    store: VectorStore,
    ledger: Ledger,
    transform: Transform,
    *,
    batch_rows: int = BATCH_ROWS,
    watch: Watch = unwatched,
) -> Ending:
    """Give every row that has none a transformed vector in the new space. No source is touched.

    Rows that other processes add meanwhile are transformed too, unless they bring a vector of the new model.

    Raises:
        Interrupted: After SIGTERM or Ctrl-C, when the batch in flight is done.
        RunError: The upgrade has ended, or another process works on it.
        StoreError: Rows are left over: without side-information, or changed all the time.
    """
    with ledger.working():
        return _transform_rows(store, ledger, transform, batch_rows=batch_rows, watch=watch)


def switch(
    store: VectorStore,
    ledger: Ledger,
    transform: Transform,
    *,
    batch_rows: int = BATCH_ROWS,
    watch: Watch = unwatched,
) -> Ending:
    """Answer in the new space from now on, in one atomic step, after transforming what was added meanwhile.

    Raises:
        Interrupted: As `transform_rows`.
        RunError: As `transform_rows`.
        StoreError: As `transform_rows`; or old vectors are added faster than they can be transformed.
    """
    with ledger.working():
        check_phase(ledger, "switched", *BEFORE_FINISH)
        new = ledger.plan.new.space

        def prepare() -> Ending:
            return _transform_rows(store, ledger, transform, batch_rows=batch_rows, watch=watch)

        if (ending := _serve(store, new, prepare)) == "done":
            ledger.enter("backfilling")
        return ending


def roll_back(
    store: VectorStore,
    ledger: Ledger,
    encode_old: Encode,
    *,
    batch_items: int = BATCH_ITEMS,
    executor: Executor = here,
    watch: Watch = unwatched,
) -> Ending:
    """Answer in the old space again and forget the new one.

    Args:
        encode_old: The old model, for rows that were added since the switch and have no vector of it.

    Raises:
        Interrupted: After SIGTERM or Ctrl-C, when the batch in flight is done.
        RunError: The upgrade is finished, or another process works on it.
        StoreError: Rows added since the switch cannot be encoded, and so the old space cannot be served.
    """
    with ledger.working():
        check_phase(ledger, "rolled back", *BEFORE_FINISH, "rolling_back", "rolled_back")
        plan = ledger.plan
        if ledger.phase == "rolled_back":
            return "done"
        ledger.enter("rolling_back")

        def prepare() -> Ending:
            perform = encoding_rows(
                store,
                encode_old,
                executor,
                look_space=plan.new.space,
                fill_space=plan.old_space,
                have=lambda records: set(store.find(records.ids, space=plan.old_space).ids),
            )
            return work_off(
                ledger,
                "return",
                lambda: _encodable(store, ledger),
                perform,
                batch_items=batch_items,
                budget=UNLIMITED,
                watch=watch,
            )

        if (ending := _serve(store, plan.old_space, prepare)) == "done":
            store.close_space(plan.new.space)
            ledger.enter("rolled_back")
        return ending


def finish(store: VectorStore, ledger: Ledger) -> None:
    """Forget the old space. There is no way back.

    Rows that were not backfilled keep their transformed vectors for good.

    Raises:
        RunError: The gallery was not switched to the new model, the upgrade was rolled back, or another
            process works on it.
    """
    with ledger.working():
        check_phase(ledger, "finished", "backfilling", "finishing", "finished")
        check_serves(store, ledger.plan.new.space)
        if ledger.phase != "finished":
            ledger.enter("finishing")
            store.close_space(ledger.plan.old_space)
            ledger.enter("finished")


def check_serves(store: VectorStore, space: str) -> None:
    """Raise RunError unless the gallery answers in this space."""
    if store.layout is None or store.layout.space != space:
        served = "nothing" if store.layout is None else repr(store.layout.space)
        raise RunError(
            f"The gallery serves {served}; at this point of the upgrade it should serve {space!r}."
        )


def _transform_rows(
    store: VectorStore, ledger: Ledger, transform: Transform, *, batch_rows: int, watch: Watch
) -> Ending:
    check_phase(ledger, "carried on", *BEFORE_FINISH)
    plan = ledger.plan
    if store.layout is not None and store.layout.space == plan.new.space:
        return "done"  # a row that a gallery answers with has a vector
    check_serves(store, plan.old_space)
    store.open_space(plan.new)
    ledger.enter("transforming")

    def perform(batches: Iterator[Batch]) -> Iterator[tuple[Batch, Done]]:
        return ((batch, _transformed(store, plan, transform, batch)) for batch in batches)

    def lacking() -> list[str]:
        # By id, because a scan's order depends on what was written when, and composition decides last bits.
        return sorted(
            name for batch in store.scan(space=plan.old_space, lacking=plan.new.space) for name in batch.ids
        )

    ending = work_off(ledger, "transform", lacking, perform, batch_items=batch_rows, watch=watch)
    if ending == "done":
        ledger.enter("ready")
    return ending


def _transformed(store: VectorStore, plan: Plan, transform: Transform, batch: Batch) -> Done:
    """Transform a batch, even one that a killed run had filled in: its uncertainty was not kept."""
    start_s = time.perf_counter()
    seen = store.find(batch.ids, space=plan.old_space)
    side = None
    if plan.side_space is not None:
        side = store.find(seen.ids, space=plan.side_space)
        seen = seen.named(side.ids)
    read_s = time.perf_counter()
    if len(seen) == 0:
        return Done(store_s=read_s - start_s)
    made = transform(seen.vectors, None if side is None else side.vectors)
    made_s = time.perf_counter()
    num_rows = store.fill(seen.ids, made.vectors, space=plan.new.space, origin="transformed", seen=seen)
    return Done(
        rows=num_rows,
        bytes=num_rows * plan.new.dimension * BYTES_A_NUMBER,
        compute_s=made_s - read_s,
        store_s=read_s - start_s + time.perf_counter() - made_s,
        uncertainty=_uncertainty(batch, seen, made),
    )


def _uncertainty(batch: Batch, seen: Records, made: TransformedVectors) -> Float32[np.ndarray, " n"] | None:
    if made.log_variance is None:
        return None
    known = dict(zip(seen.ids, made.log_variance, strict=True))
    return np.array([known.get(name, np.nan) for name in batch.ids], np.float32)


def _serve(store: VectorStore, space: str, prepare: Callable[[], Ending]) -> Ending:
    """Serve a space as soon as every row has a vector in it, however many are added while it is prepared."""
    for attempt in range(1, MAX_ATTEMPTS + 1):
        if store.layout is not None and store.layout.space == space:
            return "done"
        if (ending := prepare()) != "done":
            return ending
        try:
            store.serve(space)
        except StoreError:
            # A row came in since. The gallery has refused the step, and the row is prepared too.
            if attempt == MAX_ATTEMPTS:
                raise
            if store.count(lacking=space) == 0:
                store.serve(space)  # someone else has prepared it, or there is another reason to refuse
    return "done"


def _encodable(store: VectorStore, ledger: Ledger) -> list[str]:
    """Rows without an old vector; raise if some were tried in this run and cannot get one."""
    plan = ledger.plan
    if store.layout is None or store.layout.space == plan.old_space:
        return []
    lacking = sorted(
        name for batch in store.scan(space=plan.new.space, lacking=plan.old_space) for name in batch.ids
    )
    gone = ledger.gone(run=ledger.run)
    lost = [name for name in lacking if name in gone]
    if lost:
        raise StoreError(
            f"{len(lost)} rows were added since the switch, and the old model cannot encode them: "
            f"{named(lost)} ({gone[lost[0]]}).",
            hint="Drop them, or bring their sources back, and roll back again.",
        )
    return lacking


def check_phase(ledger: Ledger, done: str, *allowed: Phase) -> None:
    """Raise RunError unless the upgrade is in a phase where something can be done.

    Args:
        ledger: Of the upgrade.
        done: What is to be done, as in "cannot be switched".
        allowed: The phases where it can.
    """
    if ledger.phase in allowed:
        return
    phase = ledger.phase
    hint = (
        "Plan another upgrade; what this one left is kept."
        if phase in ENDED
        else "regraft upgrade run GALLERY goes on; status tells how far it is."
    )
    raise RunError(f"An upgrade that is {phase.replace('_', ' ')} cannot be {done}.", hint=hint)
