import numpy as np
import pytest

from regraft.errors import RecipeError, ShapeError
from regraft.retrieval.bootstrap import interval_of_mean, paired_bootstrap


def test_the_interval_is_as_wide_as_theory_says() -> None:
    """1.96 standard errors either way, with 5 % of slack for the quantiles of 2,000 resamples."""
    values = np.random.default_rng(0).normal(3, 0.5, 2000)
    found = interval_of_mean(values)
    assert found.mean == values.mean()
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(2000), rel=0.05)
    narrow = interval_of_mean(values, confidence=0.5)
    assert found.low < narrow.low < found.mean < narrow.high < found.high


def test_the_seed_decides() -> None:
    values = np.random.default_rng(0).random(50)
    assert interval_of_mean(values, seed=3) == interval_of_mean(values, seed=3)
    assert interval_of_mean(values, seed=3) != interval_of_mean(values, seed=4)


def test_pairs_see_what_separate_intervals_do_not() -> None:
    draw = np.random.default_rng(0)
    hardness = draw.random(400)
    a, b = hardness + draw.normal(0.01, 0.01, 400), hardness
    assert paired_bootstrap(a, b).low > 0
    assert interval_of_mean(a).low < interval_of_mean(b).high
    assert paired_bootstrap(b, a).high < 0
    shuffled = paired_bootstrap(a, draw.permutation(b))
    assert shuffled.low < 0 < shuffled.high


def test_one_value() -> None:
    found = interval_of_mean(np.array([0.25]))
    assert (found.low, found.mean, found.high) == (0.25, 0.25, 0.25)
    assert found.to_json() == {"mean": 0.25, "low": 0.25, "high": 0.25, "confidence": 0.95}


def test_many_values_are_drawn_in_parts() -> None:
    assert interval_of_mean(np.arange(2.0**20), num_resamples=3).mean == pytest.approx(2**19 - 0.5)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="2 and of 3 queries"):
        paired_bootstrap(np.zeros(2), np.zeros(3))
    with pytest.raises(ShapeError, match="no values"):
        interval_of_mean(np.zeros(0))
    with pytest.raises(RecipeError, match="confidence 1"):
        interval_of_mean(np.zeros(2), confidence=1.0)
