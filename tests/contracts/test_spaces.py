"""What every gallery must do with several spaces. `MemoryStore` is the specification."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from openers import LASTING, OPENERS

from regraft.errors import RegraftError, SpaceMismatch, StoreError, VectorError
from regraft.retrieval.store.memory import MemoryStore
from regraft.retrieval.store.protocol import Layout, Records, VectorStore

OLD, NEW, SIDE = Layout("old", 4), Layout("new", 6), Layout("side", 5, packed=True)


@pytest.fixture(params=OPENERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> VectorStore:
    """Five rows in the old space."""
    opened = OPENERS[request.param](tmp_path)
    opened.put(names(5), vectors(OLD, 5), space="old", sources=[f"{name}.png" for name in names(5)])
    return opened


def names(num_rows: int) -> list[str]:
    return [f"item-{row}" for row in range(num_rows)]


def vectors(layout: Layout, num_rows: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng([seed, layout.dimension])
    return generator.standard_normal((num_rows, layout.dimension)).astype(np.float32)


def rows_in(records: Records) -> dict[str, tuple]:
    columns = (map(np.ndarray.tobytes, records.vectors), records.spaces, records.origins, records.sources)
    return dict(zip(records.ids, zip(*columns, strict=True), strict=True))


def content(store: VectorStore) -> dict[str, dict[str, tuple]]:
    """Every row of every space, and which space is served under the name `None`."""
    found = {
        layout.space: {
            name: row for batch in store.scan(space=layout.space) for name, row in rows_in(batch).items()
        }
        for layout in store.spaces
    }
    return found | {"served": {str(store.layout): ()}}


def refuses(error: type[RegraftError], store: VectorStore, call: Callable[[], object], match: str) -> None:
    before = content(store)
    with pytest.raises(error, match=match):
        call()
    assert content(store) == before


def test_a_space_is_opened_empty(store: VectorStore) -> None:
    store.open_space(NEW)
    store.open_space(SIDE)
    store.open_space(NEW)
    assert store.spaces == (OLD, NEW, SIDE)
    assert store.layout == OLD
    assert (store.count(), store.count(space="new"), store.count(lacking="new")) == (5, 0, 5)
    assert list(store.scan(space="new")) == []
    assert store.find(names(5), space="new").ids == []


def test_a_fill_sets_one_space_and_leaves_the_rest(store: VectorStore) -> None:
    store.open_space(NEW)
    before = content(store)["old"]
    new = vectors(NEW, 3)
    assert store.fill(["item-3", "gone", "item-1"], new, space="new", origin="transformed") == 2
    found = store.find(["item-1", "item-2", "item-3"], space="new")
    assert found.ids == ["item-1", "item-3"]
    assert np.array_equal(found.vectors, new[[2, 0]])
    assert found.origins == ["transformed"] * 2
    assert found.sources == ["item-1.png", "item-3.png"]
    assert content(store)["old"] == before
    assert store.count(space="new", origin="native") == 0
    assert sorted(name for batch in store.scan(lacking="new") for name in batch.ids) == [
        "item-0", "item-2", "item-4",
    ]  # fmt: skip
    store.fill(["item-3"], new[1:2], space="new", origin="native")
    assert store.count(space="new", origin="native") == store.count(space="new", origin="transformed") == 1


def test_a_fill_of_the_served_space(store: VectorStore) -> None:
    better = vectors(OLD, 1, seed=1)
    assert store.fill(["item-2"], better, space="old", origin="transformed") == 1
    assert np.array_equal(store.get(["item-2"]).vectors, better)
    assert store.search(better, 1, space="old").ids == [["item-2"]]


def test_a_fill_is_refused(store: VectorStore) -> None:
    store.open_space(NEW)
    new = vectors(NEW, 1)
    refuses(
        SpaceMismatch, store, lambda: store.fill(["item-0"], new, space="other", origin="native"), "not open"
    )
    refuses(
        VectorError,
        store,
        lambda: store.fill(["item-0"], new[:, :3], space="new", origin="native"),
        "dimension",
    )
    refuses(
        VectorError, store, lambda: store.fill(["item-0"], new * 0, space="new", origin="native"), "cosine"
    )
    refuses(VectorError, store, lambda: store.fill(["a", "b"], new, space="new", origin="native"), "2 ids")
    refuses(
        VectorError,
        store,
        lambda: store.fill(["item-0"], new, space="new", origin="native", seen=store.get(["item-1"])),
        "same",
    )
    assert store.fill([], vectors(NEW, 0), space="new", origin="native") == 0


def test_what_changed_since_it_was_seen_is_not_filled(store: VectorStore) -> None:
    store.open_space(NEW)
    seen = store.get(names(5))
    store.put(["item-0"], seen.vectors[:1], space="old", sources=["other.png"])
    store.fill(["item-1"], vectors(OLD, 1, seed=2), space="old", origin="native")
    native = vectors(NEW, 1, seed=3)
    store.fill(["item-2"], native, space="new", origin="native")
    store.drop(["item-3"])
    assert store.fill(names(5), vectors(NEW, 5), space="new", origin="transformed", seen=seen) == 1
    assert store.find(names(5), space="new").ids == ["item-2", "item-4"]
    assert np.array_equal(store.get(["item-2"], space="new").vectors, native)
    seen = store.get(["item-2", "item-4"], space="new")
    assert store.fill(["item-2", "item-4"], vectors(NEW, 2), space="new", origin="native", seen=seen) == 2


def test_a_switch(store: VectorStore) -> None:
    store.open_space(NEW)
    old, new = vectors(OLD, 5), vectors(NEW, 5)
    refuses(StoreError, store, lambda: store.serve("new"), "5 rows have no vector")
    store.fill(names(5), new, space="new", origin="transformed")
    refuses(SpaceMismatch, store, lambda: store.search(new, 1, space="new"), "answers in space 'old'")
    store.serve("new")
    store.serve("new")
    assert (store.layout, store.spaces) == (NEW, (NEW, OLD))
    assert store.search(new, 1, space="new").ids == [[name] for name in names(5)]
    assert store.count(origin="transformed") == 5
    refuses(SpaceMismatch, store, lambda: store.search(old, 1, space="old"), "answers in space 'new'")
    refuses(SpaceMismatch, store, lambda: store.put(["a"], old[:1], space="old"), "answers in space 'new'")
    store.serve("old")
    assert store.search(old, 1, space="old").ids == [[name] for name in names(5)]


def test_only_an_open_whole_space_is_served(store: VectorStore) -> None:
    store.open_space(SIDE)
    store.fill(names(5), vectors(SIDE, 5), space="side", origin="native")
    refuses(SpaceMismatch, store, lambda: store.serve("side"), "packed")
    refuses(SpaceMismatch, store, lambda: store.serve("other"), "not open")


def test_a_row_put_after_the_fill_holds_up_the_switch(store: VectorStore) -> None:
    store.open_space(NEW)
    store.fill(names(5), vectors(NEW, 5), space="new", origin="transformed")
    store.put(["item-4", "late"], vectors(OLD, 2), space="old")
    assert store.find(["item-4"], space="new").ids == []
    refuses(StoreError, store, lambda: store.serve("new"), "2 rows")


def test_a_row_that_is_put_again_forgets_its_other_vectors(store: VectorStore) -> None:
    store.open_space(NEW)
    store.open_space(SIDE)
    store.fill(names(5), vectors(NEW, 5), space="new", origin="native")
    store.fill(names(5), vectors(SIDE, 5), space="side", origin="native")
    store.drop(["item-0"])
    assert store.put(["item-0", "item-1"], vectors(OLD, 2), space="old") == 2
    for space in ("new", "side"):
        assert store.find(names(5), space=space).ids == ["item-2", "item-3", "item-4"]
        assert store.count(lacking=space) == store.count(lacking=space, origin="native") == 2
    with pytest.raises(StoreError, match="'item-0', 'item-1'"):
        store.get(names(3), space="new")
    assert store.fill(["item-0"], vectors(NEW, 1), space="new", origin="transformed") == 1
    assert store.get(["item-0"], space="new").origins == ["transformed"]


def test_a_dropped_row_is_gone_from_every_space(store: VectorStore) -> None:
    store.open_space(NEW)
    store.fill(names(5), vectors(NEW, 5), space="new", origin="native")
    assert store.drop(["item-0", "gone"]) == 1
    assert (store.count(), store.count(space="new")) == (4, 4)


def test_a_closed_space_is_forgotten(store: VectorStore) -> None:
    store.open_space(NEW)
    store.fill(names(5), vectors(NEW, 5), space="new", origin="native")
    store.serve("new")
    refuses(SpaceMismatch, store, lambda: store.close_space("new"), "is served")
    store.close_space("old")
    store.close_space("old")
    assert store.spaces == (NEW,)
    assert store.count(space="old") == 0
    store.open_space(OLD)
    assert store.count(space="old") == 0
    assert store.spaces == (NEW, OLD)


def answers(store: VectorStore, layout: Layout) -> list[object]:
    hits = store.search(vectors(layout, 3, seed=9), 4, space=layout.space)
    return [hits.ids, [scores.tolist() for scores in hits.scores]]


def test_tidying_changes_neither_rows_nor_answers(store: VectorStore) -> None:
    """Whatever is open beside the served space, and done twice."""
    store.open_space(NEW)
    store.open_space(SIDE)
    store.tidy(space="new")
    for number in range(3):
        store.fill(names(5), vectors(NEW, 5, seed=number), space="new", origin="transformed")
        store.fill(names(4), vectors(OLD, 4, seed=number), space="old", origin="native")
    store.fill(names(3), vectors(SIDE, 3), space="side", origin="native")
    store.drop(["item-4"])
    before, old = content(store), answers(store, OLD)
    for space in (None, "old", "new", "new", None):
        store.tidy(space=space)
        assert (content(store), answers(store, OLD)) == (before, old)
    memory = MemoryStore()
    memory.put(names(4), vectors(NEW, 4, seed=2), space="new")
    store.serve("new")
    for _ in range(2):
        assert answers(store, NEW) == answers(memory, NEW)
        store.tidy()
    store.drop(names(5))
    store.tidy()
    store.put(names(4), vectors(NEW, 4, seed=2), space="new")
    assert answers(store, NEW) == answers(memory, NEW)


def test_only_what_is_searched_is_made_quick(store: VectorStore) -> None:
    store.open_space(SIDE)
    refuses(SpaceMismatch, store, lambda: store.tidy(space="side"), "packed")
    refuses(SpaceMismatch, store, lambda: store.tidy(space="other"), "not open")


def test_spaces_that_are_refused(store: VectorStore, tmp_path: Path) -> None:
    refuses(SpaceMismatch, store, lambda: store.open_space(Layout("old", 9)), "open as")
    refuses(SpaceMismatch, store, lambda: store.open_space(Layout("old", 4, packed=True)), "open as")
    refuses(VectorError, store, lambda: store.open_space(Layout("", 4)), "cannot be opened")


@pytest.mark.parametrize("name", OPENERS)
def test_a_gallery_without_any_put_has_no_space(name: str, tmp_path: Path) -> None:
    store = OPENERS[name](tmp_path)
    with pytest.raises(StoreError, match="holds nothing yet"):
        store.open_space(NEW)
    with pytest.raises(SpaceMismatch, match="not open"):
        store.serve("new")
    with pytest.raises(SpaceMismatch, match="not open"):
        store.fill(["a"], vectors(NEW, 1), space="new", origin="native")
    with pytest.raises(SpaceMismatch, match="not open"):
        store.tidy(space="new")
    store.close_space("new")
    store.tidy()
    assert (store.spaces, store.count(space="new"), store.find(["a"]).ids) == ((), 0, [])


def test_packed_vectors_come_back_rounded(store: VectorStore) -> None:
    side = vectors(SIDE, 5) * np.array([[1e-6], [1], [1e3], [1e-3], [5]], np.float32)
    store.open_space(SIDE)
    store.fill(names(5), side, space="side", origin="native")
    read = store.get(names(5), space="side").vectors
    step = np.abs(side).max(axis=1, keepdims=True) / 127
    assert (np.abs(read - side) <= step * 0.501).all()
    assert not np.array_equal(read, side)


def test_a_scan_keeps_to_the_rows_it_began_with(store: VectorStore) -> None:
    store.open_space(NEW)
    new = vectors(NEW, 5)
    store.fill(names(5), new, space="new", origin="transformed")
    batches = store.scan(space="new", batch_rows=2)
    first = next(batches)
    store.fill(names(5), new[::-1].copy(), space="new", origin="native")
    seen = [*first.origins, *(origin for batch in batches for origin in batch.origins)]
    assert seen == ["transformed"] * 5


@pytest.mark.parametrize("name", LASTING)
def test_spaces_outlive_the_process(name: str, tmp_path: Path) -> None:
    store = LASTING[name](tmp_path)
    store.put(names(5), vectors(OLD, 5), space="old")
    store.open_space(SIDE)
    store.open_space(NEW)
    store.fill(names(5), vectors(NEW, 5), space="new", origin="transformed")
    store.fill(names(2), vectors(SIDE, 2), space="side", origin="native")
    store.serve("new")
    before = content(store)
    again = LASTING[name](tmp_path)
    assert content(again) == before
    assert again.layout == NEW


LAYOUTS = st.sampled_from([OLD, NEW, SIDE])
IDS = st.lists(st.sampled_from(names(6)), min_size=1, max_size=4, unique=True)


def against_memory(opener: Callable[[Path], VectorStore]) -> type[RuleBasedStateMachine]:
    """A random walk over every verb, in step with the specification."""

    class Walk(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
            self.pair = (MemoryStore(), opener(Path(self.folder.name)))
            self.both(lambda store: store.put(names(3), vectors(OLD, 3), space="old"))

        def teardown(self) -> None:
            self.folder.cleanup()

        def both(self, call: Callable[[VectorStore], object]) -> None:
            outcomes = []
            for store in self.pair:
                try:
                    outcomes.append(call(store))
                except RegraftError as error:
                    outcomes.append(type(error))
            assert outcomes[0] == outcomes[1]

        @rule(ids=IDS, layout=LAYOUTS, seed=st.integers(0, 3))
        def put(self, ids: list[str], layout: Layout, seed: int) -> None:
            made = vectors(layout, len(ids), seed)
            self.both(lambda store: store.put(ids, made, space=layout.space, sources=ids))

        @rule(
            ids=IDS, layout=LAYOUTS, seed=st.integers(0, 3), origin=st.sampled_from(["native", "transformed"])
        )
        def fill(self, ids: list[str], layout: Layout, seed: int, origin: str) -> None:
            made = vectors(layout, len(ids), seed)
            self.both(lambda store: store.fill(ids, made, space=layout.space, origin=origin))

        @rule(layout=LAYOUTS)
        def fill_all(self, layout: Layout) -> None:
            made = vectors(layout, 6)
            self.both(lambda store: store.fill(names(6), made, space=layout.space, origin="transformed"))

        @rule(ids=IDS)
        def drop(self, ids: list[str]) -> None:
            self.both(lambda store: store.drop(ids))

        @rule(layout=LAYOUTS)
        def open_space(self, layout: Layout) -> None:
            self.both(lambda store: store.open_space(layout))

        @rule(layout=LAYOUTS)
        def serve(self, layout: Layout) -> None:
            self.both(lambda store: store.serve(layout.space))

        @rule(layout=LAYOUTS)
        def close_space(self, layout: Layout) -> None:
            self.both(lambda store: store.close_space(layout.space))

        @rule(layout=st.sampled_from([OLD, NEW, SIDE, None]))
        def tidy(self, layout: Layout | None) -> None:
            self.both(lambda store: store.tidy(space=layout and layout.space))

        @invariant()
        def same(self) -> None:
            assert content(self.pair[0]) == content(self.pair[1])
            self.both(lambda store: store.spaces)
            self.same_answers(OLD)
            self.same_answers(NEW)

        def same_answers(self, layout: Layout) -> None:
            queries = vectors(layout, 2, seed=9)
            self.both(lambda store: store.search(queries, 3, space=layout.space).ids)
            self.both(lambda store: store.count(lacking=layout.space))

    return Walk


@pytest.mark.parametrize("name", LASTING)
def test_a_random_walk_agrees_with_memory(name: str) -> None:
    walk = against_memory(LASTING[name])
    few = settings(
        max_examples=5, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(walk, settings=few)
