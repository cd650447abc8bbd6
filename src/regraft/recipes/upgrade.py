"""Carrying out the upgrade of a gallery that was planned: every verb can be repeated, and goes on."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from regraft.errors import RecipeError, RunError
from regraft.recipes.encode_sources import EncodeSources
from regraft.recipes.encoders import keep, load_encoder
from regraft.recipes.known import Known, read_known
from regraft.recipes.place import Place, place_of
from regraft.recipes.upgrade_plan import (
    UpgradePlan,
    beginning,
    has_begun,
    ledger_path,
    model_path,
    read_plan,
    transformation_path,
)
from regraft.recipes.upgrade_status import UpgradeStatus, read_status
from regraft.retrieval.backfill import backfill_rows
from regraft.retrieval.backfill_order import Order
from regraft.retrieval.batches import Budget, Ending
from regraft.retrieval.encoding import Executor, here
from regraft.retrieval.ledger import Ledger
from regraft.retrieval.ledger_entries import Plan, Progress
from regraft.retrieval.store.protocol import Layout, VectorStore
from regraft.retrieval.transformfile import load_transformation
from regraft.retrieval.upgrade import BEFORE_FINISH, check_phase, roll_back, switch, transform_rows
from regraft.retrieval.upgrade import finish as finish_upgrade

Watch = Callable[[Progress], None]
"""Told after every batch how far its stage is."""
KNOWN_AT_ONCE = 4096
BATCHES_A_MERGE = 200
"""Every batch leaves a file in a gallery of LanceDB, and slows the next ones down."""
MIN_MERGE_S = 60.0
"""Every merge leaves a copy of most of such a gallery for some minutes: sooner ones would fill the disk."""


def run(
    gallery: Place | Path | str,
    *,
    until: float | None = None,
    order: Order | None = None,
    executor: Executor = here,
    watch: Watch = lambda progress: None,
) -> UpgradeStatus:
    """Transform what lacks a new vector, switch, and backfill. Continues an upgrade that was begun.

    Where computed vectors alone are expected to be worse than the old ones, the backfill begins before the
    switch.

    Until the switch, queries are answered by the old model, from then on by the new one; never by a mixture.
    Pictures may be added all the while.

    Args:
        gallery: The gallery's folder, or a place.
        until: Share of rows that shall be native, in [0, 1]; `None` takes the recommended stop. With a share
            at which the answers are not yet as good as before, it switches all the same.
        order: Which rows are encoded first; `None` for the most uncertain, or as the upgrade was begun.
        executor: Where the new model runs.
        watch: Told of progress.

    Raises:
        Interrupted: After SIGTERM or Ctrl-C, when the batch in flight is done.
        RecipeError: `until` is out of range.
        RunError: Nothing is planned, the plan is for another state of the gallery or expects no gain, the
            upgrade has ended, was begun in another order, or another process works on it.
        StoreError: The gallery cannot be read or written.
    """
    if until is not None and not 0 <= until <= 1:
        raise RecipeError(f"until is {until:g}; expected a share from 0 to 1.")
    place = place_of(gallery)
    store = _open(place)
    plan = read_plan(place)
    _check_fits(place, plan, store)
    with _begun(place, plan) as ledger:
        ledger.resume()
        ending = _advance(place, plan, store, ledger, until, order, executor, watch)
        state = read_status(plan, store, ledger, ending)
        ledger.measure("share of native rows", state.share)
        return replace(state, metrics=tuple(ledger.metrics()))


def pause(gallery: Place | Path | str) -> UpgradeStatus:
    """Ask whoever works on the upgrade to stop after the batch in flight; `run` goes on.

    Raises:
        RunError: No upgrade was begun, or it has ended.
    """
    place = place_of(gallery)
    store = _open(place)
    plan = read_plan(place)
    with _opened(place) as ledger:
        check_phase(ledger, "paused", *BEFORE_FINISH, "rolling_back", "finishing")
        ledger.pause()
        return read_status(plan, store, ledger)


def status(gallery: Place | Path | str) -> UpgradeStatus:
    """Where the upgrade is. Can be asked while another process works on it.

    Raises:
        RunError: No upgrade is planned.
    """
    place = place_of(gallery)
    store = _open(place)
    plan = read_plan(place)
    if not has_begun(place):
        return read_status(plan, store, None)
    with _opened(place) as ledger:
        return read_status(plan, store, ledger)


def rollback(
    gallery: Place | Path | str,
    *,
    executor: Executor = here,
    watch: Watch = lambda progress: None,
) -> UpgradeStatus:
    """Answer by the old model again, and forget the new vectors.

    Pictures that were added since the switch and have no old vector are encoded by the old model first.

    Raises:
        Interrupted: After SIGTERM or Ctrl-C, when the batch in flight is done.
        RunError: No upgrade was begun, it is finished, or another process works on it.
        StoreError: Rows that were added since the switch cannot be encoded.
    """
    place = place_of(gallery)
    store = _open(place)
    plan = read_plan(place)
    with _opened(place) as ledger:
        ledger.resume()
        encode = EncodeSources(place.encoder(plan.old.space))
        ending = roll_back(store, ledger, encode, executor=executor, watch=watch)
        store.tidy()
        return read_status(plan, store, ledger, ending)


def finish(gallery: Place | Path | str) -> UpgradeStatus:
    """Forget the old vectors. There is no way back.

    Raises:
        RunError: The gallery does not answer by the new model yet, or another process works on the upgrade.
    """
    place = place_of(gallery)
    store = _open(place)
    plan = read_plan(place)
    with _opened(place) as ledger:
        finish_upgrade(store, ledger)
        store.tidy()
        return read_status(plan, store, ledger, "done")


def _advance(
    place: Place,
    plan: UpgradePlan,
    store: VectorStore,
    ledger: Ledger,
    until: float | None,
    order: Order | None,
    executor: Executor,
    watch: Watch,
) -> Ending:
    """Go on from whatever phase the upgrade is in."""
    share = _share(place, plan, until)
    _check_model(place, plan)
    transformation, _ = load_transformation(transformation_path(place))
    known = read_known(place)
    # Before its space is open, so that whoever adds pictures from now on can encode them.
    keep(model_path(place), place.encoder(plan.new.space))
    if (ending := transform_rows(store, ledger, transformation.transform, watch=watch)) != "done":
        return ending
    if known is not None and ledger.phase == "ready":
        _fill_known(known, plan, store, ledger)
    encode = EncodeSources(model_path(place))

    def backfill(share: float) -> Ending:
        wanted = _wanted(store, plan.new.space, share)
        while wanted > 0:
            budget = Budget(items=None if share == 1 else wanted)
            ending = backfill_rows(
                store,
                ledger,
                encode,
                order=order,
                budget=budget,
                executor=executor,
                watch=_merging(store, watch),
            )
            if ending != "budget":
                return ending
            wanted = _wanted(store, plan.new.space, share)  # again, for some of the items may be gone
        return "budget" if store.count(space=plan.new.space, origin="transformed") else "done"

    if ledger.phase == "ready":
        first = 1.0 if plan.forecast.switch is None else plan.forecast.switch
        if (ending := backfill(min(share, first))) == "paused":
            return ending
    store.tidy(space=plan.new.space)  # quick from the first query of the new model
    if (ending := switch(store, ledger, transformation.transform, watch=watch)) != "done":
        return ending
    ending = backfill(share)
    store.tidy()
    return ending


def _wanted(store: VectorStore, space: str, share: float) -> int:
    """Rows that are still to be encoded before a share of all is."""
    return round(share * store.count()) - store.count(space=space, origin="native")


def _share(place: Place, plan: UpgradePlan, until: float | None) -> float:
    """The share of rows that shall be native."""
    if until is not None:
        return until
    if plan.forecast.switch is None:
        raise RunError(
            f"The new model is not expected to make {place.name} as good as it is now, at whatever share.",
            hint="--until SHARE upgrades it all the same.",
        )
    return max(plan.forecast.stop, plan.forecast.switch)


def _merging(store: VectorStore, watch: Watch) -> Watch:
    """Merge, every few hundred batches, the files that they leave."""
    merged_s = time.monotonic()

    def watch_and_merge(progress: Progress) -> None:
        nonlocal merged_s
        watch(progress)
        if progress.batches_done % BATCHES_A_MERGE == 0 and time.monotonic() >= merged_s + MIN_MERGE_S:
            store.tidy()
            merged_s = time.monotonic()

    return watch_and_merge


def _check_model(place: Place, plan: UpgradePlan) -> None:
    """Refuse to lead a gallery into a space that the planned model is not there to answer in."""
    file = model_path(place)
    if not file.is_file():
        raise RunError(f"{file} is gone, the model that was planned with.", hint="Plan again.")
    found = load_encoder(file).space
    if found != plan.new.space:
        raise RunError(
            f"{file} is another model than was planned with: its space is {found}, not {plan.new.space}.",
            hint="Plan again.",
        )


def _fill_known(known: Known, plan: UpgradePlan, store: VectorStore, ledger: Ledger) -> None:
    """Put in the new vectors that were made for the plan: they need not be computed, nor encoded again.

    A row that has become another since is left out.
    """
    with ledger.working():
        for start in range(0, len(known.rows), KNOWN_AT_ONCE):
            part = range(start, min(start + KNOWN_AT_ONCE, len(known.rows)))
            rows = known.rows.take(part)
            store.fill(rows.ids, known.new[part], space=plan.new.space, origin="native", seen=rows)


def _open(place: Place) -> VectorStore:
    """The gallery's rows; raise StoreError if there is no gallery."""
    store = place.open()
    place.served(store)
    return store


