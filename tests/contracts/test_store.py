"""What every gallery must do. `MemoryStore` is the specification; the others are held to it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openers import OPENERS

from regraft.errors import SpaceMismatch, StoreError, VectorError
from regraft.retrieval.store.lance import LanceStore
from regraft.retrieval.store.memory import MemoryStore
from regraft.retrieval.store.protocol import Layout, Records, VectorStore

SPACE = "space-of-model-1"


@pytest.fixture(params=OPENERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> VectorStore:
    return OPENERS[request.param](tmp_path)


def random_vectors(num_rows: int, dimension: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_rows, dimension)).astype(np.float32)


def names(num_rows: int) -> list[str]:
    return [f"item-{row}" for row in range(num_rows)]


def as_rows(records: Records) -> dict[str, tuple]:
    columns = (records.vectors.tolist(), records.spaces, records.origins, records.sources)
    return {name: tuple(map(str, row)) for name, *row in zip(records.ids, *columns, strict=True)}


def content(store: VectorStore) -> dict[str, tuple]:
    rows: dict[str, tuple] = {}
    for batch in store.scan():
        rows |= as_rows(batch)
    return rows


# What is written is there.


def check_reads_back(store: VectorStore) -> None:
    vectors = random_vectors(20)
    sources = [None if row % 3 == 0 else f"pictures/{row}.png" for row in range(20)]
    assert store.put(names(20), vectors, space=SPACE, origin="transformed", sources=sources) == 20
    for _ in range(2):
        asked = [7, 3, 19, 3]
        records = store.get([f"item-{row}" for row in asked])
        assert records.ids == [f"item-{row}" for row in asked]
        np.testing.assert_array_equal(records.vectors, vectors[asked])
        assert records.spaces == [SPACE] * 4
        assert records.origins == ["transformed"] * 4
        assert records.sources == [sources[row] for row in asked]
    assert store.count() == 20
    assert store.layout == Layout(SPACE, 8)


def check_replaces(store: VectorStore) -> None:
    before, after = random_vectors(30), random_vectors(30, seed=1)
    store.put(names(20), before[:20], space=SPACE, origin="transformed", sources=["old"] * 20)
    assert store.put(names(30)[10:], after[10:], space=SPACE, sources=["new"] * 20) == 20
    for _ in range(2):
        records = store.get(names(30))
        np.testing.assert_array_equal(records.vectors, np.concatenate([before[:10], after[10:]]))
        assert records.origins == ["transformed"] * 10 + ["native"] * 20
        assert records.sources == ["old"] * 10 + ["new"] * 20
    assert store.count() == 30


def test_a_row_is_replaced_with_its_source(store: VectorStore) -> None:
    store.put(["a"], random_vectors(1), space=SPACE, origin="transformed", sources=["a.png"])
    store.put(["a"], random_vectors(1), space=SPACE)
    records = store.get(["a"])
    assert (records.origins, records.sources) == (["native"], [None])


def test_reads_back_what_was_put(store: VectorStore) -> None:
    check_reads_back(store)


def test_replaces_rows_by_id(store: VectorStore) -> None:
    check_replaces(store)


class WritesNothing(MemoryStore):
    """Its put acknowledges rows that it did not write, as LanceDB was reported to."""

    def __init__(self, *, loses: str) -> None:
        super().__init__()
        self.loses = loses

    def put(self, ids, vectors, *, sources, **columns) -> int:
        kept = [row for row, name in enumerate(ids) if (name in self._rows) == (self.loses == "inserts")]
        super().put(
            [ids[row] for row in kept], vectors[kept], sources=[sources[row] for row in kept], **columns
        )
        return len(ids)


@pytest.mark.parametrize("loses", ["inserts", "updates"])
def test_the_suite_catches_a_store_that_writes_nothing(loses: str) -> None:
    with pytest.raises((AssertionError, StoreError)):
        check_replaces(WritesNothing(loses=loses))


def test_an_empty_gallery_answers(store: VectorStore) -> None:
    assert store.layout is None
    assert store.count() == 0
    assert list(store.scan()) == []
    assert store.drop(["nobody"]) == 0
    assert len(store.get([])) == 0
    assert store.search(random_vectors(2), 3, space="any").ids == [[], []]
    with pytest.raises(StoreError, match="'nobody'"):
        store.get(["nobody"])
    assert store.put([], np.zeros((0, 8), np.float32), space=SPACE) == 0
    assert store.layout is None


def test_the_layout_outlives_the_rows(store: VectorStore) -> None:
    store.put(names(3), random_vectors(3), space=SPACE)
    assert store.drop(names(3)) == 3
    assert store.layout == Layout(SPACE, 8)
    assert store.search(random_vectors(1), 2, space=SPACE).ids == [[]]
    assert len(store.get([])) == 0
    with pytest.raises(SpaceMismatch):
        store.put(names(3), random_vectors(3), space="space-of-model-2")


def test_rows_are_single_precision_copies(store: VectorStore) -> None:
    vectors = random_vectors(2).astype(np.float64)
    store.put(names(2), vectors, space=SPACE)
    vectors[:] = 5
    store.get(names(2)).vectors[:] = 6
    next(iter(store.scan())).vectors[:] = 7
    np.testing.assert_array_equal(store.get(names(2)).vectors, random_vectors(2))


def test_odd_ids_are_only_names(store: VectorStore) -> None:
    ids = ["it's", '"q"', "'; DROP TABLE gallery; --", "%_\\", "a\x00b", "a", "A", " a", "new\nline"]
    ids += ["é", "e\u0301", "漢字", "🙂", "x" * 2000, "NULL", "0", "id", "') OR ('1'='1"]
    vectors = random_vectors(len(ids))
    for _ in range(2):
        assert store.put(ids, vectors, space="it's ' -- é", sources=ids) == len(ids)
    records = store.get(ids[::-1])
    assert records.ids == records.sources == ids[::-1]
    np.testing.assert_array_equal(records.vectors, vectors[::-1])
    assert store.count(space="it's ' -- é") == len(ids)
    for number, name in enumerate(ids):
        assert store.search(vectors[number][None], 1, space="it's ' -- é").ids == [[name]]
    for num_left, name in reversed(list(enumerate(ids))):
        assert store.drop([name]) == 1
        assert store.count() == num_left


# What is sought is found.


def test_scores_are_cosines(store: VectorStore) -> None:
    store.put(
        ["along", "across", "against", "between"], np.float32([[9, 0], [0, 2], [-1, 0], [3, 3]]), space=SPACE
    )
    hits = store.search(np.float32([[5, 0], [0, 0.1]]), 4, space=SPACE)
    half = np.sqrt(0.5)
    assert hits.ids == [["along", "between", "across", "against"], ["across", "between", "against", "along"]]
    np.testing.assert_allclose(hits.scores[0], [1, half, 0, -1], atol=1e-7)
    np.testing.assert_allclose(hits.scores[1], [1, half, 0, 0], atol=1e-7)
    assert all(scores.dtype == np.float32 for scores in hits.scores)


def test_equal_scores_stand_in_the_order_of_their_ids(store: VectorStore) -> None:
    direction = random_vectors(1)[0]
    ids = ["m", "b", "z", "a", "y", "c", "B", "é"]
    store.put(ids, np.stack([direction * 2**row for row in range(len(ids))]), space=SPACE)
    store.put(["far"], -direction[None], space=SPACE)
    for k in (1, 3, len(ids)):
        assert store.search(direction[None], k, space=SPACE).ids == [sorted(ids)[:k]]


def test_a_small_gallery_gives_fewer_hits(store: VectorStore) -> None:
    store.put(names(3), random_vectors(3), space=SPACE)
    hits = store.search(random_vectors(5, seed=1), 10, space=SPACE)
    assert [len(ids) for ids in hits.ids] == [3] * 5
    assert store.search(random_vectors(5)[:0], 10, space=SPACE).ids == []


def test_a_replaced_vector_is_no_longer_found(store: VectorStore) -> None:
    first, second = np.eye(8, dtype=np.float32)[:2]
    store.put(["moved", "still"], np.stack([first, second]), space=SPACE)
    store.put(["moved"], -first[None], space=SPACE)
    assert store.search(first[None], 2, space=SPACE).ids == [["still", "moved"]]
    store.drop(["still"])
    assert store.search(first[None], 2, space=SPACE).ids == [["moved"]]


@pytest.mark.parametrize("opener", OPENERS)
def test_recall(opener: str, tmp_path: Path) -> None:
    """Of the ten nearest in clustered data at least 95 in 100 are found, with scores exact to float32 noise.

    The index reads about 20 of its 40 lists; a cluster across the edge of a list may cost a hit.
    """
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((50, 16))
    vectors, queries = (
        (centres[draw.integers(0, 50, rows)] + 0.5 * draw.standard_normal((rows, 16))).astype(np.float32)
        for rows in (2000, 40)
    )
    store, exact = OPENERS[opener](tmp_path), MemoryStore()
    for each in (store, exact):
        each.put(names(1500), vectors[:1500], space=SPACE)
    if isinstance(store, LanceStore) and opener != "lance":
        store.index(num_partitions=40)
    for each in (store, exact):
        each.put(names(2000)[1500:], vectors[1500:], space=SPACE)
    found, wanted = (each.search(queries, 10, space=SPACE) for each in (store, exact))
    common = [len(set(mine) & set(theirs)) for mine, theirs in zip(found.ids, wanted.ids, strict=True)]
    assert sum(common) >= 0.95 * 400
    for ids, scores, number in zip(found.ids, found.scores, range(40), strict=True):
        rows = [int(name.removeprefix("item-")) for name in ids]
        lengths = np.linalg.norm(vectors[rows], axis=1) * np.linalg.norm(queries[number])
        np.testing.assert_allclose(scores, vectors[rows] @ queries[number] / lengths, atol=1e-6)


# What is there can be walked, counted and removed.


@pytest.fixture
def mixed(store: VectorStore) -> VectorStore:
    """A gallery half way through an upgrade: ten native rows, fifteen transformed ones."""
    store.put(names(25)[:10], random_vectors(10), space=SPACE, origin="native")
    store.put(names(25)[10:], random_vectors(15, seed=1), space=SPACE, origin="transformed")
    return store


@pytest.mark.parametrize("batch_rows", [1, 7, 25, 1000])
def test_a_scan_gives_every_row_once(mixed: VectorStore, batch_rows: int) -> None:
    batches = list(mixed.scan(batch_rows=batch_rows))
    assert [len(batch) for batch in batches[:-1]] == [batch_rows] * (len(batches) - 1)
    assert sorted(name for batch in batches for name in batch.ids) == sorted(names(25))
    assert content(mixed) == as_rows(mixed.get(names(25)))
    again = list(mixed.scan(batch_rows=batch_rows))
    assert [batch.ids for batch in again] == [batch.ids for batch in batches]


def test_rows_are_chosen_by_origin_and_space(mixed: VectorStore) -> None:
    for origin, space, wanted in [
        ("native", None, 10),
        ("transformed", SPACE, 15),
        (None, SPACE, 25),
        (None, "another", 0),
    ]:
        assert mixed.count(origin=origin, space=space) == wanted
        records = [row for batch in mixed.scan(origin=origin, space=space) for row in batch.origins]
        assert len(records) == wanted
        assert set(records) <= ({"native", "transformed"} if origin is None else {origin})


def test_a_scan_sees_the_rows_of_its_beginning(mixed: VectorStore) -> None:
    """The loop of an upgrade: walk what is transformed, and replace it on the way."""
    seen: list[str] = []
    for batch in mixed.scan(origin="transformed", batch_rows=4):
        seen += batch.ids
        assert set(batch.origins) == {"transformed"}
        mixed.put(batch.ids, -batch.vectors, space=SPACE, origin="native")
        mixed.put([f"late-{len(seen)}"], random_vectors(1), space=SPACE, origin="transformed")
    assert sorted(seen) == sorted(names(25)[10:])
    assert mixed.count(origin="native") == 25


def test_drop_counts_what_it_removed(mixed: VectorStore) -> None:
    assert mixed.drop(["item-3", "nobody", "item-20", "item-3"]) == 2
    assert mixed.count() == 23
    with pytest.raises(StoreError, match="'item-3'"):
        mixed.get(["item-4", "item-3"])
    assert mixed.put(["item-3"], random_vectors(1), space=SPACE) == 1
    assert mixed.count() == 24


# What is wrong is refused, and changes nothing.

GOOD = {"ids": ["a", "b"], "vectors": random_vectors(2), "space": SPACE}
BAD_PUTS: dict[str, tuple[dict[str, object], type[StoreError], str]] = {
    "NaN": ({"vectors": np.float32([[1] * 8, [np.nan] * 8])}, VectorError, "'b'"),
    "infinity": ({"vectors": np.float32([[np.inf] * 8, [1] * 8])}, VectorError, "'a'"),
    "beyond float32": ({"vectors": np.full((2, 8), 1e300)}, VectorError, "infinity"),
    "no length": ({"vectors": np.zeros((2, 8), np.float32)}, VectorError, "'a', 'b'.*length 0"),
    "below float32": ({"vectors": np.full((2, 8), 1e-30)}, VectorError, "length"),
    "empty id": ({"ids": ["a", ""]}, VectorError, "empty"),
    "empty space": ({"space": ""}, VectorError, "empty"),
    "id twice": ({"ids": ["a", "a"]}, VectorError, "more than once.*'a'"),
    "surrogate": ({"ids": ["a", "\ud800"]}, VectorError, "Unicode"),
    "surrogate in source": ({"sources": ["\udcff", None]}, VectorError, "Unicode"),
    "fewer ids": ({"ids": ["a"]}, VectorError, "1 ids, 2 vectors"),
    "fewer sources": ({"sources": ["x"]}, VectorError, "1 sources"),
}
BAD_LATER_PUTS = BAD_PUTS | {
    "another space": ({"space": "model-2"}, SpaceMismatch, f"'{SPACE}'.*'model-2'"),
    "another dimension": ({"vectors": random_vectors(2, 9)}, VectorError, "dimension 9.*8"),
}


@pytest.mark.parametrize(("change", "error", "words"), BAD_PUTS.values(), ids=BAD_PUTS)
def test_a_bad_first_put_leaves_the_gallery_empty(store: VectorStore, change, error, words) -> None:
    with pytest.raises(error, match=words):
        store.put(**GOOD | change)
    assert store.layout is None
    assert store.count() == 0


def test_bad_puts_change_nothing(store: VectorStore) -> None:
    store.put(["a", "z"], random_vectors(2, seed=3), space=SPACE, sources=["here", None])
    before = content(store)
    for change, error, words in BAD_LATER_PUTS.values():
        with pytest.raises(error, match=words):
            store.put(**GOOD | change)
    assert content(store) == before


def test_bad_searches_are_refused(store: VectorStore) -> None:
    store.put(**GOOD)
    query = random_vectors(1)
    for queries, k, space, error in [
        (query, 1, "model-2", SpaceMismatch),
        (random_vectors(1, 9), 1, SPACE, VectorError),
        (query, 0, SPACE, VectorError),
        (query * np.nan, 1, SPACE, VectorError),
        (query * 0, 1, SPACE, VectorError),
    ]:
        with pytest.raises(error):
            store.search(queries, k, space=space)
    with pytest.raises(StoreError, match="batches of 0"):
        store.scan(batch_rows=0)


# Any sequence of calls leaves the same rows as in memory.

IDS = st.sampled_from(["a", "b", "c", "it's", "é", "\x00", '"', "z" * 50])
NUMBERS = st.floats(-4, 4, width=32).filter(lambda x: x == 0 or abs(x) > 1e-6)
ROWS = st.dictionaries(IDS, st.lists(NUMBERS, min_size=3, max_size=3).filter(any), max_size=4)
CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), ROWS, st.sampled_from(["native", "transformed"])),
        st.tuples(st.just("drop"), st.lists(IDS, max_size=3), st.none()),
        st.tuples(
            st.just("search"), st.lists(NUMBERS, min_size=3, max_size=3).filter(any), st.integers(1, 9)
        ),
    ),
    max_size=5,
)


def replay(store: VectorStore, calls: list[tuple]) -> Iterator[object]:
    for verb, what, how in calls:
        if verb == "put":
            vectors = np.array(list(what.values()), np.float32).reshape(len(what), 3)
            yield store.put(list(what), vectors, space=SPACE, origin=how)
        elif verb == "drop":
            yield store.drop(what)
        else:
            hits = store.search(np.float32([what]), how, space=SPACE)
            yield hits.ids, [scores.tolist() for scores in hits.scores]


@pytest.mark.parametrize("opener", [name for name in OPENERS if name != "memory"])
@settings(max_examples=15, deadline=None)
@given(calls=CALLS)
def test_agrees_with_memory(opener: str, calls: list[tuple]) -> None:
    """Scores are summed by one function, so they must be equal to the bit however the rows are stored."""
    with tempfile.TemporaryDirectory() as folder:
        store, memory = OPENERS[opener](Path(folder)), MemoryStore()
        assert list(replay(store, calls)) == list(replay(memory, calls))
        assert content(store) == content(memory)
        assert store.layout == memory.layout
