"""Closed forms find what was hidden in the data, and no more."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from space_pairs import made_pairs

from regraft.retrieval.linear import PENALTIES, best_penalty, least_squares, procrustes, ridge
from regraft.retrieval.pairs import from_arrays


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def rotation(dimension: int) -> np.ndarray:
    return np.linalg.qr(normal(dimension, dimension, seed=5))[0]


def test_procrustes_finds_a_rotation_a_scale_and_a_shift():
    old = normal(60, 7)
    found = procrustes(from_arrays(old, 0.3 * old @ rotation(7) + np.arange(7)))
    # Vectors are float32, so their product is known to about 1e-6.
    torch.testing.assert_close(found.weight, torch.from_numpy(0.3 * rotation(7).T).float(), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.bias, torch.arange(7.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("old", "new"), [(7, 4), (4, 7), (5, 5)])
def test_procrustes_is_orthogonal_on_the_smaller_side(old: int, new: int):
    weight = procrustes(from_arrays(normal(50, old), normal(50, new, seed=1))).weight
    product = weight @ weight.T if new <= old else weight.T @ weight
    scale = product[0, 0]
    torch.testing.assert_close(product, scale * torch.eye(min(old, new)), atol=1e-6, rtol=0)


def test_no_other_rotation_is_nearer_than_procrustes():
    old, new = normal(80, 5), normal(80, 5, seed=1)
    new[:, :3] += old[:, 1:4]
    pairs = from_arrays(old - old.mean(0), new - new.mean(0))
    found = procrustes(pairs)
    best = np.square(found.transform(pairs.old).vectors - pairs.new).sum()
    for seed in range(20):
        small = 0.05 * normal(5, 5, seed=seed)
        turn = torch.linalg.matrix_exp(torch.from_numpy(small - small.T)).float().numpy()
        other = pairs.old @ (found.weight.detach().numpy().T @ turn)
        assert np.square(other - pairs.new).sum() > best


def test_ridge_agrees_with_scikit_learn():
    inputs, targets = normal(90, 6) + 3, normal(90, 4, seed=1) - 2
    weight, bias = least_squares(inputs, targets, seed=0)
    centred = inputs - inputs.mean(0)
    penalty = best_penalty(inputs, targets, seed=0) * np.linalg.eigvalsh(centred.T @ centred).mean()
    theirs = Ridge(alpha=penalty).fit(inputs, targets)
    np.testing.assert_allclose(weight.T, theirs.coef_, atol=1e-10)
    np.testing.assert_allclose(bias, theirs.intercept_, atol=1e-9)


def test_the_penalty_grows_with_the_noise():
    inputs = normal(60, 20)
    clean = inputs @ normal(20, 3, seed=1)
    penalties = [best_penalty(inputs, clean + noise * normal(60, 3, seed=2), seed=0) for noise in (0, 3, 300)]
    assert penalties == sorted(penalties)
    assert penalties[0] == PENALTIES[0]
    assert penalties[-1] == PENALTIES[-1]


def test_ridge_uses_side_information():
    pairs = made_pairs(side=3, noise=0.0)
    wide, narrow = ridge(pairs), ridge(pairs.without_side())
    assert (wide.side_dimension, narrow.side_dimension) == (3, 0)
    errors = [
        np.square(found.transform(pairs.old, side).vectors - pairs.new).sum()
        for found, side in ((wide, pairs.side), (narrow, None))
    ]
    assert errors[0] < 0.7 * errors[1]


def test_three_pairs_are_enough_for_an_answer():
    pairs = from_arrays(normal(3, 8), normal(3, 6, seed=1))
    for found in (procrustes(pairs), ridge(pairs)):
        assert np.isfinite(found.transform(pairs.old).vectors).all()
