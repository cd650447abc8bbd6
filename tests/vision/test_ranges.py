"""Learned ranges: where they begin, what they do to a batch, and that gradients reach all of them."""

import pytest
import torch
from torch import Tensor

from regraft.errors import RecipeError
from regraft.train.schedule import param_groups
from regraft.vision.range_bounds import HALF_WIDTHS, RELEASED, Parameterisation
from regraft.vision.range_operations import BLUR, BRIGHTNESS, NOISE, OPERATIONS, PAPER
from regraft.vision.range_policy import RangePolicy
from regraft.vision.range_targets import psnr_db
from regraft.vision.ranges import LearnedRanges

ALL = tuple(OPERATIONS.values())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(num: int = 16, channels: int = 3) -> Tensor:
    return torch.rand(num, channels, 8, 8, generator=seeded(1))


def errors(ranges: LearnedRanges, x: Tensor, seed: int = 0) -> Tensor:
    return (ranges(x, ranges.draw(x, seeded(seed))) - x).square().mean((1, 2, 3))


@pytest.mark.parametrize(
    ("parameterisation", "expected"),
    [
        (
            HALF_WIDTHS,
            {"brightness": (0.98381, 1.16188), "contrast": (0.98381, 1.16188), "noise": (0, 0.017986)},
        ),
        (RELEASED, {"brightness": (0.598, 8.376), "contrast": (0.598, 8.376), "noise": (2.5e-5, 0.525)}),
    ],
)
def test_where_ranges_begin(
    parameterisation: Parameterisation, expected: dict[str, tuple[float, float]]
) -> None:
    begun = LearnedRanges(PAPER, parameterisation).ranges()
    assert [name for name, _, _ in begun] == list(expected)
    for name, low, high in begun:
        assert (low, high) == pytest.approx(expected[name], rel=1e-3, abs=1e-8)


def test_ranges_reach_the_identity_and_their_bounds_and_go_no_further() -> None:
    ranges = LearnedRanges(ALL)
    x = pictures()
    for strength, ends in (
        (-30.0, [(operation.identity, operation.identity) for operation in ALL]),
        (30.0, [(operation.lowest, operation.highest) for operation in ALL]),
    ):
        ranges.strength.data.fill_(strength)
        for (_, low, high), end in zip(ranges.ranges(), ends, strict=True):
            assert (low, high) == pytest.approx(end, abs=1e-6)
        assert ranges.policy(20.0).operations == ranges.ranges()
    ranges.strength.data.fill_(-30.0)
    torch.testing.assert_close(ranges(x, ranges.draw(x, seeded())), x, atol=2e-6, rtol=0)


def test_exactly_half_of_a_batch_gets_an_operation_and_the_rest_its_identity() -> None:
    ranges, x = LearnedRanges(ALL), pictures(9)
    draw = ranges.draw(x, seeded())
    magnitudes = ranges.magnitudes(draw)
    assert draw.chosen.sum(1).tolist() == [4] * len(ALL)
    assert len({tuple(row) for row in draw.chosen.tolist()}) > 1
    for row, chosen, operation in zip(magnitudes, draw.chosen, ALL, strict=True):
        assert (row[~chosen] == operation.identity).all()
        assert (row[chosen] != operation.identity).all()
    assert ranges.draw(x[:1], seeded()).chosen.all()


def test_an_eighth_stays_untouched_by_three_operations() -> None:
    ranges, x = LearnedRanges(), torch.rand(2000, 3, 2, 2, generator=seeded(1))
    untouched = (errors(ranges, x) < 1e-12).float().mean()
    # Four standard deviations of 2000 draws.
    assert untouched.item() == pytest.approx(0.125, abs=0.03)


def test_the_order_changes_and_matters() -> None:
    ranges, x = LearnedRanges((BRIGHTNESS, NOISE), HALF_WIDTHS), pictures()
    ranges.strength.data.fill_(-1.0)
    orders = {ranges.draw(x, seeded(seed)).order for seed in range(20)}
    assert orders == {(0, 1), (1, 0)}


