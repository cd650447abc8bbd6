"""A trained network in one file: weights, and a card that says how to use them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from regraft.errors import WeightsError
from regraft.files import replacing
from regraft.nn.reparam import fuse, is_fused
from regraft.vision.backbone import Backbone
from regraft.vision.models import create_model
from regraft.vision.preprocess import Preprocess

KEY = "regraft"
"""Entry of the safetensors header that holds the card, as JSON."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What must be known about weights to use them."""

    architecture: str
    """A name that `create_model` knows."""
    num_classes: int
    preprocess: Preprocess
    in_channels: int = 3
    output_stride: int | None = None
    fused: bool = False
    """Whether the branches are folded into plain convolutions."""
    labels: tuple[str, ...] = ()
    """Name of each class, in the order of the logits."""

    def metadata(self) -> dict[str, str]:
        """The card as strings, for formats that carry nothing else."""
        return {name: json.dumps(value) for name, value in self.to_json().items()}

    def to_json(self) -> dict[str, object]:
        """The card as JSON values."""
        values: dict[str, object] = asdict(self)
        return values | {"preprocess": self.preprocess.describe(), "labels": list(self.labels)}

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> "ModelCard":
        """The card that `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: It is something else.
        """
        others = {name: value for name, value in written.items() if name not in ("preprocess", "labels")}
        preprocess = Preprocess.from_description(written["preprocess"])
        return cls(preprocess=preprocess, labels=tuple(written["labels"]), **others)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "ModelCard":
        """The card in what a file says about itself; entries of others are passed over.

        Raises:
            KeyError, TypeError, ValueError: There is none.
        """
        names = [field.name for field in fields(cls) if field.name in metadata]
        return cls.from_json({name: json.loads(metadata[name]) for name in names})


def save_model(path: str | Path, model: Backbone, card: ModelCard) -> None:
    """Write `model` and its card to one `.safetensors` file, all or nothing."""
    card = replace(card, fused=is_fused(model))
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(Path(path)) as temporary:
        save_file(weights, temporary, metadata={KEY: json.dumps(card.to_json())})


def read_card(path: str | Path) -> ModelCard:
    """Read the card alone.

    Raises:
        WeightsError: The file is not there, is no safetensors file, or has no card that can be read.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no file {path}.")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a safetensors file: {error}.") from error
    if KEY not in header:
        raise WeightsError(
            f"{path} holds weights without a model card.",
            hint="regraft import turns weights into a model file.",
        )
    try:
        return ModelCard.from_json(json.loads(header[KEY]))
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"The card in {path} cannot be read: {error}.", hint="A newer Regraft may have written it."
        ) from error


def load_model(path: str | Path) -> tuple[Backbone, ModelCard]:
    """Read a network, in eval mode and in the form it was saved in, and its card.

    Raises:
        WeightsError: The file cannot be read, or its weights do not fit its card.
    """
    card = read_card(path)
    model = build(card)
    try:
        model.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise WeightsError(f"The weights in {path} do not fit its card: {error}") from error
    return model, card


def build(card: ModelCard) -> Backbone:
    """Make the network a card describes, with fresh weights, in eval mode."""
    model = create_model(
        card.architecture,
        num_classes=card.num_classes,
        in_channels=card.in_channels,
        output_stride=card.output_stride,
    ).eval()
    if not card.fused:
        return model
    fused = fuse(model)
    assert isinstance(fused, Backbone), "fusing keeps a backbone a backbone"
    return fused
