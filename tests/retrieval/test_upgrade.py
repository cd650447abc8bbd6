"""The phases of an upgrade, on the gallery in memory. Kills are in `test_upgrade_killed.py`."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from upgrade_toys import (
    NEW,
    NEW_DIMENSION,
    OLD,
    OLD_DIMENSION,
    PLAN,
    SIDE,
    SIDE_DIMENSION,
    Toy,
    ToyTransformed,
    contents,
    fill_gallery,
    names,
    new_model,
    old_model,
    side_model,
    source_of,
    transform,
)

from regraft.errors import Interrupted, RecipeError, RunError, SampleError, SpaceMismatch, StoreError
from regraft.retrieval.backfill import backfill_rows, transformed
from regraft.retrieval.backfill_order import BySigma, Given, Shuffled
from regraft.retrieval.batches import Budget
from regraft.retrieval.encoding import Encoded
from regraft.retrieval.ledger import Ledger
from regraft.retrieval.ledger_entries import Plan
from regraft.retrieval.store.memory import MemoryStore
from regraft.retrieval.store.protocol import Capabilities, Layout
from regraft.retrieval.upgrade import finish, roll_back, switch, transform_rows

NUM_ITEMS = 50


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    fill_gallery(store, NUM_ITEMS)
    return store


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.create(tmp_path / "ledger.sqlite", PLAN)


def switched(store: MemoryStore, ledger: Ledger) -> None:
    assert transform_rows(store, ledger, transform, batch_rows=16) == "done"
    assert switch(store, ledger, transform, batch_rows=16) == "done"


def origins(store: MemoryStore, space: str = NEW) -> dict[str, str]:
    return {
        name: origin
        for batch in store.scan(space=space)
        for name, origin in zip(batch.ids, batch.origins, strict=True)
    }


def add(store: MemoryStore, name: str, *, content: str, native_in: Sequence[Toy]) -> None:
    """What a process does that adds an item: put it in the served space, and fill in the others it knows."""
    first, *others = native_in
    store.put([name], first([name], [content]).vectors, space=first.space, sources=[content])
    for model in others:
        store.fill([name], model([name], [content]).vectors, space=model.space, origin="native")


# The whole way.


def test_an_upgrade_from_end_to_end(store: MemoryStore, ledger: Ledger) -> None:
    before = contents(store)[OLD]
    assert ledger.phase == "planned"
    assert transform_rows(store, ledger, transform, batch_rows=16) == "done"
    assert ledger.phase == "ready"
    assert store.layout == Layout(OLD, OLD_DIMENSION)
    assert set(origins(store).values()) == {"transformed"}

    assert switch(store, ledger, transform) == "done"
    assert ledger.phase == "backfilling"
    assert store.layout == Layout(NEW, NEW_DIMENSION)

    assert backfill_rows(store, ledger, new_model, batch_items=8) == "done"
    assert set(origins(store).values()) == {"native"}
    assert contents(store)[OLD] == before

    finish(store, ledger)
    assert ledger.phase == "finished"
    assert store.spaces == (Layout(NEW, NEW_DIMENSION),)
    progress = ledger.status().progress
    assert progress["transform"].rows_written == progress["backfill"].rows_written == NUM_ITEMS
    assert progress["backfill"].bytes_written == NUM_ITEMS * NEW_DIMENSION * 4
    assert progress["backfill"].compute_s > 0


def test_every_step_done_again_changes_nothing(store: MemoryStore, ledger: Ledger) -> None:
    switched(store, ledger)
    switched(store, ledger)
    assert ledger.phase == "backfilling"
    backfill_rows(store, ledger, new_model)
    after = contents(store)
    assert backfill_rows(store, ledger, failing) == "done"
    switched(store, ledger)
    assert contents(store) == after
    finish(store, ledger)
    finish(store, ledger)
    assert contents(store) == {NEW: after[NEW]}


def failing(ids: Sequence[str], sources: Sequence[str | None]) -> Encoded:
    raise AssertionError(f"{ids} were to be encoded")


def test_side_information_is_read_beside_the_old_vectors(store: MemoryStore, tmp_path: Path) -> None:
    plan = Plan(old_space=OLD, new=Layout(NEW, NEW_DIMENSION), side_space=SIDE)
    store.open_space(Layout(SIDE, SIDE_DIMENSION, packed=True))
    ids = names(NUM_ITEMS)
    store.fill(ids, side_model(ids, [source_of(name) for name in ids]).vectors, space=SIDE, origin="native")
    ledger = Ledger.create(tmp_path / "ledger", plan)
    assert transform_rows(store, ledger, transform, batch_rows=NUM_ITEMS) == "done"
    expected = transform(store.get(ids, space=OLD).vectors, store.get(ids, space=SIDE).vectors)
    np.testing.assert_array_equal(store.get(ids, space=NEW).vectors, expected.vectors)


def test_rows_without_side_information_are_named(store: MemoryStore, tmp_path: Path) -> None:
    plan = Plan(old_space=OLD, new=Layout(NEW, NEW_DIMENSION), side_space=SIDE)
    store.open_space(Layout(SIDE, SIDE_DIMENSION, packed=True))
    ids = names(NUM_ITEMS)[1:]
    store.fill(ids, side_model(ids, [source_of(name) for name in ids]).vectors, space=SIDE, origin="native")
    with pytest.raises(StoreError, match=r"1 rows are left over.*'item-00000'"):
        transform_rows(store, Ledger.create(tmp_path / "ledger", plan), transform)
    assert origins(store).keys() == set(ids)


# Order and budget.


def native_after(store: MemoryStore, ledger: Ledger, share: float) -> set[str]:
    backfill_rows(store, ledger, new_model, batch_items=5, budget=Budget(share=share))
    return {name for name, origin in origins(store).items() if origin == "native"}


def test_the_most_uncertain_are_encoded_first(store: MemoryStore, ledger: Ledger) -> None:
    switched(store, ledger)
    uncertainty = {
        name: value for ids, values in ledger.uncertainties() for name, value in zip(ids, values, strict=True)
    }
    by_sigma = sorted(uncertainty, key=lambda name: -uncertainty[name])
    for share, num_native in [(0.2, 10), (0.2, 10), (0.5, 25), (0.52, 30)]:
        assert native_after(store, ledger, share) == set(by_sigma[:num_native])
    assert ledger.order == "sigma"


def test_other_orders(store: MemoryStore, ledger: Ledger) -> None:
    ids = names(6)
    assert Given(["item-00003", "nobody", "item-00001", "item-00003"]).arrange(ids, {}) == [
        "item-00003", "item-00001", "item-00000", "item-00002", "item-00004", "item-00005",
    ]  # fmt: skip
    shuffled = Shuffled(3).arrange(ids, {})
    assert shuffled == Shuffled(3).arrange(ids[::-1], {})
    assert sorted(shuffled) == ids
    assert shuffled != Shuffled(4).arrange(ids, {}) != ids
    assert BySigma().arrange(["a", "b", "c", "d"], {"a": 0.0, "b": 1.0, "d": 1.0}) == ["c", "b", "d", "a"]
    switched(store, ledger)
    backfill_rows(store, ledger, new_model, order=Shuffled(1), budget=Budget(items=1), batch_items=5)
    with pytest.raises(RunError, match=r"shuffled\(1\).*sigma"):
        backfill_rows(store, ledger, new_model, order=BySigma())
    assert backfill_rows(store, ledger, new_model) == "done"


def test_without_uncertainty_an_order_must_be_chosen(store: MemoryStore, ledger: Ledger) -> None:
    def certain(old: np.ndarray, side: np.ndarray | None) -> ToyTransformed:
        return ToyTransformed(transform(old, side).vectors, None)

    transform_rows(store, ledger, certain)
    switch(store, ledger, certain)
    with pytest.raises(RunError, match="did not say how uncertain"):
        backfill_rows(store, ledger, new_model)
    assert backfill_rows(store, ledger, new_model, order=Shuffled(0)) == "done"


@pytest.mark.parametrize(
    ("budget", "num_native"),
    [
        (Budget(items=11), 15),
        (Budget(items=0), 0),
        (Budget(seconds=0.0), 0),
        (Budget(share=0.0), 0),
        (Budget(), 50),
    ],
)
def test_a_budget_ends_work_at_the_end_of_a_batch(
    store: MemoryStore, ledger: Ledger, budget: Budget, num_native: int
) -> None:
    switched(store, ledger)
    ending = backfill_rows(store, ledger, new_model, batch_items=5, budget=budget)
    assert ending == ("done" if num_native == NUM_ITEMS else "budget")
    assert list(origins(store).values()).count("native") == num_native


def test_a_budget_must_make_sense() -> None:
    for wrong in [{"share": 1.5}, {"share": -0.1}, {"items": -1}, {"seconds": -1.0}]:
        with pytest.raises(RecipeError):
            Budget(**wrong)


def test_a_pause_ends_work_until_it_is_taken_back(store: MemoryStore, ledger: Ledger) -> None:
    other = Ledger(ledger.path)
    switched(store, ledger)
    assert backfill_rows(store, ledger, new_model, batch_items=5, watch=lambda _: other.pause()) == "paused"
    assert list(origins(store).values()).count("native") == 5
    assert backfill_rows(store, ledger, failing) == "paused"
    assert transform_rows(store, ledger, transform) == "done"  # nothing to be done is no work
    other.resume()
    assert backfill_rows(store, ledger, new_model) == "done"


def test_a_signal_ends_work_after_the_batch_in_flight(store: MemoryStore, ledger: Ledger) -> None:
    switched(store, ledger)

    def terminated(ids: Sequence[str], sources: Sequence[str | None]) -> Encoded:
        os.kill(os.getpid(), signal.SIGTERM)
        return new_model(ids, sources)

    with pytest.raises(Interrupted, match="SIGTERM"):
        backfill_rows(store, ledger, terminated, batch_items=5)
    assert list(origins(store).values()).count("native") == ledger.progress("backfill").items_done == 5
    assert ledger.worker is None
    assert backfill_rows(store, ledger, new_model) == "done"


# What others do meanwhile.


def test_items_added_during_the_transformation(store: MemoryStore, ledger: Ledger) -> None:
    """By a process that knows the new model, by one that does not, and one that another is replaced by."""
    calls: list[int] = []

    def interfering(old: np.ndarray, side: np.ndarray | None) -> ToyTransformed:
        if not calls:  # the first batch was read, and is not yet filled in
            add(store, "knows", content="content 1", native_in=[old_model, new_model])
            add(store, "knows-not", content="content 2", native_in=[old_model])
            add(store, "item-00001", content="content 3", native_in=[old_model])
            add(store, "item-00049", content="content 4", native_in=[old_model, new_model])
        calls.append(len(old))
        return transform(old, side)

    assert transform_rows(store, ledger, interfering, batch_rows=NUM_ITEMS) == "done"
    assert origins(store)["knows"] == origins(store)["item-00049"] == "native"
    assert origins(store)["knows-not"] == origins(store)["item-00001"] == "transformed"
    assert len(origins(store)) == NUM_ITEMS + 2
    # Transformed from what is there, not from what was there.
    assert calls == [NUM_ITEMS, 2]
    late = ["item-00001", "knows-not"]
    expected = transform(store.get(late, space=OLD).vectors, None)
    np.testing.assert_array_equal(store.get(late, space=NEW).vectors, expected.vectors)


def test_a_transformed_vector_never_replaces_a_native_one(store: MemoryStore, ledger: Ledger) -> None:
    name = names(1)[0]

    def filling(old: np.ndarray, side: np.ndarray | None) -> ToyTransformed:
        store.fill([name], new_model([name], [source_of(name)]).vectors, space=NEW, origin="native")
        return transform(old, side)

    assert transform_rows(store, ledger, filling) == "done"
    np.testing.assert_array_equal(
        store.get([name], space=NEW).vectors, new_model([name], [source_of(name)]).vectors
    )
    assert origins(store)[name] == "native"


def test_items_added_between_transformation_and_switch(store: MemoryStore, ledger: Ledger) -> None:
    transform_rows(store, ledger, transform)
    add(store, "late", content="late content", native_in=[old_model])
    with pytest.raises(StoreError):
        store.serve(NEW)
    assert switch(store, ledger, transform) == "done"
    assert origins(store)["late"] == "transformed"
    with pytest.raises(SpaceMismatch):
        add(store, "later", content="later content", native_in=[old_model])


class Busy(MemoryStore):
    """Someone adds an item of the old model right before each of the first `num_added` attempts to switch."""

    num_added = 3

    def serve(self, space: str) -> None:
        if space == NEW and self.num_added:
            self.num_added -= 1
            add(self, f"busy-{self.num_added}", content=f"content {self.num_added}", native_in=[old_model])
        super().serve(space)


def test_the_switch_is_tried_again_while_items_come_in(ledger: Ledger) -> None:
    store = Busy()
    fill_gallery(store, NUM_ITEMS)
    assert switch(store, ledger, transform) == "done"
    assert len(origins(store)) == NUM_ITEMS + 3
    store = Busy()
    store.num_added = 1_000
    fill_gallery(store, NUM_ITEMS)
    with pytest.raises(StoreError, match="no vector in space"):
        switch(store, Ledger.create(ledger.path.with_name("other"), PLAN), transform)


def test_items_added_dropped_and_replaced_during_the_backfill(store: MemoryStore, ledger: Ledger) -> None:
    switched(store, ledger)
    replaced = "item-00002"

    def interfering(ids: Sequence[str], sources: Sequence[str | None]) -> Encoded:
        encoded = new_model(ids, sources)
        if replaced in ids:
            add(store, "new", content="new content", native_in=[new_model, old_model])
            add(store, replaced, content="other content", native_in=[new_model, old_model])
            store.drop([name for name in ids if name != replaced][:1])
        return encoded

    assert backfill_rows(store, ledger, interfering, batch_items=5) == "done"
    assert set(origins(store).values()) == {"native"}
    assert len(origins(store)) == NUM_ITEMS
    expected = new_model([replaced], ["other content"]).vectors
    np.testing.assert_array_equal(store.get([replaced]).vectors, expected)
    assert store.get([replaced]).sources == ["other content"]


def test_items_dropped_before_their_batch_are_not_encoded(
    store: MemoryStore, ledger: Ledger, tmp_path: Path
) -> None:
    switched(store, ledger)
    log = tmp_path / "log"
    backfill_rows(store, ledger, new_model, budget=Budget(items=1), batch_items=5)
    dropped = transformed(store, NEW)[:3]
    store.drop(dropped)
    assert backfill_rows(store, ledger, Toy(NEW, NEW_DIMENSION, log)) == "done"
    assert not set(dropped) & set(log.read_text().split())


# Sources that are gone.


def test_items_that_cannot_be_encoded_stay_transformed_and_are_listed(
    store: MemoryStore, ledger: Ledger
) -> None:
    store.put(["item-00000"], old_model(["item-00000"], ["x"]).vectors, space=OLD)  # without a source
    switched(store, ledger)
    before = contents(store)[NEW]
    lost = Toy(NEW, NEW_DIMENSION, lost=frozenset({source_of("item-00007")}))
    assert backfill_rows(store, ledger, lost, batch_items=5) == "done"
    assert ledger.gone() == {"item-00000": "no source", "item-00007": "deleted"}
    assert sorted(transformed(store, NEW)) == ["item-00000", "item-00007"]
    for name in ledger.gone():
        assert contents(store)[NEW][name] == before[name]
    assert ledger.status().num_gone == 2
    # One comes back, one is dropped.
    store.drop(["item-00000"])
    assert backfill_rows(store, ledger, new_model) == "done"
    assert ledger.gone() == {}
    assert transformed(store, NEW) == []


def test_gone_items_are_tried_once_a_call(store: MemoryStore, ledger: Ledger) -> None:
    switched(store, ledger)
    tried: list[str] = []

    def lost(ids: Sequence[str], sources: Sequence[str | None]) -> Encoded:
        tried.extend(ids)
        return Toy(NEW, NEW_DIMENSION, lost=frozenset({source_of("item-00007")}))(ids, sources)

    for _ in range(3):
        assert backfill_rows(store, ledger, lost) == "done"
    assert tried.count("item-00007") == 3
    assert len(tried) == NUM_ITEMS + 2


def test_an_encoder_that_loses_items_is_refused(store: MemoryStore, ledger: Ledger) -> None:
    switched(store, ledger)

    def losing(ids: Sequence[str], sources: Sequence[str | None]) -> Encoded:
        return new_model(ids[1:], sources[1:])

    before = contents(store)
    with pytest.raises(SampleError, match="given 50 items and returned 49"):
        backfill_rows(store, ledger, losing)
    assert contents(store) == before


# Half-filled batches of a store whose fills are not atomic.


class Torn(MemoryStore):
    capabilities = Capabilities(atomic_fill=False, several_writers=True, opens_online=True, rollback="none")


def test_a_half_filled_batch_is_encoded_again_whole(tmp_path: Path) -> None:
    whole, torn = Torn(), Torn()
    for number, store in enumerate([whole, torn]):
        fill_gallery(store, NUM_ITEMS)
        switched(store, Ledger.create(tmp_path / str(number), PLAN))
    backfill_rows(whole, Ledger(tmp_path / "0"), new_model, batch_items=10)

    def dying(ids: Sequence[str], sources: Sequence[str | None]) -> Encoded:
        made = new_model(ids, sources)
        torn.fill(made.ids[:4], made.vectors[:4], space=NEW, origin="native")
        raise RuntimeError("killed")

    ledger = Ledger(tmp_path / "1")
    with pytest.raises(RuntimeError, match="killed"):
        backfill_rows(torn, ledger, dying, batch_items=10)
    backfill_rows(torn, ledger, new_model)
    assert contents(torn) == contents(whole)


# Back.


def test_a_rollback_before_the_switch_leaves_no_trace(store: MemoryStore, ledger: Ledger) -> None:
    before = contents(store)
    transform_rows(store, ledger, transform)
    assert roll_back(store, ledger, failing) == "done"
    assert contents(store) == before
    assert ledger.phase == "rolled_back"
    assert roll_back(store, ledger, failing) == "done"


def test_a_rollback_keeps_what_was_added(store: MemoryStore, ledger: Ledger) -> None:
    before = contents(store)[OLD]
    switched(store, ledger)
    backfill_rows(store, ledger, new_model, budget=Budget(share=0.5))
    add(store, "knows", content="content 1", native_in=[new_model, old_model])
    add(store, "knows-not", content="content 2", native_in=[new_model])
    store.drop(["item-00003"])

    encoded: list[str] = []

    def interfering(ids: Sequence[str], sources: Sequence[str | None]) -> Encoded:
        made = old_model(ids, sources)
        if not encoded:
            add(store, "knows-not", content="content 3", native_in=[new_model])
        encoded.extend(ids)
        return made

    assert roll_back(store, ledger, interfering) == "done"
    after = contents(store)
    assert list(after) == [OLD]
    assert encoded == ["knows-not", "knows-not"]
    changed = {name: row for name, row in after[OLD].items() if before.get(name) != row}
    assert changed.keys() == {"knows", "knows-not"}
    assert before.keys() - after[OLD].keys() == {"item-00003"}
    vector, _, source = changed["knows-not"]
    assert vector == old_model(["knows-not"], ["content 3"]).vectors.tobytes()
    assert source == "content 3"


def test_a_rollback_names_items_that_the_old_model_cannot_encode(store: MemoryStore, ledger: Ledger) -> None:
    switched(store, ledger)
    store.put(["a"], new_model(["a"], ["content"]).vectors, space=NEW)
    with pytest.raises(StoreError, match=r"'a' \(no source\)"):
        roll_back(store, ledger, old_model)
    assert store.layout == Layout(NEW, NEW_DIMENSION)
    store.drop(["a"])
    assert roll_back(store, ledger, old_model) == "done"
    assert store.spaces == (Layout(OLD, OLD_DIMENSION),)


# What the phase does not allow.


def test_steps_out_of_turn_are_refused(store: MemoryStore, ledger: Ledger) -> None:
    with pytest.raises(RunError, match="is planned cannot be backfilled"):
        backfill_rows(store, ledger, new_model)
    with pytest.raises(RunError, match="is planned"):
        finish(store, ledger)
    assert list(contents(store)) == [OLD]
    switched(store, ledger)
    finish(store, ledger)
    for refused in [
        lambda: roll_back(store, ledger, old_model),
        lambda: switch(store, ledger, transform),
        lambda: transform_rows(store, ledger, transform),
        lambda: backfill_rows(store, ledger, new_model),
    ]:
        with pytest.raises(RunError, match="is finished"):
            refused()
    assert ledger.phase == "finished"


def test_the_gallery_of_another_upgrade_is_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    store.put(["a"], np.ones((1, 3), np.float32), space="somebody's")
    with pytest.raises(RunError, match='serves "somebody\'s"'):
        transform_rows(store, Ledger.create(tmp_path / "ledger", PLAN), transform)
    assert len(store.spaces) == 1


def test_an_upgrade_after_another(store: MemoryStore, ledger: Ledger, tmp_path: Path) -> None:
    switched(store, ledger)
    finish(store, ledger)
    newer = Plan(old_space=NEW, new=Layout("model-3", OLD_DIMENSION))
    second = Ledger.create(tmp_path / "second", newer)

    def shorter(old: np.ndarray, side: np.ndarray | None) -> ToyTransformed:
        return ToyTransformed(old[:, :OLD_DIMENSION], old[:, 0])

    assert switch(store, second, shorter) == "done"
    assert backfill_rows(store, second, Toy("model-3", OLD_DIMENSION)) == "done"
    finish(store, second)
    assert store.spaces == (Layout("model-3", OLD_DIMENSION),)
