"""What counts as probabilities, and what is refused."""

import numpy as np
import pytest
import torch

from regraft.errors import SampleError, ShapeError
from regraft.vision.probabilities import (
    checked_labels,
    checked_log_probabilities,
    checked_probabilities,
    log_probabilities,
)


def test_log_softmax_as_torch_has_it():
    """To 1e-14 relative: both are float64, and only the order of a sum of seven differs."""
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 30
    wanted = logits.log_softmax(1).numpy()
    for given in (logits, logits.numpy()):
        np.testing.assert_allclose(log_probabilities(given), wanted, rtol=1e-14, atol=1e-14)
    assert not np.allclose(log_probabilities(logits + torch.eye(50, 7)), wanted)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_logits_are_widened(kind: torch.dtype):
    logits = torch.tensor([[1.0, 2.0], [-500.0, 500.0]], dtype=kind)
    np.testing.assert_array_equal(log_probabilities(logits), log_probabilities(logits.double()))
    assert np.exp(log_probabilities(logits)).sum(axis=1) == pytest.approx(1, abs=1e-15)


def test_minus_infinity_rules_a_class_out():
    assert np.exp(log_probabilities(np.array([[0.0, -np.inf, 0.0]]))).tolist() == [[0.5, 0.0, 0.5]]


@pytest.mark.parametrize("row", [[0.0, np.nan], [0.0, np.inf], [-np.inf, -np.inf]])
def test_logits_without_a_finite_largest_value(row: list[float]):
    with pytest.raises(SampleError, match="logits of sample 1 have the largest value"):
        log_probabilities(np.array([[0.0, 1.0], row]))


def test_probabilities_come_back_as_they_are():
    values = torch.tensor([[0.25, 0.75], [1.0, 0.0]], dtype=torch.float64)
    checked = checked_probabilities(values)
    assert checked.tolist() == values.tolist()
    checked[:] = 7
    assert values.max() == 1, "a copy, so that nobody's own values change"
    assert checked_log_probabilities(values.log()).tolist() == values.log().tolist()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([2.0, -1.0], "Sample 1 has values from -1 to 2 that sum to 1"),
        ([0.5, 0.6], "sum to 1.1"),
        ([np.nan, 0.5], "sum to nan"),
        ([np.inf, 0.0], "sum to inf"),
        ([3.2, 1.1], "sum to 4.3"),
    ],
)
def test_what_are_no_probabilities(row: list[float], message: str):
    with pytest.raises(SampleError, match=message):
        checked_probabilities(np.array([[0.5, 0.5], row]))


@pytest.mark.parametrize(
    "row", [[0.5, 0.5], [1000.0, -1000.0], [np.nan, 0.0], [np.inf, 0.0], [-np.inf, -0.7]]
)
def test_what_are_no_logarithms_of_probabilities(row: list[float]):
    with pytest.raises(SampleError, match="exponentials do not sum to 1"):
        checked_log_probabilities(np.array([np.log([0.5, 0.5]), row]))


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 1], ShapeError, r"labels are \(2,\); expected one for each of 3"),
        ([[0], [1], [1]], ShapeError, r"labels are \(3, 1\)"),
        ([0.0, 1.0, 1.0], SampleError, "labels are float64; expected whole numbers"),
        ([True, False, True], SampleError, "labels are bool"),
        ([0, 1, 2], SampleError, "labels run from 0 to 2; expected 0 to 1 for 2 classes"),
        ([0, -1, 1], SampleError, "labels run from -1"),
    ],
)
def test_labels_that_do_not_fit(labels: list[int], error: type[Exception], message: str):
    for given in (np.array(labels), torch.from_numpy(np.array(labels))):
        with pytest.raises(error, match=message):
            checked_labels(given, 3, 2)


def test_values_that_are_no_matrix():
    for shape in [(3,), (3, 0), (2, 2, 2)]:
        with pytest.raises(ShapeError, match="expected samples and classes"):
            checked_probabilities(np.ones(shape))
    with pytest.raises(SampleError, match="no samples"):
        checked_probabilities(np.ones((0, 3)))
