"""Figures of a classifier, against loops, scikit-learn and figures worked by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss, top_k_accuracy_score

from regraft.errors import RecipeError, SampleError
from regraft.vision.metrics import (
    brier_score,
    label_ranks,
    negative_log_likelihood,
    num_correct,
    top_k_accuracy,
)
from regraft.vision.probabilities import log_probabilities

CLASSES = 7


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    return 2 * np.random.default_rng(0).standard_normal((300, CLASSES))


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, CLASSES, 300)


@pytest.mark.parametrize("k", [1, 2, 5, 7, 9])
def test_top_k_accuracy(logits: np.ndarray, labels: np.ndarray, k: int):
    best = [sorted(range(CLASSES), key=lambda label, row=row: -row[label])[:k] for row in logits]
    right = [label in chosen for label, chosen in zip(labels, best, strict=True)]
    assert top_k_accuracy(logits, labels, k=k) == pytest.approx(np.mean(right), abs=1e-15)
    if k < CLASSES:
        theirs = top_k_accuracy_score(labels, logits, k=k, labels=range(CLASSES))
        assert top_k_accuracy(logits, labels, k=k) == pytest.approx(theirs, abs=1e-15)
    given = torch.from_numpy(logits), torch.from_numpy(labels)
    assert num_correct(*given, k=k) == round(300 * top_k_accuracy(*given, k=k))
    assert top_k_accuracy(log_probabilities(logits), labels, k=k) == top_k_accuracy(logits, labels, k=k)


def test_of_equal_scores_the_first_counts_as_argmax_has_it():
    scores = np.zeros((4, 4))
    assert label_ranks(scores, np.arange(4)).tolist() == [0, 1, 2, 3]
    assert [top_k_accuracy(scores, np.arange(4), k=k) for k in (1, 2, 4)] == [0.25, 0.5, 1.0]


def test_a_score_that_is_not_a_number_is_not_right(logits: np.ndarray, labels: np.ndarray):
    broken = logits.copy()
    broken[3, 2] = np.nan
    with pytest.raises(SampleError, match="1 of 2100 scores are NaN"):
        top_k_accuracy(broken, labels)
    with pytest.raises(RecipeError, match="k is 0"):
        top_k_accuracy(logits, labels, k=0)


def test_likelihood_and_brier_score_of_scikit_learn(logits: np.ndarray, labels: np.ndarray):
    """To 1e-12: both are float64 means of 300."""
    answers = log_probabilities(logits)
    probabilities = np.exp(answers)
    assert negative_log_likelihood(answers, labels) == pytest.approx(
        log_loss(labels, probabilities), abs=1e-12
    )
    theirs = brier_score_loss(labels, probabilities, labels=range(CLASSES), scale_by_half=False)
    assert brier_score(probabilities, labels) == pytest.approx(theirs, abs=1e-12)
    shifted = (labels + 1) % CLASSES
    assert abs(negative_log_likelihood(answers, shifted) - log_loss(labels, probabilities)) > 1e-2
    assert abs(brier_score(probabilities, shifted) - theirs) > 1e-3


def test_likelihood_is_cross_entropy(logits: np.ndarray, labels: np.ndarray):
    wanted = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    assert negative_log_likelihood(log_probabilities(logits), labels) == pytest.approx(
        wanted.item(), abs=1e-12
    )


def test_of_two_classes_the_brier_score_is_twice_that_of_one():
    probability = np.array([0.1, 0.4, 0.9])
    labels = np.array([0, 1, 1])
    both = np.stack([1 - probability, probability], axis=1)
    assert brier_score(both, labels) == pytest.approx(2 * brier_score_loss(labels, probability))


def test_the_ends_of_the_scales():
    sure = np.array([[1.0, 0.0, 0.0]])
    with np.errstate(divide="ignore"):
        logarithms = np.log(sure)
    assert brier_score(sure, np.array([0])) == 0
    assert brier_score(sure, np.array([2])) == 2
    assert negative_log_likelihood(logarithms, np.array([0])) == 0
    assert negative_log_likelihood(logarithms, np.array([2])) == math.inf
    even = np.full((1, 3), 1 / 3)
    assert brier_score(even, np.array([1])) == pytest.approx(2 / 3)
    assert negative_log_likelihood(np.log(even), np.array([1])) == pytest.approx(math.log(3))


def test_probabilities_are_not_logits(logits: np.ndarray, labels: np.ndarray):
    with pytest.raises(SampleError, match="expected probabilities"):
        brier_score(logits, labels)
    with pytest.raises(SampleError, match="expected logarithms of probabilities"):
        negative_log_likelihood(logits, labels)
