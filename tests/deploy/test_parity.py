import copy
import math
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from regraft.deploy.parity import Parity, compare, random_inputs
from regraft.errors import ParityError, RecipeError, TrainModeError


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(5, 3).eval()


def nudged(layer: nn.Linear, by: float) -> nn.Linear:
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.bias[0] += by
    return other


def test_measures_by_definition():
    batches = [torch.tensor([[1.0, 4.0]]), torch.tensor([[2.0, 1.0], [0.4, 0.0]])]
    change = torch.tensor([0.0, 0.5])
    parity = compare(lambda x: x, lambda x: x + change, batches, tolerance=0.3, min_agreement=0.6)
    assert parity.worst_absolute == 0.5
    assert parity.worst_relative == 0.5 / 2  # the second batch, whose largest value is 2, not 4
    assert parity.num_inputs == 3
    assert parity.agreement == 2 / 3
    assert parity.passed


def test_says_what_it_found():
    layer = linear()
    parity = compare(layer, lambda x: layer(x) * (1 + 1e-6), random_inputs((32, 5), 2))
    assert re.fullmatch(
        r"same: worst difference \d\.\d\de-0[67] \(allowed 1e-04\), top-1 agreement 100.0 % on 64 inputs",
        str(parity),
    )
    assert parity.to_json()["passed"] is True
    strict = compare(layer, lambda x: layer(x) * (1 + 1e-6), random_inputs((32, 5), 2), tolerance=1.5e-12)
    assert str(strict).startswith("DIFFERENT: ")
    assert "(allowed 1.5e-12)" in str(strict)


def test_one_changed_weight_fails():
    assert not compare(linear(), nudged(linear(), 1e-2), random_inputs((8, 5), 1)).passed
    assert compare(linear(), nudged(linear(), 1e-2), random_inputs((8, 5), 1), tolerance=1e-1).passed


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_verdict_does_not_depend_on_scale(scale: float):
    layer, other = linear(), nudged(linear(), 1e-2)
    parity = compare(lambda x: scale * layer(x), lambda x: scale * other(x), random_inputs((8, 5), 1))
    assert not parity.passed


def test_a_few_wrong_decisions_fail_within_a_wide_tolerance():
    inputs = torch.tensor([[1.0, 0.9], [1.0, 0.0]])
    change = torch.tensor([0.0, 0.2])
    parity = compare(lambda x: x, lambda x: x + change, inputs, tolerance=0.5)
    assert parity.agreement == 0.5
    assert not parity.passed
    assert compare(lambda x: x, lambda x: x + change, inputs, tolerance=0.5, min_agreement=0.5).passed


