"""Transformations: shapes, blocks, and the published architecture."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from space_pairs import made_pairs
from torch import nn

from regraft.errors import ShapeError
from regraft.retrieval.linear import ridge
from regraft.retrieval.transform import (
    BLOCK_ROWS,
    Affine,
    ResidualMLP,
    Transformation,
    TwoBranch,
    UncertainTwoBranch,
)
from regraft.retrieval.uncertainty import ErrorEstimate, WithErrorEstimate


def affine(side: int) -> Affine:
    return Affine(torch.randn(5, 6 + side), torch.randn(5), side_dimension=side)


BUILDERS: dict[str, Callable[[int], Transformation]] = {
    "affine": affine,
    "residual": lambda side: ResidualMLP(affine(side), 8),
    "two_branch": lambda side: TwoBranch(6, 5, side, width=16),
    "uncertain": lambda side: UncertainTwoBranch(TwoBranch(6, 5, side, width=16)),
    "with_estimate": lambda side: WithErrorEstimate(affine(side), ErrorEstimate(6 + side + 5)),
}
KNOWING = {"uncertain", "with_estimate"}


@pytest.fixture(params=BUILDERS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def vectors(num: int, dimension: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(num, dimension)).astype(np.float32)


@pytest.mark.parametrize("side", [0, 3])
@pytest.mark.parametrize("num", [0, 1, 2, BLOCK_ROWS + 1])
def test_every_row_is_transformed(kind: str, side: int, num: int):
    found = BUILDERS[kind](side).transform(vectors(num, 6), vectors(num, side) if side else None)
    assert found.vectors.shape == (num, 5)
    assert found.vectors.dtype == np.float32
    assert len(found) == num
    if num:
        assert (found.log_variance is not None) == (kind in KNOWING)
    if found.log_variance is not None:
        assert found.log_variance.shape == (num,)


def test_blocks_are_those_of_the_whole_and_leave_the_mode(kind: str):
    model, old = BUILDERS[kind](0).train(), vectors(BLOCK_ROWS + 7, 6)
    whole = model.transform(old)
    blocks = list(model.blocks(old))
    assert [len(block) for block in blocks] == [BLOCK_ROWS, 7]
    np.testing.assert_array_equal(whole.vectors, np.concatenate([block.vectors for block in blocks]))
    np.testing.assert_array_equal(whole.vectors, model.transform(old).vectors)
    assert model.training


def test_a_read_only_memory_map_can_be_transformed(kind: str, tmp_path):
    np.save(tmp_path / "old.npy", vectors(9, 6))
    mapped = np.load(tmp_path / "old.npy", mmap_mode="r")
    model = BUILDERS[kind](0)
    np.testing.assert_array_equal(model.transform(mapped).vectors, model.transform(vectors(9, 6)).vectors)


@pytest.mark.parametrize(
    ("old", "side", "message"),
    [
        (vectors(4, 7), vectors(4, 3), "The old vectors have 7 numbers, but the transformation takes 6"),
        (vectors(4, 6), None, "The side-information has 0 numbers an item, but the transformation takes 3"),
        (vectors(4, 6), vectors(4, 2), "The side-information has 2 numbers"),
        (vectors(4, 6), vectors(5, 3), "There are 4 old vectors, but side-information for 5 items"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(
    kind: str, old: np.ndarray, side: np.ndarray | None, message: str
):
    with pytest.raises(ShapeError, match=message):
        BUILDERS[kind](3).transform(old, side)


def test_the_published_network_has_as_many_parameters_as_published():
    """5.71 million at 128 numbers each, the published configuration."""
    published = TwoBranch(128, 128, 128)
    weights = sum(part.weight.numel() for part in published.modules() if isinstance(part, nn.Linear))
    assert weights == 2 * (128 * 256 + 256 * 256) + 512 * 2048 + 2048 * 2048 + 2048 * 128
    total = sum(parameter.numel() for parameter in published.parameters())
    assert round(total / 1e6, 2) == 5.71


def test_without_side_information_the_old_vector_enters_both_branches():
    model = TwoBranch(6, 5, width=16).eval()
    old = torch.randn(4, 6)
    with torch.no_grad():
        torch.testing.assert_close(model(old)[0], model(old, old)[0], atol=0, rtol=0)
        assert not torch.allclose(model(old)[0], model(old, torch.zeros(4, 6))[0])


def test_the_unit_is_a_factor():
    model = TwoBranch(6, 5, width=16).eval()
    other = TwoBranch(6, 5, width=16, unit=0.25).eval()
    other.load_state_dict(model.state_dict() | {"unit": torch.tensor(0.25)})
    old = torch.randn(4, 6)
    with torch.no_grad():
        torch.testing.assert_close(other(old)[0], 0.25 * model(old)[0])


def test_an_untrained_residual_network_is_its_linear_map():
    pairs = made_pairs()
    linear = ridge(pairs)
    residual = ResidualMLP(linear, 8)
    np.testing.assert_array_equal(residual.transform(pairs.old).vectors, linear.transform(pairs.old).vectors)
    assert not any(parameter.requires_grad for parameter in residual.linear.parameters())
