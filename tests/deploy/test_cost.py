import pytest
import torch
from torch import nn

from regraft.deploy.cost import count
from regraft.nn.reparam import fuse
from regraft.vision.models import create_model


@pytest.mark.parametrize(
    ("name", "size_px", "train_millions", "fused_millions"),
    [("mobileone_s1", 224, 830.1, 825.1), ("fastvit_sa12", 256, None, 1937.2)],
)
def test_counts_what_was_published(
    name: str, size_px: int, train_millions: float | None, fused_millions: float
):
    with torch.device("meta"):
        model = create_model(name)
    example = torch.empty(1, 3, size_px, size_px)
    assert round(count(fuse(model.eval()), example).multiply_adds / 1e6, 1) == fused_millions
    if train_millions:
        assert round(count(model.train(), example).multiply_adds / 1e6, 1) == train_millions


def test_counts_each_part():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    cost = count(model, torch.zeros(2, 3, 5, 5))
    first, second = 2 * 25 * 3 * 9 * 8, 2 * 25 * 8 * 4
    assert cost.modules == {"0": first, "2": second}
    assert cost.multiply_adds == first + second
    assert cost.parameters == 3 * 9 * 8 + 8 + 8 * 4 + 4


def test_leaves_the_model_alone():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count(model, torch.zeros(2, 3, 5, 5))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training
    assert count(nn.ReLU(), torch.zeros(1)).multiply_adds == 0
