import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from regraft.retrieval import thresholds as module
from regraft.retrieval.thresholds import Thresholds

finite = st.floats(width=32, min_value=-(2.0**99), max_value=2.0**99)
few = st.sampled_from([-1.0, -0.0, 0.0, 2.0**-149, 0.5, 0.5 + 2.0**-24, 2.0**98])


def looked_up(thresholds: np.ndarray, values: np.ndarray) -> np.ndarray:
    return Thresholds(np.sort(thresholds)).smaller(values, np.empty(len(values), np.int64))


@settings(max_examples=200, deadline=None)
@given(
    arrays.arrays(np.float32, st.integers(1, 40), elements=finite | few),
    arrays.arrays(np.float32, st.integers(0, 60), elements=finite | few),
)
def test_agrees_with_a_binary_search(thresholds: np.ndarray, values: np.ndarray) -> None:
    values = np.concatenate([values, thresholds, np.float32([-np.inf, np.inf])])
    np.testing.assert_array_equal(
        looked_up(thresholds, values), np.searchsorted(np.sort(thresholds), values, side="left")
    )


@pytest.mark.parametrize("spread", [1e-7, 1e-3, 1.0])
def test_agrees_on_many_values_and_crowded_thresholds(spread: float) -> None:
    """Most thresholds share a few cells, as one stands far off; values fill more than one chunk."""
    draw = np.random.default_rng(0)
    thresholds = np.append(draw.normal(0, spread, 500), 10).astype(np.float32)
    values = draw.normal(0, 2 * spread, module.CHUNK + 7).astype(np.float32)
    found = looked_up(thresholds, values)
    np.testing.assert_array_equal(found, np.searchsorted(np.sort(thresholds), values, side="left"))
    assert (found != np.searchsorted(np.sort(thresholds) + np.float32(spread), values, side="left")).any()
