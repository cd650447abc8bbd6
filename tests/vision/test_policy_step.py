"""Learned ranges as an augmentation that can be repeated."""

import numpy as np
import pytest
import torch
from torch import Tensor

from regraft.augment.streams import Streams, keys_of
from regraft.errors import ShapeError
from regraft.vision.policy_step import VaryByPolicy
from regraft.vision.range_operations import operation_named
from regraft.vision.range_policy import Range, RangePolicy

POLICY = RangePolicy(
    operations=(
        Range("brightness", 0.6, 1.4),
        Range("contrast", 0.5, 1.8),
        Range("noise", 0.0, 0.1),
        Range("blur", 0.0, 1.5),
    )
)
STEP = VaryByPolicy(POLICY)


def streams(num: int) -> Streams:
    return Streams.of(0, keys_of(map(str, range(num))), np.zeros(num, np.int64))


def pictures(num: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (num, 3, 9, 11), dtype=torch.uint8, generator=generator)


def slow(picture: Tensor, row: np.void) -> Tensor:
    """One picture, one operation after the other."""
    x = picture[None].float() / 255
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(int(row["noise"])))[None]
    for number in row["order"]:
        operation = operation_named(POLICY.operations[number].operation)
        x = operation.apply(x, torch.tensor([row["magnitude"][number]]), noise)
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)[0]


def test_it_equals_its_slow_twin() -> None:
    x, params = pictures(40), STEP.sample(streams(40))
    varied = STEP.apply(x, params)
    expected = torch.stack([slow(picture, row) for picture, row in zip(x, params, strict=True)])
    # Sums of convolutions in other company may round a level the other way.
    assert ((varied.int() - expected.int()).abs() <= 1).all()
    assert (varied != x).any()
    for row in range(0, 40, 9):
        assert torch.equal(STEP.apply(x[row : row + 1], params[row : row + 1])[0], varied[row])


def test_draws_fill_the_ranges() -> None:
    params = STEP.sample(streams(4000))
    for number, (name, low, high) in enumerate(POLICY.operations):
        drawn = params["magnitude"][:, number]
        applied = drawn != np.float32(operation_named(name).identity)
        assert abs(applied.mean() - POLICY.chance) < 0.05
        assert low <= drawn[applied].min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < drawn[applied].max() <= np.float32(high)
    first = np.bincount(params["order"][:, 0], minlength=4)
    assert abs(first - 1000).max() < 150
    assert (np.sort(params["order"], axis=1) == np.arange(4)).all()


def test_an_order_there_is_not_is_refused() -> None:
    params = STEP.sample(streams(2))
    params["order"][1, 2] = 9
    with pytest.raises(ShapeError, match="Operation 9 is drawn, expected 0 to 3"):
        STEP.apply(pictures(2), params)
