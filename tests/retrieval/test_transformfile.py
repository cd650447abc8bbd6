"""A transformation survives its file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from space_pairs import made_pairs

from regraft.errors import WeightsError
from regraft.retrieval.linear import ridge
from regraft.retrieval.pairs import Pairs
from regraft.retrieval.transform import ResidualMLP, Transformation, TwoBranch, UncertainTwoBranch
from regraft.retrieval.transformfile import TransformationCard, load_transformation, save_transformation
from regraft.retrieval.uncertainty import with_error_estimate

CARD = TransformationCard(
    old="a" * 32, new="b" * 32, side="c" * 32, facts={"pairs": 300, "quality": {"start": 0.5}}
)


def two_branch(pairs: Pairs) -> TwoBranch:
    return TwoBranch(*pairs.dimensions, width=16, unit=0.3)


BUILDERS: dict[str, Callable[[Pairs], Transformation]] = {
    "affine": ridge,
    "residual": lambda pairs: ResidualMLP(ridge(pairs), 8, unit=0.5),
    "two_branch": two_branch,
    "uncertain": lambda pairs: UncertainTwoBranch(two_branch(pairs)),
    "with_estimate": lambda pairs: with_error_estimate(ridge(pairs), pairs),
    "network_with_estimate": lambda pairs: with_error_estimate(two_branch(pairs), pairs),
}


@pytest.mark.parametrize("side", [0, 2])
@pytest.mark.parametrize("kind", BUILDERS)
def test_what_is_read_transforms_like_what_was_written(kind: str, side: int, tmp_path: Path):
    pairs = made_pairs(side=side)
    model = BUILDERS[kind](pairs)
    save_transformation(tmp_path / "t.safetensors", model, CARD)
    read, card = load_transformation(tmp_path / "t.safetensors")
    assert card == CARD
    wanted, found = model.transform(pairs.old, pairs.side), read.transform(pairs.old, pairs.side)
    np.testing.assert_array_equal(wanted.vectors, found.vectors)
    if wanted.log_variance is not None:
        np.testing.assert_array_equal(wanted.log_variance, found.log_variance)
    assert not read.training
    assert not any(parameter.requires_grad for parameter in read.parameters())


def test_one_changed_weight_is_seen(tmp_path: Path):
    """The negative control of the test above."""
    pairs = made_pairs()
    model = ridge(pairs)
    save_transformation(tmp_path / "t.safetensors", model, CARD)
    read, _ = load_transformation(tmp_path / "t.safetensors")
    read.get_parameter("weight").data[0, 0] += 1e-3
    assert not np.array_equal(read.transform(pairs.old).vectors, model.transform(pairs.old).vectors)


def test_a_file_that_is_no_transformation_is_named(tmp_path: Path):
    path = tmp_path / "other.safetensors"
    with pytest.raises(WeightsError, match="There is no file"):
        load_transformation(path)
    path.write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="is not a safetensors file"):
        load_transformation(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match="holds weights, but no transformation"):
        load_transformation(path)


def test_a_description_of_the_future_is_refused(tmp_path: Path):
    path = tmp_path / "t.safetensors"
    save_transformation(path, ridge(made_pairs()), CARD)
    content = path.read_bytes()
    assert b"Affine" in content
    path.write_bytes(content.replace(b"Affine", b"Bffine"))
    with pytest.raises(WeightsError, match="cannot be read"):
        load_transformation(path)


def test_only_known_kinds_can_be_written(tmp_path: Path):
    class Unknown(Transformation):
        def forward(self, old, side=None):
            return old, None

    with pytest.raises(WeightsError, match="A Unknown cannot be written"):
        save_transformation(tmp_path / "t.safetensors", Unknown(2, 2), CARD)
    assert not list(tmp_path.iterdir())
