"""An error estimate ranks vectors by how far off they are."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from space_pairs import made_pairs

from regraft.retrieval.linear import procrustes, ridge
from regraft.retrieval.pairs import Pairs, from_arrays
from regraft.retrieval.uncertainty import with_error_estimate


def with_a_noisy_region(num: int, seed: int) -> Pairs:
    """Pairs that agree, except where the first number of the old vector is large."""
    clean = made_pairs(num, noise=0.0, seed=seed)
    noise = np.random.default_rng(seed).normal(size=clean.new.shape) * (clean.old[:, :1] > 0.3)
    return from_arrays(clean.old, clean.new + noise)


@pytest.mark.parametrize("fit", [procrustes, ridge])
def test_where_the_old_model_says_little_the_estimate_is_high(fit):
    transformation = fit(with_a_noisy_region(600, 0))
    known = with_error_estimate(transformation, with_a_noisy_region(600, 1))
    judged = with_a_noisy_region(600, 2)
    found = known.transform(judged.old)
    unit = found.vectors / np.linalg.norm(found.vectors, axis=1, keepdims=True)
    wanted = judged.new / np.linalg.norm(judged.new, axis=1, keepdims=True)
    error = np.square(unit - wanted).sum(axis=1)
    assert spearmanr(found.log_variance, error).statistic > 0.4
    shuffled = np.random.default_rng(0).permutation(error)
    assert abs(spearmanr(found.log_variance, shuffled).statistic) < 0.2
    np.testing.assert_array_equal(found.vectors, transformation.transform(judged.old).vectors)


def test_few_pairs_give_a_tame_estimate():
    known = with_error_estimate(ridge(made_pairs(30)), made_pairs(8, seed=1))
    sigma = known.transform(made_pairs(500, seed=2).old).log_variance
    assert np.isfinite(sigma).all()
    assert sigma.std() < 3


def test_a_seed_decides_it():
    fitted, held_out = ridge(made_pairs()), made_pairs(100, seed=1)
    a, b, c = (
        with_error_estimate(fitted, held_out, seed=seed).transform(held_out.old).log_variance
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
