import math

import pytest
import torch
from torch import nn

from regraft.errors import RecipeError
from regraft.train.schedule import Schedule, group_apart, param_groups


def test_warm_up_then_half_a_cosine() -> None:
    schedule = Schedule(steps=110, peak_lr=1.0, final_lr=0.1, warmup_steps=10, warmup_lr=0.5)
    assert schedule.lr(0) == pytest.approx(0.55)
    assert schedule.lr(9) == schedule.lr(10) == 1.0
    assert schedule.lr(60) == pytest.approx(0.55)
    assert schedule.lr(85) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(0.75 * math.pi)))
    assert schedule.lr(110) == pytest.approx(0.1)


def test_weight_decay_is_constant_or_falls_on_the_same_cosine() -> None:
    constant = Schedule(steps=100, peak_lr=1.0, weight_decay=0.05)
    assert {constant.decay(step) for step in range(100)} == {0.05}
    falling = Schedule(steps=100, peak_lr=0.1, weight_decay=1e-4, final_weight_decay=1e-5)
    assert falling.decay(0) == 1e-4
    assert falling.decay(50) == pytest.approx(5.5e-5)
    assert falling.decay(100) == pytest.approx(1e-5)
    assert falling.lr(25) / 0.1 == pytest.approx((falling.decay(25) - 1e-5) / 9e-5)


def test_when_to_look_and_to_save() -> None:
    schedule = Schedule(steps=10, peak_lr=1.0, evaluate_every=4)
    assert [step for step in range(1, 11) if schedule.evaluates(step)] == [4, 8, 10]
    assert [step for step in range(1, 11) if schedule.checkpoints(step)] == [10]


def test_everything_wrong_is_named_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        Schedule(steps=0, peak_lr=-1.0, weight_decay=math.nan, accumulate=0, clip_norm=0.0)
    for words in (
        "steps is 0",
        "peak_lr is -1.0",
        "weight_decay is nan",
        "accumulate is 0",
        "clip_norm is 0.0",
    ):
        assert words in str(caught.value)


def test_warm_up_must_end() -> None:
    with pytest.raises(RecipeError, match="warmup_steps is 10, expected fewer than the 10"):
        Schedule(steps=10, peak_lr=1.0, warmup_steps=10)
    with pytest.raises(RecipeError, match=r"hint: --set schedule\.warmup_steps=6"):
        Schedule(steps=60, peak_lr=1.0, warmup_steps=150)


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(4, 4, 1, groups=4)
        self.norm = nn.BatchNorm2d(4)
        self.plane_norm = nn.LayerNorm((4, 4))
        self.gamma = nn.Parameter(torch.ones(4, 1, 1))
        self.temperature = nn.Parameter(torch.ones(()))
        self.relative_bias = nn.Parameter(torch.ones(2, 4, 4))
        self.attention = nn.MultiheadAttention(4, 1)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.attention.out_proj.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


def test_only_what_multiplies_features_is_decayed() -> None:
    model = Everything()
    decayed, plain = param_groups(model)
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert [names[p] for p in decayed["params"]] == [
        "depthwise.weight", "attention.in_proj_weight", "attention.out_proj.weight",
    ]  # fmt: skip
    assert (decayed["decayed"], plain["decayed"]) == (True, False)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {names[p] for p in [*decayed["params"], *plain["params"]]} == trainable


def test_an_empty_group_is_left_out() -> None:
    assert [group["decayed"] for group in param_groups(nn.LayerNorm(3))] == [False]


def test_decay_is_set_where_it_is_due_and_the_rate_everywhere() -> None:
    optimizer = torch.optim.SGD(param_groups(Everything()), lr=9.0)
    schedule = Schedule(steps=10, peak_lr=0.1, weight_decay=0.01, final_weight_decay=0.0)
    schedule.apply(optimizer, 5)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [schedule.decay(5), 0.0]
    assert [group["lr"] for group in optimizer.param_groups] == [schedule.lr(5)] * 2


def test_a_group_apart_keeps_its_own_rate_and_is_not_decayed() -> None:
    model = Everything()
    apart = group_apart(model.norm, lr=0.3)
    assert apart["params"] == [model.norm.weight, model.norm.bias]
    assert group_apart(model.frozen, lr=0.3)["params"] == []
    optimizer = torch.optim.SGD([*param_groups(model.tied), apart], lr=9.0)
    Schedule(steps=10, peak_lr=0.1, weight_decay=0.01).apply(optimizer, 5)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0, 0.0]
    assert optimizer.param_groups[2]["lr"] == 0.3


@pytest.mark.parametrize("lr", [0.0, -1.0, math.inf, math.nan])
def test_a_group_apart_has_a_rate(lr: float) -> None:
    with pytest.raises(RecipeError, match="learning rate of a group apart"):
        group_apart(nn.Linear(1, 1), lr=lr)
