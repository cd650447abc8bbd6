"""Carrying out the upgrade of a gallery that was planned: every verb can be repeated, and goes on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from regraft.errors import RecipeError, RunError
from regraft.recipes.encoders import PictureEncoder, keep, load_encoder, read_again
from regraft.recipes.filling import NO_EMBEDDING, has_direction
from regraft.recipes.place import Place, place_of
from regraft.recipes.upgrade_plan import (
    UpgradePlan,
    known_path,
    ledger_path,
    model_path,
    read_plan,
    transformation_path,
)
from regraft.retrieval.backfill import backfill_rows
from regraft.retrieval.batches import Budget, Ending
from regraft.retrieval.encoding import Encoded, Executor, here
from regraft.retrieval.ledger import Ledger
from regraft.retrieval.ledger_entries import Phase, Plan, Progress, Worker
from regraft.retrieval.store.lance import LanceStore
from regraft.retrieval.store.protocol import Layout, VectorStore
from regraft.retrieval.transformfile import load_transformation
from regraft.retrieval.upgrade import finish as finish_upgrade
from regraft.retrieval.upgrade import roll_back, switch, transform_rows

Watch = Callable[[Progress], None]
"""Told after every batch how far its stage is."""
KNOWN_AT_ONCE = 4096
BATCHES_A_MERGE = 200
"""Every batch leaves a file in a gallery of LanceDB, and slows the next ones down."""


@final
class EncodeSources:
    """Encodes rows from their sources, in any process: it takes the model's file along, not the model.

    Args:
        file: A model file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._encoder: PictureEncoder | None = None

    def __call__(self, ids: Sequence[str], sources: Sequence[str | None]) -> Encoded:
        """Read and encode items as one batch."""
        if self._encoder is None:
            self._encoder = load_encoder(self._file)
        read = read_again(ids, sources, self._encoder.preprocess)
        if not read.pictures:
            return Encoded([], np.zeros((0, self._encoder.layout.dimension), np.float32), read.gone)
        vectors = self._encoder(read.pictures)
        sound = has_direction(vectors)
        names = [picture.id for picture in read.pictures]
        lost = [name for name, is_sound in zip(names, sound, strict=True) if not is_sound]
        kept = [name for name, is_sound in zip(names, sound, strict=True) if is_sound]
        return Encoded(kept, vectors[sound], read.gone | dict.fromkeys(lost, NO_EMBEDDING))

    def __getstate__(self) -> dict[str, object]:
        return {"_file": self._file, "_encoder": None}


@dataclass(frozen=True)
class StageFacts:
    """How far one stage of an upgrade is."""

    name: str
    items_done: int
    items_total: int
    compute_s: float
    store_s: float
    eta_s: float | None


@dataclass(frozen=True, kw_only=True)
class UpgradeStatus:
    """Where an upgrade is."""

    phase: Phase
    is_paused: bool
    worker: Worker | None
    """The process that works on it now."""
    old_space: str
    new_space: str
    served: str
    """The space that answers now."""
    num_rows: int
    num_native: int
    """Rows whose vector in the new space the new model made."""
    num_transformed: int
    num_lacking: int
    """Rows without a vector in the new space."""
    stop: float
    """The share of native rows that is recommended."""
    stages: tuple[StageFacts, ...]
    gone: Mapping[str, str]
    """Rows that cannot be encoded and keep a computed vector, with the reasons."""
    ending: Ending | None = None
    """How the last call ended; `None` if it only looked."""

    @property
    def share(self) -> float:
        """Of all rows, those that the new model has encoded."""
        return self.num_native / self.num_rows if self.num_rows else 0.0


