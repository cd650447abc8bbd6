"""Classifiers out of files: Regraft's own, and those exported to ONNX."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from regraft.deploy import onnx
from regraft.errors import WeightsError
from regraft.nn.device import best_device
from regraft.vision.inference import Classifier, logits_of
from regraft.vision.modelfile import ModelCard, load_model


@dataclass(frozen=True, eq=False)
class FileClassifier:
    """A classifier at work, and what its file says about it."""

    card: ModelCard
    classifier: Classifier

    def only(self, columns: Sequence[int]) -> Classifier:
        """The same classifier, with these logits alone and in this order."""
        picked = torch.tensor(columns)

        def answer(image: Tensor) -> Tensor:
            return logits_of(self.classifier, image, self.card.num_classes)[:, picked]

        return answer


def load_classifier(file: Path) -> FileClassifier:
    """Load a model file, onto a GPU if there is one, or an ONNX file that `regraft export` wrote.

    Raises:
        WeightsError: The file cannot be read, says too little about itself, or names no classes to tell.
    """
    if file.suffix == ".onnx":
        loaded = _load_onnx(file)
    else:
        model, card = load_model(file)
        loaded = FileClassifier(card, model.to(best_device()))
    if not loaded.card.num_classes:
        raise WeightsError(f"{file} is of a model without classes; expected a classifier.")
    return loaded


def _load_onnx(file: Path) -> FileClassifier:
    from google.protobuf.message import DecodeError

    if not file.is_file():
        raise WeightsError(f"There is no file {file}.")
    try:
        metadata = onnx.read_metadata(file)
    except DecodeError as error:
        raise WeightsError(f"{file} is not an ONNX file: {error}.") from error
    try:
        card = ModelCard.from_metadata(metadata)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{file} does not say how to use it: {error!r}; expected preprocessing and labels.",
            hint="`regraft export` writes them into the file.",
        ) from error
    return FileClassifier(card, onnx.load(file))
