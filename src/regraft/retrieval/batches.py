"""Working off batches that a ledger has fixed, until nothing is left or someone asks to stop."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, final

from regraft.errors import Interrupted, RecipeError, StoreError
from regraft.retrieval.ledger import Ledger
from regraft.retrieval.ledger_entries import Batch, Done, Progress, Stage
from regraft.retrieval.store.checks import named
from regraft.train.signals import StopSignals

Ending = Literal["done", "paused", "budget"]
"""Why work ended: nothing is left, someone asked for a pause, or as much was done as was allowed."""

Watch = Callable[[Progress], None]
"""Told after every batch how far its stage is."""

Perform = Callable[[Iterator[Batch]], Iterator[tuple[Batch, Done]]]
"""Does batches, and yields each, in their order, when the gallery has what came of it."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much may be done before work ends by itself, at the first end of a batch where it is reached."""

    share: float = 1.0
    """Of all items of the stage, those that earlier runs did included, in [0, 1]."""
    items: int | None = None
    """In this run; `None` for any number."""
    seconds: float | None = None
    """In this run; `None` for any time."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise RecipeError(f"A share of {self.share:g} cannot be done; expected 0 to 1.")
        if min(self.items or 0, self.seconds or 0) < 0:
            raise RecipeError(f"{self} is negative; expected at least 0 items and seconds.")


UNLIMITED = Budget()

MAX_FRUITLESS = 3  # a row may happen to be replaced between the look and the filling


def unwatched(progress: Progress) -> None:
    """Tell nobody."""


def work_off(
    ledger: Ledger,
    stage: Stage,
    left: Callable[[], list[str]],
    perform: Perform,
    *,
    batch_items: int,
    budget: Budget = UNLIMITED,
    watch: Watch = unwatched,
) -> Ending:
    """Do the batches of a stage, then lay out the items that are left as further ones, until none is.

    Args:
        left: The items that are still to be done when no batch is.
        batch_items: Items in a batch of those that are laid out.

    Raises:
        Interrupted: After SIGTERM or Ctrl-C, when the batch in flight is done.
        StoreError: The same items are left again and again.
    """
    if batch_items < 1:
        raise RecipeError(f"A batch of {batch_items} items cannot be made; expected at least 1.")
    laid_out, num_fruitless = list[str](), 0
    with StopSignals(hold=False) as signals:
        limits = _Limits(ledger, stage, budget, signals)
        while True:
            rows_before = ledger.progress(stage).rows_written
            for batch, done in perform(_taken(ledger, stage, limits)):
                ledger.acknowledge(batch, done)
                watch(ledger.progress(stage))
                if (ending := limits.asked_to_stop()) is not None:
                    return ending
            if (ending := limits.reached()) is not None:
                return ending
            if next(ledger.unfinished(stage), None) is not None:
                continue  # a pause was asked for and taken back
            remaining = left()
            if not remaining:
                return "done"
            in_vain = remaining == laid_out and ledger.progress(stage).rows_written == rows_before
            num_fruitless = num_fruitless + 1 if in_vain else 0
            if num_fruitless == MAX_FRUITLESS:
                raise _stuck(stage, remaining)
            laid_out = remaining
            ledger.lay_out(stage, parts(remaining, batch_items))


def parts(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """`ids` in batches of `size`; the last may be shorter."""
    return (ids[start : start + size] for start in range(0, len(ids), size))


@final
class _Limits:
    """Knows when to stop."""

    def __init__(self, ledger: Ledger, stage: Stage, budget: Budget, signals: StopSignals) -> None:
        self._ledger = ledger
        self._stage: Stage = stage
        self._budget = budget
        self._signals = signals
        self._start_s = time.monotonic()
        self._items_before = ledger.progress(stage).items_done
        self._items_taken = 0

    def take(self, batch: Batch) -> None:
        self._items_taken += len(batch.ids)

    def reached(self) -> Ending | None:
        """Why no further batch may be begun, if so."""
        asked = self.asked_to_stop()
        if asked is not None:
            return asked
        goal = math.inf
        if self._budget.share < 1:
            total = self._ledger.progress(self._stage).items_total
            goal = self._budget.share * total - self._items_before
        if self._budget.items is not None:
            goal = min(goal, self._budget.items)
        return "budget" if self._items_taken >= goal else None

    def asked_to_stop(self) -> Ending | None:
        """Why even the batches that have been begun may be left, if so."""
        if self._signals.received is not None:
            raise Interrupted(
                f"Stopped by {self._signals.name} at the end of a batch; what it made is in the gallery.",
                hint="Run the same command again to continue.",
            )
        if self._ledger.paused:
            return "paused"
        seconds = self._budget.seconds
        return "budget" if seconds is not None and time.monotonic() - self._start_s >= seconds else None


def _taken(ledger: Ledger, stage: Stage, limits: _Limits) -> Iterator[Batch]:
    for batch in ledger.unfinished(stage):
        if limits.reached() is not None:
            return
        ledger.take(batch)
        limits.take(batch)
        yield batch


def _stuck(stage: Stage, ids: Sequence[str]) -> StoreError:
    return StoreError(
        f"{len(ids)} rows are left over by the {stage}, however often it is done: {named(ids)}.",
        hint="Their side-information may be missing, or another process may be changing them all the time.",
    )