def run(
    gallery: Place | Path | str,
    *,
    until: float | None = None,
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
        until: Share of rows that shall be native, in [0, 1]; `None` takes the recommended stop.
        executor: Where the new model runs.
        watch: Told of progress.

    Raises:
        Interrupted: After SIGTERM or Ctrl-C, when the batch in flight is done.
        RecipeError: `until` is out of range.
        RunError: Nothing is planned, the plan is for another state of the gallery or expects no gain, the
            upgrade has ended, or another process works on it.
        StoreError: The gallery cannot be read or written.
    """
    if until is not None and not 0 <= until <= 1:
        raise RecipeError(f"until is {until:g}; expected a share from 0 to 1.")
    place = place_of(gallery)
    plan, store = read_plan(place), place.open()
    _check_fits(place, plan, store)
    with _begun(place, plan) as ledger:
        ledger.resume()
        ending = _advance(place, plan, store, ledger, until, executor, watch)
        return _status(plan, store, ledger, ending)


def pause(gallery: Place | Path | str) -> UpgradeStatus:
    """Ask whoever works on the upgrade to stop after the batch in flight; `run` goes on.

    Raises:
        RunError: No upgrade was begun.
    """
    place = place_of(gallery)
    plan = read_plan(place)
    with _opened(place) as ledger:
        ledger.pause()
        return _status(plan, place.open(), ledger, None)


def status(gallery: Place | Path | str) -> UpgradeStatus:
    """Where the upgrade is. Can be asked while another process works on it.

    Raises:
        RunError: No upgrade is planned.
    """
    place = place_of(gallery)
    plan, store = read_plan(place), place.open()
    if not ledger_path(place).is_file():
        return _planned(plan, store)
    with _opened(place) as ledger:
        return _status(plan, store, ledger, None)


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
    plan, store = read_plan(place), place.open()
    with _opened(place) as ledger:
        ledger.resume()
        encode = EncodeSources(place.encoder(plan.old.space))
        ending = roll_back(store, ledger, encode, executor=executor, watch=watch)
        _tidy(store)
        return _status(plan, store, ledger, ending)


def finish(gallery: Place | Path | str) -> UpgradeStatus:
    """Forget the old vectors. There is no way back.

    Raises:
        RunError: The gallery does not answer by the new model yet, or another process works on the upgrade.
    """
    place = place_of(gallery)
    plan, store = read_plan(place), place.open()
    with _opened(place) as ledger:
        finish_upgrade(store, ledger)
        _tidy(store)
        return _status(plan, store, ledger, "done")


def _advance(
    place: Place,
    plan: UpgradePlan,
    store: VectorStore,
    ledger: Ledger,
    until: float | None,
    executor: Executor,
    watch: Watch,
) -> Ending:
    """Go on from whatever phase the upgrade is in."""
    share = _share(place, plan, until)
    transformation, _ = load_transformation(transformation_path(place))
    # Before its space is open, so that whoever adds pictures from now on can encode them.
    keep(model_path(place), place.encoder(plan.new.space))
    if (ending := transform_rows(store, ledger, transformation.transform, watch=watch)) != "done":
        return ending
    _fill_known(place, plan, store)
    encode = EncodeSources(model_path(place))

    def backfill(share: float) -> Ending:
        wanted = round(share * store.count()) - store.count(space=plan.new.space, origin="native")
        if wanted <= 0:
            return "budget" if store.count(space=plan.new.space, origin="transformed") else "done"
        budget = Budget(items=None if share == 1 else wanted)
        return backfill_rows(
            store, ledger, encode, budget=budget, executor=executor, watch=_merging(store, watch)
        )

    if ledger.phase == "ready":
        first = 1.0 if plan.forecast.switch is None else plan.forecast.switch
        if (ending := backfill(min(share, first))) == "paused":
            return ending
    _index(store, plan.new.space)  # there from the first query of the new model
    if (ending := switch(store, ledger, transformation.transform, watch=watch)) != "done":
        return ending
    _tidy(store)
    ending = backfill(share)
    _tidy(store)
    _index(store, plan.new.space)
    return ending


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

    def watch_and_merge(progress: Progress) -> None:
        watch(progress)
        if progress.batches_done % BATCHES_A_MERGE == 0:
            _tidy(store)

    return watch_and_merge


def _fill_known(place: Place, plan: UpgradePlan, store: VectorStore) -> None:
    """Put in the new vectors that were made for the plan: they need not be computed, nor encoded again."""
    path = known_path(place)
    if not path.is_file():
        return
    with np.load(path, allow_pickle=False) as known:
        ids, vectors = known["ids"].tolist(), known["vectors"]
    for start in range(0, len(ids), KNOWN_AT_ONCE):
        part = slice(start, start + KNOWN_AT_ONCE)
        row_of = {name: row for row, name in enumerate(ids[part])}
        found = store.find(ids[part], space=plan.new.space)
        waiting = [
            name for name, origin in zip(found.ids, found.origins, strict=True) if origin == "transformed"
        ]
        if waiting:
            made = vectors[part][[row_of[name] for name in waiting]]
            store.fill(waiting, made, space=plan.new.space, origin="native")


def _begun(place: Place, plan: UpgradePlan) -> Ledger:
    new = Layout(plan.new.space, plan.new.dimension)
    begun = Plan(old_space=plan.old.space, new=new, side_space=plan.side, facts={"planned": plan.planned})
    return Ledger.create(ledger_path(place), begun)


def _opened(place: Place) -> Ledger:
    if not ledger_path(place).is_file():
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


def _tidy(store: VectorStore) -> None:
    """Merge the files of many writes, and bring the index up to date, where the gallery is in a folder."""
    if isinstance(store, LanceStore):
        store.optimize()


def _index(store: VectorStore, space: str) -> None:
    """Index a space anew where the gallery has an index: almost every vector of it is another one."""
    if isinstance(store, LanceStore) and store.num_indexed is not None:
        store.index(space=space)


def _planned(plan: UpgradePlan, store: VectorStore) -> UpgradeStatus:
    return _facts(plan, store, "planned", is_paused=False, worker=None, stages=(), gone={}, ending=None)


def _status(plan: UpgradePlan, store: VectorStore, ledger: Ledger, ending: Ending | None) -> UpgradeStatus:
    found = ledger.status()
    stages = tuple(
        StageFacts(name, stage.items_done, stage.items_total, stage.compute_s, stage.store_s, stage.eta_s)
        for name, stage in found.progress.items()
    )
    return _facts(
        plan,
        store,
        found.phase,
        is_paused=found.paused,
        worker=found.worker,
        stages=stages,
        gone=ledger.gone(),
        ending=ending,
    )


def _facts(
    plan: UpgradePlan,
    store: VectorStore,
    phase: Phase,
    *,
    is_paused: bool,
    worker: Worker | None,
    stages: tuple[StageFacts, ...],
    gone: Mapping[str, str],
    ending: Ending | None,
) -> UpgradeStatus:
    new, num_rows = plan.new.space, store.count()
    native, transformed = (store.count(space=new, origin=origin) for origin in ("native", "transformed"))
    return UpgradeStatus(
        phase=phase,
        is_paused=is_paused,
        worker=worker,
        old_space=plan.old.space,
        new_space=new,
        served=store.layout.space if store.layout else "",
        num_rows=num_rows,
        num_native=native,
        num_transformed=transformed,
        num_lacking=num_rows - native - transformed,
        stop=plan.forecast.stop,
        stages=stages,
        gone=gone,
        ending=ending,
    )
