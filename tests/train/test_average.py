import pytest
import torch
from torch import nn

from regraft.errors import RecipeError
from regraft.train.average import moving_average


def moved(model: nn.Module, to: float) -> None:
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(to)


def test_it_follows_with_a_warm_up_and_copies_counters() -> None:
    model = nn.BatchNorm1d(1)
    average = moving_average(model, decay=0.3)
    for value in (10.0, 20.0, 40.0):
        moved(model, value)
        average.update_parameters(model)
    expected = 10.0
    expected = expected * 2 / 11 + 20.0 * 9 / 11
    expected = expected * 3 / 12 + 40.0 * 9 / 12
    assert average.module.weight.item() == pytest.approx(expected)
    assert average.module.running_mean.item() == pytest.approx(expected)
    assert average.module.num_batches_tracked.item() == 40


def test_the_decay_is_reached() -> None:
    model = nn.Linear(1, 1)
    average = moving_average(model, decay=0.15)
    for value in (0.0, 1.0):
        moved(model, value)
        average.update_parameters(model)
    assert average.module.weight.item() == pytest.approx(0.85)


def test_it_is_a_copy_for_looking_at() -> None:
    model = nn.Linear(1, 1)
    average = moving_average(model)
    assert average.module is not model
    assert not average.training
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_a_decay_is_a_share(decay: float) -> None:
    with pytest.raises(RecipeError, match="decay"):
        moving_average(nn.Linear(1, 1), decay=decay)
