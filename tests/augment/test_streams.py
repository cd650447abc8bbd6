"""Numbers that depend on what they are for, and on nothing else."""

import subprocess
import sys

import numpy as np

from regraft.augment.streams import Streams, keys_of


def numbers(ids: list[str], draws: list[int], seed: int = 0) -> np.ndarray:
    return Streams.of(seed, keys_of(ids), np.array(draws)).uniform("slot")


def test_company_and_order_do_not_matter() -> None:
    whole = numbers(["a", "b", "c"], [0, 5, 2])
    assert numbers(["c", "a"], [2, 0]).tolist() == whole[[2, 0]].tolist()
    assert numbers(["b"], [5]).tolist() == whole[[1]].tolist()


def test_other_processes_draw_the_same() -> None:
    code = (
        "import numpy as np; from regraft.augment.streams import *;"
        "print(Streams.of(7, keys_of(['a/b.jpg']), np.array([3])).uniform('slot')[0].hex())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == numbers(["a/b.jpg"], [3], seed=7)[0].hex()


def test_all_that_a_number_is_for_matters() -> None:
    streams = Streams.of(0, keys_of(["a"]), np.array([0]))
    drawn = [
        *numbers(["a"], [0]), *numbers(["b"], [0]), *numbers(["a"], [1]), *numbers(["a"], [0], seed=1),
        *streams.uniform("other"), *streams.child("slot").uniform("slot"),
        *streams.child("x").uniform("slot"),
    ]  # fmt: skip
    assert len(set(drawn)) == len(drawn)


def test_numbers_are_spread_evenly_and_apart() -> None:
    ids, draws = [str(n) for n in range(400)], np.tile(np.arange(50), 400)
    streams = Streams.of(3, np.repeat(keys_of(ids), 50), draws)
    first, second = streams.uniform("first"), streams.uniform("second")
    for drawn in (first, second, (first + second) % 1):
        counts = np.histogram(drawn, 100, (0, 1))[0]
        assert ((counts - 200) ** 2 / 200).sum() < 160  # chi-squared of 99: 3.6 deviations above its mean
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    by_sample = first.reshape(400, 50)
    assert abs(np.corrcoef(by_sample[:, 0], by_sample[:, 1])[0, 1]) < 0.2
    assert sorted(set(streams.below("die", 6).tolist())) == list(range(6))
    assert abs(streams.chance("coin", 0.3).mean() - 0.3) < 0.02
