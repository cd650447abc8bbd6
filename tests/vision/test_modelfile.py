"""One file holds a network and its card, and says so when it does not."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from regraft.errors import WeightsError
from regraft.nn.reparam import fuse, is_fused
from regraft.vision.modelfile import KEY, ModelCard, load_model, read_card, save_model
from regraft.vision.models import create_model
from regraft.vision.preprocess import Preprocess

CARD = ModelCard(
    architecture="mobileone_mini",
    num_classes=3,
    in_channels=1,
    output_stride=4,
    preprocess=Preprocess(size_px=28, crop=1.0, channels=1, mean=(0.5,), std=(0.25,)),
    labels=("a", "b", "c"),
)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model("mobileone_mini", num_classes=3, in_channels=1, output_stride=4).eval()


@pytest.mark.parametrize("fused", [False, True])
def test_round_trip(fused: bool, tmp_path: Path) -> None:
    model = fuse(network()) if fused else network()
    save_model(tmp_path / "model.safetensors", model, CARD)
    loaded, card = load_model(tmp_path / "model.safetensors")
    assert card.fused == is_fused(loaded) == fused
    assert card.preprocess == CARD.preprocess
    assert card.labels == CARD.labels
    x = torch.randn(2, 1, 28, 28)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("not json", "card in .* cannot be read"),
        ("{}", "cannot be read: 'preprocess'"),
        (json.dumps(CARD.to_json() | {"later": 1}), "A newer Regraft"),
    ],
)
def test_a_card_that_cannot_be_read(card: str, message: str, tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={KEY: card})
    with pytest.raises(WeightsError, match=message):
        read_card(tmp_path / "model.safetensors")


def test_weights_that_do_not_fit_the_card(tmp_path: Path) -> None:
    card = json.dumps(CARD.to_json())
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={KEY: card})
    with pytest.raises(WeightsError, match="do not fit its card"):
        load_model(tmp_path / "model.safetensors")


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load_model(tmp_path / "text.safetensors")
    save_file({"weight": torch.zeros(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(WeightsError, match="without a model card"):
        load_model(tmp_path / "bare.safetensors")
    with pytest.raises(WeightsError, match="no file"):
        load_model(tmp_path / "none.safetensors")
