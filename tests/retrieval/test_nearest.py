import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.errors import RecipeError, ShapeError
from regraft.retrieval.distances import EUCLIDEAN
from regraft.retrieval.nearest import agreement, exposure_ratio, nearest

NOBODY = np.array([-1])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(1, 11))
def test_nearest_agrees_with_a_full_sort(seed: int, num_rows: int, k: int) -> None:
    """On small whole numbers, where many distances are equal and float32 is exact."""
    draw, k = np.random.default_rng(seed), min(k, num_rows - 1)
    gallery = np.float32(np.hstack([draw.integers(0, 3, (num_rows, 2)), np.ones((num_rows, 1))]))
    queries, own = gallery[:2], np.array([0, -1])
    found = nearest(queries, gallery, k, own, metric=EUCLIDEAN)
    for query, row in enumerate(found.tolist()):
        far = ((gallery - queries[query]) ** 2).sum(axis=1)
        others = [item for item in range(num_rows) if item != own[query]]
        assert row == sorted(others, key=lambda item: (far[item], item))[:k]


def test_agreement_is_the_share_in_common() -> None:
    wanted = np.array([[0, 1, 2, 3], [4, 5, 6, 7]])
    assert agreement(wanted[:, ::-1], wanted) == 1
    assert agreement(np.array([[0, 1, 8, 9], [4, 5, 6, 9]]), wanted) == pytest.approx((0.5 + 0.75) / 2)
    assert agreement(wanted[::-1], wanted) == 0
    with pytest.raises(ShapeError, match="not empty"):
        agreement(wanted[:, :2], wanted)


def exposed(transformed: list[list[float]], native: list[list[float]], num_native: int, k: int) -> float:
    queries, order = np.float32([[1, 0]]), np.arange(len(native))
    return exposure_ratio(
        queries, np.float32(transformed), np.float32(native), order, k, NOBODY, num_native=num_native
    )


def test_exposure_by_hand() -> None:
    near, far = [[1, 0.1], [1, 0.2], [1, 0.3], [1, 0.4]], [[0, 1], [0, 2], [0, 3], [0, 4]]
    assert exposed(far, near, num_native=2, k=2) == 2  # native ones take all places, with half the gallery
    assert exposed(near, far, num_native=2, k=2) == 0  # crowded out
    assert exposed(near, near, num_native=1, k=3) == pytest.approx((1 / 3) / (1 / 4))
    same = [[1, 0.0]] * 4
    assert exposed(same, same, num_native=3, k=1) == 1  # all four tie at the first place


def test_exposure_leaves_the_query_itself_out() -> None:
    queries = native = np.float32([[1, 0], [1, 0.1], [1, 0.2], [0, 1]])
    order, own = np.array([0, 1, 2, 3]), np.array([0, -1, -1, -1])
    with_own = exposure_ratio(queries[:1], native, native, order, 1, NOBODY, num_native=1)
    without = exposure_ratio(queries[:1], native, native, order, 1, own[:1], num_native=1)
    assert (with_own, without) == (4, 0)


@pytest.mark.parametrize("k", [0, 4])
def test_as_many_neighbours_as_there_are(k: int) -> None:
    gallery = np.eye(4, dtype=np.float32)
    with pytest.raises(RecipeError, match=f"k is {k}; expected 1 to 3"):
        nearest(gallery[:1], gallery, k, NOBODY)


def test_something_is_native_and_asked_for() -> None:
    gallery = np.eye(4, dtype=np.float32)
    with pytest.raises(RecipeError, match="0 items are native"):
        exposure_ratio(gallery, gallery, gallery, np.arange(4), 1, np.arange(4), num_native=0)
    with pytest.raises(ShapeError, match="without a query"):
        exposure_ratio(gallery[:0], gallery, gallery, np.arange(4), 1, NOBODY[:0], num_native=1)
    with pytest.raises(ShapeError, match="own rows of 4"):
        nearest(gallery[:1], gallery, 1, np.arange(4))
