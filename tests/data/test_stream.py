import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.data.stream import Order, check_share, counter_seed, random_words, share
from regraft.errors import RecipeError


def test_seeds_are_the_same_on_every_machine():
    assert counter_seed() == 6510301506637419378
    assert counter_seed(0, 1, "a") == 1056689032772940992
    assert counter_seed("a", "b") != counter_seed("ab")
    assert counter_seed(1) != counter_seed("1")
    assert counter_seed(-1) != counter_seed(1)


def test_seeds_do_not_depend_on_the_process():
    code = "from regraft.data.stream import counter_seed; print(counter_seed(7, 'cat/\\udcff.jpg'))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(told.stdout) == counter_seed(7, "cat/\udcff.jpg")


@given(st.lists(st.integers() | st.text()))
def test_seeds_fit_63_bits(parts: list[int | str]):
    assert 0 <= counter_seed(*parts) < 2**63


def test_random_words_are_splitmix64():
    # The reference implementation's first outputs for this seed.
    seeds = np.array([1234567], np.uint64)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [int(random_words(seeds, draw)[0]) for draw in range(3)] == expected


def test_random_words_are_spread_evenly():
    words = random_words(np.arange(100_000, dtype=np.uint64), 0)
    counts = np.bincount((words % np.uint64(9)).astype(int))
    # Expected 11,111 with a deviation of 99: five deviations either way.
    assert np.abs(counts - 100_000 / 9).max() < 500


def test_an_order_is_the_same_on_every_machine():
    assert Order(10, 5, seed=0).batch(0)[1].tolist() == [9, 2, 1, 7, 5]
    assert Order(10, 5, seed=0).batch(1)[1].tolist() == [0, 4, 6, 8, 3]


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_shows_every_sample_once(num_samples: int, batch_size: int, seed: int, epoch: int):
    batch_size = min(batch_size, num_samples)
    order = Order(num_samples, batch_size, seed)
    steps = [order.batch(epoch * order.steps_per_epoch + i) for i in range(order.steps_per_epoch)]
    assert {of for of, _ in steps} == {epoch}
    assert all(len(indices) == batch_size for _, indices in steps)
    seen = np.concatenate([indices for _, indices in steps]).tolist()
    assert len(set(seen)) == len(seen) == num_samples - num_samples % batch_size
    assert set(seen) <= set(range(num_samples))


def test_epochs_and_seeds_differ():
    first = Order(100, 100, seed=0).batch(0)[1].tolist()
    assert first != Order(100, 100, seed=0).batch(1)[1].tolist()
    assert first != Order(100, 100, seed=1).batch(0)[1].tolist()
    assert Order(100, 10, seed=0).epoch(25) == 2


def test_a_caller_cannot_spoil_the_order():
    order = Order(10, 5, seed=0)
    with pytest.raises(ValueError, match="read-only"):
        order.batch(0)[1][0] = 3


@pytest.mark.parametrize(("num_samples", "batch_size"), [(3, 4), (3, 0), (0, 1)])
def test_impossible_batch_sizes_are_refused(num_samples: int, batch_size: int):
    with pytest.raises(RecipeError, match=f"batch_size is {batch_size}"):
        Order(num_samples, batch_size, seed=0)


def test_shares_make_up_the_batch():
    _, indices = Order(100, 12, seed=0).batch(3)
    shares = [share(indices, rank, 3) for rank in range(3)]
    assert [part.tolist() for part in shares] == [indices[rank::3].tolist() for rank in range(3)]


def test_uneven_shares_are_refused():
    with pytest.raises(RecipeError, match="3 processes cannot share") as caught:
        check_share(8, 0, 3)
    assert "such as 9" in str(caught.value)
    with pytest.raises(RecipeError, match="rank is 2"):
        check_share(8, 2, 2)
