"""Encoders: unit vectors, and fingerprints that change with what decides the vectors."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

from regraft.nn.encoder import Encoder, fingerprint
from regraft.vision.models import create_model


class Halve:
    def __init__(self, factor: float = 0.5) -> None:
        self.factor = factor

    def __call__(self, sample: list[float]) -> torch.Tensor:
        return torch.tensor(sample) * self.factor

    def describe(self) -> Mapping[str, object]:
        return {"factor": self.factor}


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))


SAMPLES = [[1.0, 2.0, 3.0], [-1.0, 0.5, 2.0], [0.0, 0.0, 1.0]]


def test_vectors_are_unit_norm_float32_in_order() -> None:
    encoder = Encoder(network(), Halve(), batch_size=2)
    vectors = encoder(SAMPLES)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(encoder(SAMPLES[::-1]), vectors[::-1], rtol=1e-6)
    assert len(encoder([])) == 0


def test_model_is_frozen() -> None:
    encoder = Encoder(network().train(), Halve())
    assert not encoder.model.training
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())


def test_fingerprint_is_the_same_for_the_same() -> None:
    assert Encoder(network(), Halve()).fingerprint == Encoder(network(), Halve()).fingerprint


def test_the_same_weights_in_another_network_are_another_space() -> None:
    strided = create_model("mobileone_mini", num_classes=0)
    dilated = create_model("mobileone_mini", num_classes=0, output_stride=4)
    dilated.load_state_dict(strided.state_dict())
    assert Encoder(strided, Halve()).fingerprint != Encoder(dilated, Halve()).fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (nn.GELU(), nn.GELU("tanh")),
        (nn.AvgPool1d(1), nn.AvgPool1d(3, 1, 1)),
        (nn.ReLU(), nn.ReLU6()),
        (nn.Linear(5, 5), nn.Linear(5, 5).double()),
    ],
)
def test_layers_without_weights_count(one: nn.Module, other: nn.Module) -> None:
    other.load_state_dict(one.state_dict())
    assert fingerprint(nn.Sequential(one), {}) != fingerprint(nn.Sequential(other), {})


def test_names_and_shapes_count() -> None:
    weights = torch.arange(6.0)
    tall, wide = (nn.ParameterDict({"w": nn.Parameter(weights.view(*size))}) for size in ((2, 3), (3, 2)))
    renamed = nn.ParameterDict({"v": nn.Parameter(weights.view(2, 3))})
    assert len({fingerprint(module, {}) for module in (tall, wide, renamed)}) == 3


@pytest.mark.parametrize("change", ["weight", "buffer", "preprocessing", "type", "structure", "setting"])
def test_fingerprint_notices(change: str) -> None:
    model, preprocess = network(), Halve()
    with torch.no_grad():
        if change == "weight":
            model[0].weight[0, 0] += 1e-6
        if change == "buffer":
            model[1].running_mean[0] += 1e-6
        if change == "preprocessing":
            preprocess = Halve(0.25)
        if change == "type":
            model = model.bfloat16()
        if change == "structure":
            model = nn.Sequential(*model, nn.ReLU())
        if change == "setting":
            model[1].eps = 1e-3
    assert Encoder(model, preprocess).fingerprint != Encoder(network(), Halve()).fingerprint