def _begun(place: Place, plan: UpgradePlan) -> Ledger:
    new = Layout(plan.new.space, plan.new.dimension)
    begun = Plan(old_space=plan.old.space, new=new, side_space=plan.side, facts={"planned": plan.planned})
    with beginning(place):
        if read_plan(place) != plan:
            raise RunError(f"{place.name} was planned anew this very moment.", hint="Run again.")
        return Ledger.create(ledger_path(place), begun)


def _opened(place: Place) -> Ledger:
    if not has_begun(place):
        raise RunError(
            f"The upgrade of {place.name} was not begun.", hint="regraft upgrade run GALLERY begins it."
        )
    return Ledger(ledger_path(place))


def _check_fits(place: Place, plan: UpgradePlan, store: VectorStore) -> None:
    """Refuse a plan that was made for another state of the gallery. Rows may have come and gone."""
    served = place.served(store).space
    if served not in (plan.old.space, plan.new.space):
        raise RunError(
            f"The plan leads from the space {plan.old.space} to {plan.new.space}, "
            f"and {place.name} answers in {served} now.",
            hint="Plan again.",
        )
    if plan.side is not None and plan.side not in {layout.space for layout in store.spaces}:
        raise RunError(
            f"The plan needs the side-information {plan.side}, which {place.name} does not have any more.",
            hint="Plan again.",
        )
