"""Targets and their losses, by hand."""

import math

import pytest
import torch
from torch import Tensor

from regraft.errors import RecipeError
from regraft.vision.range_bounds import RELEASED
from regraft.vision.range_targets import DecibelTarget, ReleasedTarget, psnr_db, straight
from regraft.vision.ranges import LearnedRanges


def test_decibels_of_an_error() -> None:
    assert float(psnr_db(torch.tensor(0.01))) == pytest.approx(20, abs=1e-4)
    nothing = torch.tensor(0.0, requires_grad=True)
    decibels = psnr_db(nothing)
    decibels.backward()
    assert decibels.item() == pytest.approx(70)
    assert nothing.grad.isfinite()


def test_the_way_is_made_in_decibels() -> None:
    target = DecibelTarget(end_db=20.0, steps=100)
    assert [target.db(step) for step in (0, 50, 100, 900)] == pytest.approx([40, 30, 20, 20])
    assert target.db(25) == pytest.approx(40 - 20 * 0.5 * (1 - math.cos(math.pi / 4)))
    even = DecibelTarget(end_db=20.0, steps=100, start_db=35.0, way=straight)
    assert even.db(40) == pytest.approx(29)


def test_the_published_way_is_made_in_errors() -> None:
    """From 40 to 5 dB in 600 epochs, as computed from the published code, to a tenth."""
    target = ReleasedTarget(end_db=5.0, steps=600)
    expected = {0: 40.0, 10: 35.0, 30: 26.9, 60: 21.1, 100: 16.7, 150: 13.4, 200: 11.0, 300: 8.0, 600: 5.0}
    assert {step: target.db(step) for step in expected} == pytest.approx(expected, abs=0.06)
    assert target.error(0) == pytest.approx(6.5025)


def test_the_published_loss_by_hand() -> None:
    """Errors of 400 and 700 of 8-bit values, where 650.25 (20 dB) is wanted: (249.75 + 49.25) / 2."""
    target = ReleasedTarget(end_db=20.0, steps=9, start_db=20.0)
    errors = torch.tensor([400.0, 700.0]) / 255**2
    loss = target.loss(errors, LearnedRanges(parameterisation=RELEASED), 0)
    assert float(loss) == pytest.approx(100 / 65025 * 149.5, rel=1e-5)


def error_of(ranges: LearnedRanges, scale: float) -> Tensor:
    """Errors that grow by a constant number of decibels with strength."""
    return scale * torch.tensor([0.5, 1.5]) * torch.exp(ranges.strength + 4)


@pytest.mark.parametrize(("scale", "missed_db"), [(0.01, 0.0), (0.01 * 10**0.05, 0.125), (0.1, 9.5)])
def test_the_loss_is_the_miss_over_the_square_of_the_slope(scale: float, missed_db: float) -> None:
    ranges, target = LearnedRanges(), DecibelTarget(end_db=20.0, steps=1, start_db=20.0)
    slope = 10 / math.log(10)
    loss = target.loss(error_of(ranges, scale), ranges, 0)
    assert loss.item() == pytest.approx(missed_db / slope**2, abs=1e-5)


def test_a_step_closes_a_share_of_the_gap_at_any_slope() -> None:
    ranges, target = LearnedRanges(), DecibelTarget(end_db=20.0, steps=1, start_db=20.0)
    for power in (0.2, 1.0, 2.0):
        ranges.zero_grad()
        errors = torch.tensor([0.011]) * torch.exp(power * (ranges.strength + 4))
        gap = psnr_db(errors.mean()).item() - 20
        target.loss(errors, ranges, 0).backward()
        closed_db = 0.1 * float(ranges.strength.grad) * power * 10 / math.log(10)
        assert closed_db == pytest.approx(-0.1 * gap, rel=1e-3)


def test_pictures_that_cannot_be_varied_do_no_harm() -> None:
    ranges = LearnedRanges()
    black = torch.zeros(4, 3, 8, 8)
    varied = ranges(black, ranges.draw(black)) * 0
    errors = (varied - black).square().mean((1, 2, 3))
    loss = DecibelTarget(end_db=20.0, steps=1).loss(errors, ranges, 0)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in ranges.parameters())
    assert loss.isfinite()


def test_ends_that_part_are_punished() -> None:
    ranges, target = LearnedRanges(), DecibelTarget(end_db=20.0, steps=1, start_db=20.0)
    together = target.loss(error_of(ranges, 0.01), ranges, 0).item()
    ranges.theta_low.data[1] = 0.5
    assert target.loss(error_of(ranges, 0.01), ranges, 0).item() == pytest.approx(together + 0.25)


def test_ranges_without_a_strength_are_refused() -> None:
    ranges = LearnedRanges(parameterisation=RELEASED)
    with pytest.raises(RecipeError, match="no strength in common"):
        DecibelTarget(end_db=20.0, steps=1).loss(torch.ones(2), ranges, 0)


@pytest.mark.parametrize("build", [DecibelTarget, ReleasedTarget])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"end_db": 0.0, "steps": 9}, "from 40 to 0 dB"),
        ({"end_db": 20.0, "steps": 9, "start_db": 60.0}, "from 60 to 20 dB"),
        ({"end_db": math.nan, "steps": 9}, "to nan dB"),
        ({"end_db": 20.0, "steps": 0}, "in 0 steps"),
    ],
)
def test_numbers_out_of_range_are_refused(build: type, settings: dict[str, float], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        build(**settings)
