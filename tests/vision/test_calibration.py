"""Calibration, against loops, scikit-learn and figures worked by hand."""

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve

from regraft.errors import RecipeError, SampleError
from regraft.vision.calibration import (
    adaptive_calibration_error,
    calibration_error,
    confidence_bins,
    equal_mass_bins,
)
from regraft.vision.probabilities import log_probabilities


def answers(num: int = 500, classes: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are surer than right, and labels."""
    draw = np.random.default_rng(seed)
    logits = 2 * draw.standard_normal((num, classes))
    labels = np.array([draw.choice(classes, p=np.exp(row)) for row in log_probabilities(logits)])
    return np.exp(log_probabilities(2 * logits)), labels


def two(*confidences: float) -> np.ndarray:
    """Probabilities of two classes, of which the first is chosen with these confidences."""
    return np.array([[confidence, 1 - confidence] for confidence in confidences])


def naive_error(confidence: np.ndarray, right: np.ndarray, groups: list[list[int]]) -> float:
    """Figure of the definition: the distance of the two means of each group, weighed by its size."""
    return sum(
        len(group) / len(confidence) * abs(np.mean(right[group]) - np.mean(confidence[group]))
        for group in groups
        if group
    )


@pytest.mark.parametrize("num_bins", [1, 10, 15, 400])
def test_calibration_error_is_its_definition(num_bins: int):
    """To 1e-12, as only the order of float64 sums differs."""
    probabilities, labels = answers()
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    groups: list[list[int]] = [[] for _ in range(num_bins)]
    for row, value in enumerate(confidence):
        above = (place for place in range(num_bins - 1) if value < (place + 1) / num_bins)
        groups[next(above, num_bins - 1)].append(row)
    found = calibration_error(probabilities, labels, num_bins=num_bins)
    assert found == pytest.approx(naive_error(confidence, right, groups), abs=1e-12)
    assert abs(calibration_error(probabilities, np.roll(labels, 1), num_bins=num_bins) - found) > 0.1


@pytest.mark.parametrize("num_bins", [1, 4, 15, 700])
def test_bins_of_equal_mass_are_the_sorted_samples_in_equal_parts(num_bins: int):
    probabilities, labels = answers()
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = equal_mass_bins(probabilities, labels, num_bins=num_bins)
    assert bins.num.sum() == 500
    assert bins.num.max() - bins.num.min() <= 1
    groups: list[list[int]] = [[] for _ in range(num_bins)]
    for place, row in enumerate(np.argsort(confidence)):
        groups[place * num_bins // 500].append(int(row))
    wanted = naive_error(confidence, right, groups)
    assert adaptive_calibration_error(probabilities, labels, num_bins=num_bins) == pytest.approx(
        wanted, abs=1e-12
    )


def test_bins_as_scikit_learn_has_them():
    """It closes bins on the other side, which no confidence here lies on."""
    probabilities, labels = answers()
    right = probabilities.argmax(1) == labels
    bins = confidence_bins(probabilities, labels, num_bins=10)
    accuracy, confidence = calibration_curve(right, probabilities.max(1), n_bins=10)
    there = bins.num > 0
    np.testing.assert_allclose(bins.accuracy[there], accuracy, atol=1e-12)
    np.testing.assert_allclose(bins.confidence[there], confidence, atol=1e-12)


def test_a_confidence_of_one_is_in_the_last_bin():
    """One right at 1.0 and one wrong at 0.95, both in the last of 15 bins: |1/2 - 1.95/2|."""
    probabilities, labels = two(1.0, 0.95), np.array([0, 1])
    bins = confidence_bins(probabilities, labels)
    assert bins.num.tolist() == [0] * 14 + [2]
    assert bins.error == pytest.approx(0.475)
    assert calibration_error(probabilities, labels) == pytest.approx(0.475)


def test_a_confidence_on_an_edge_is_in_the_bin_it_opens():
    assert confidence_bins(two(0.6, 0.8), np.array([0, 0]), num_bins=5).num.tolist() == [0, 0, 0, 1, 1]


def test_all_are_entirely_sure():
    probabilities, labels = two(*[1.0] * 8), np.array([0, 0, 0, 0, 0, 0, 1, 1])
    for bins in (confidence_bins(probabilities, labels), equal_mass_bins(probabilities, labels)):
        assert sorted(bins.num.tolist()) == [0] * 14 + [8]
        assert bins.error == pytest.approx(0.25)
        assert bins.overconfidence == pytest.approx(0.25)


def test_one_sample():
    for error in (calibration_error, adaptive_calibration_error):
        assert error(two(0.7), np.array([0])) == pytest.approx(0.3)
        assert error(two(0.7), np.array([1])) == pytest.approx(0.7)


def test_the_order_of_samples_does_not_matter_however_many_are_equal():
    draw = np.random.default_rng(0)
    probabilities, labels = two(*draw.choice([0.55, 0.7, 1.0], 200)), draw.integers(0, 2, 200)
    wanted = adaptive_calibration_error(probabilities, labels)
    for _ in range(5):
        order = draw.permutation(200)
        found = adaptive_calibration_error(probabilities[order], labels[order])
        assert found == pytest.approx(wanted, abs=1e-12)
    assert np.count_nonzero(equal_mass_bins(probabilities, labels).num) == 3


def test_empty_bins_have_no_means():
    bins = confidence_bins(two(0.9, 0.9), np.array([0, 1]), num_bins=4)
    assert np.isnan(bins.accuracy[:3]).all()
    assert (bins.accuracy[3], bins.confidence[3]) == (0.5, 0.9)
    assert bins.to_json()[0] == {"num": 0, "accuracy": None, "confidence": None}
    assert bins.to_json()[3] == {"num": 2, "accuracy": 0.5, "confidence": 0.9}


def test_equal_probabilities_choose_the_first_class():
    assert calibration_error(two(0.5, 0.5), np.array([0, 0])) == pytest.approx(0.5)
    assert calibration_error(two(0.5, 0.5), np.array([0, 1])) == pytest.approx(0)


def test_tensors_of_float32():
    probabilities, labels = answers()
    found = calibration_error(torch.from_numpy(probabilities).float(), torch.from_numpy(labels))
    assert found == pytest.approx(calibration_error(probabilities, labels), abs=1e-6)


def test_what_is_refused():
    with pytest.raises(RecipeError, match="num_bins is 0"):
        calibration_error(two(0.7), np.array([0]), num_bins=0)
    with pytest.raises(SampleError, match="expected probabilities"):
        calibration_error(np.array([[3.0, -1.0]]), np.array([0]))