def test_a_draw_decides_everything() -> None:
    ranges, x = LearnedRanges(ALL), pictures()
    first, again, other = (ranges.draw(x, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(ranges(x, first), ranges(x, again))
    assert not torch.equal(ranges(x, first), ranges(x, other))
    torch.manual_seed(5)
    from_global = ranges(x, ranges.draw(x))
    torch.manual_seed(5)
    assert torch.equal(from_global, ranges(x, ranges.draw(x)))
    assert LearnedRanges((BRIGHTNESS, BLUR)).draw(x).noise is None


def test_pictures_stay_in_range() -> None:
    ranges, x = LearnedRanges(ALL), pictures()
    ranges.strength.data.fill_(3.0)
    varied = ranges(x, ranges.draw(x, seeded()))
    assert varied.min().item() >= 0
    assert varied.max().item() <= 1


@pytest.mark.parametrize("strength", [-9.0, -5.0, -1.0, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_gradient_of_a_decibel_reaches_every_end(strength: float, channels: int) -> None:
    ranges, x = LearnedRanges(ALL).double(), 0.2 + 0.3 * pictures(64, channels).double()
    ranges.strength.data.fill_(strength)
    psnr_db(errors(ranges, x).mean()).backward()
    fixed = {"noise", "blur"}
    for gradient, never in (
        (ranges.theta_low.grad, fixed),
        (ranges.theta_high.grad, set[str]()),
    ):
        for slope, operation in zip(gradient.tolist(), ALL, strict=True):
            unmoved = operation.name in never or (operation.name == "saturation" and channels == 1)
            assert (slope == 0) == unmoved, operation.name
    assert ranges.strength.grad.item() < -0.1


def test_slopes_are_those_of_finite_differences() -> None:
    ranges, x = LearnedRanges(ALL).double(), 0.2 + 0.3 * pictures(8).double()
    parameters = list(ranges.parameters())

    def decibels(*values: Tensor) -> Tensor:
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data.copy_(value)
        return psnr_db(errors(ranges, x).mean())

    slopes = torch.autograd.grad(decibels(*(p.detach().clone() for p in parameters)), parameters)
    for index, slope in enumerate(slopes):
        at = [p.detach().clone() for p in parameters]
        numeric = torch.zeros_like(slope)
        for place in range(slope.numel()):
            sides = list[float]()
            for move in (1e-5, -1e-5):
                moved = [value.clone() for value in at]
                moved[index].view(-1)[place] += move
                sides.append(decibels(*moved).item())
            numeric.view(-1)[place] = (sides[0] - sides[1]) / 2e-5
        decibels(*at)
        # Central differences: the error is of second order, 1e-10, over rounding, 1e-15 * 30 / 1e-5.
        torch.testing.assert_close(slope, numeric, atol=1e-7, rtol=1e-6)


def test_autocast_does_not_reach_them() -> None:
    ranges, x = LearnedRanges(ALL), pictures()
    draw = ranges.draw(x, seeded())
    with torch.autocast("cpu", torch.bfloat16):
        varied = ranges(x, draw)
    assert varied.dtype == torch.float32
    assert torch.equal(varied, ranges(x, draw))


def test_ranges_are_not_decayed_and_what_is_not_shared_is_not_trained() -> None:
    assert [group["decayed"] for group in param_groups(LearnedRanges(ALL))] == [False]
    released = LearnedRanges(parameterisation=RELEASED)
    assert [name for name, p in released.named_parameters() if p.requires_grad] == ["theta_low", "theta_high"]


def test_recent_errors_are_averaged_and_kept() -> None:
    ranges = LearnedRanges()
    for value in (1.0, 2.0):
        ranges.observe(torch.tensor([0.5 * value, 1.5 * value]))
    assert float(ranges.recent_error) == pytest.approx(0.9 + 0.1 * 2)
    assert set(ranges.state_dict()) == {"strength", "theta_low", "theta_high", "recent_error"}


def test_a_policy_is_the_ranges_as_they_are() -> None:
    ranges = LearnedRanges(ALL)
    ranges.theta_high.data[0] = 2.0
    policy = ranges.policy(target_db=25.0)
    assert isinstance(policy, RangePolicy)
    assert policy.operations == ranges.ranges()
    assert (policy.target_db, policy.chance) == (25.0, 0.5)


def test_operations_are_there_once_and_known_to_the_parameterisation() -> None:
    for operations in ((), (NOISE, NOISE)):
        with pytest.raises(RecipeError, match="expected one or more, each once"):
            LearnedRanges(operations)
    with pytest.raises(RecipeError, match="no 'blur'"):
        LearnedRanges((BLUR,), RELEASED)