def test_decisions_of_dense_outputs_are_counted_per_cell():
    picture = torch.randn(2, 3, 4, 4)
    other = picture.clone()
    other[0, :, 0, 0] = torch.tensor([-9.0, -9.0, 9.0])
    picture[0, :, 0, 0] = torch.tensor([9.0, -9.0, -9.0])
    assert compare(lambda x: picture, lambda x: other, torch.zeros(2, 1)).agreement == 31 / 32


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["reference", "candidate", "both"])
@pytest.mark.parametrize("batch", [0, 1])
def test_what_is_not_finite_never_passes(bad: float, where: str, batch: int):
    def spoiled(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[:, 1] = torch.where(x[:, 0] == batch, bad, x[:, 1])
        return y

    def sound(x: torch.Tensor) -> torch.Tensor:
        return x * 1

    reference = sound if where == "candidate" else spoiled
    candidate = sound if where == "reference" else lambda x: spoiled(x)
    inputs = [torch.tensor([[0.0, 5.0]]), torch.tensor([[1.0, 5.0]])]
    assert not compare(reference, candidate, inputs, tolerance=1e30, min_agreement=0.0).passed


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("field", ["worst_absolute", "worst_relative"])
def test_what_is_not_finite_never_passes_whatever_is_allowed(bad: float, field: str):
    sound = Parity(
        worst_absolute=0.0,
        worst_relative=0.0,
        agreement=1.0,
        num_inputs=1,
        tolerance=math.inf,
        min_agreement=0.0,
    )
    assert sound.passed
    assert not replace(sound, **{field: bad}).passed


@pytest.mark.parametrize("tolerance", [math.inf, math.nan, -1e-9])
def test_refuses_a_tolerance_that_is_none(tolerance: float):
    with pytest.raises(RecipeError, match=r"tolerance is .*; expected a finite number of at least 0"):
        compare(lambda x: x, lambda x: x * math.inf, torch.randn(2, 5), tolerance=tolerance)


@pytest.mark.parametrize("share", [-0.01, 1.01, math.nan, 99.0])
def test_refuses_an_agreement_that_is_no_share(share: float):
    with pytest.raises(RecipeError, match=r"min_agreement is .*; expected a share between 0 and 1"):
        compare(lambda x: x, lambda x: x * 1, torch.randn(2, 5), min_agreement=share)


def test_the_limits_themselves_may_be_asked():
    assert compare(lambda x: x, lambda x: x * 1, torch.randn(2, 5), tolerance=0.0, min_agreement=1.0).passed


def test_refuses_a_proof_without_inputs():
    with pytest.raises(ParityError, match="no inputs"):
        compare(linear(), nudged(linear(), 1), [])
    with pytest.raises(ParityError, match="expected batches of values"):
        compare(linear(), nudged(linear(), 1), torch.zeros(0, 5))


def test_refuses_outputs_of_different_shapes():
    with pytest.raises(ParityError, match=r"\(2, 1\); expected the reference's \(2, 3\)"):
        compare(linear(), lambda x: x[:, :1], torch.randn(2, 5))


def test_refuses_outputs_without_a_class_axis():
    with pytest.raises(ParityError, match=r"\(2,\)"):
        compare(lambda x: x[:, 0], lambda x: x[:, 0] * 1, torch.randn(2, 5))


def test_refuses_a_reference_that_is_zero():
    with pytest.raises(ParityError, match="zero for every input"):
        compare(lambda x: x * 0, lambda x: x * 0, torch.randn(2, 5))


def test_refuses_to_compare_a_thing_with_itself():
    layer = linear()

    def function(x: torch.Tensor) -> torch.Tensor:
        return x

    for reference, candidate in [
        (layer, layer),
        (layer, layer.forward),
        (layer.__call__, layer),
        (function, function),
        (layer, copy.deepcopy(layer)),
        (layer.forward, copy.deepcopy(layer).forward),
    ]:
        with pytest.raises(ParityError, match="cannot fail"):
            compare(reference, candidate, torch.randn(2, 5))


def test_two_methods_of_one_object_may_be_compared():
    class Twins:
        def slow(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        def fast(self, x: torch.Tensor) -> torch.Tensor:
            return x + x

    twins = Twins()
    assert compare(twins.slow, twins.fast, torch.randn(2, 5)).passed
    with pytest.raises(ParityError, match="cannot fail"):
        compare(twins.slow, twins.slow, torch.randn(2, 5))


def test_another_setting_or_layout_is_another_module():
    conv = nn.Conv2d(3, 4, 3).eval()
    other_layout = copy.deepcopy(conv).to(memory_format=torch.channels_last)
    assert compare(conv, other_layout, torch.randn(2, 3, 8, 8)).passed
    exact, approximate = nn.GELU().eval(), nn.GELU("tanh").eval()
    assert not compare(exact, approximate, torch.randn(2, 5), tolerance=1e-9).passed


def test_refuses_train_mode():
    layer = nn.Sequential(nn.Linear(5, 3), nn.Dropout()).eval()
    layer[1].train()
    for pair in [(layer, linear()), (linear(), layer), (linear(), layer.forward)]:
        with pytest.raises(TrainModeError, match="hint"):
            compare(*pair, torch.randn(2, 5))


def test_each_function_gets_its_own_copy_of_the_inputs():
    assert not compare(lambda x: x.mul_(2), lambda x: x * 4, torch.randn(2, 5)).passed


def test_random_inputs_are_the_same_for_the_same_seed():
    first, second = list(random_inputs((2, 3), 2)), list(random_inputs((2, 3), 2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], next(random_inputs((2, 3), 1, seed=1)))
