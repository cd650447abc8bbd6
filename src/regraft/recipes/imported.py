"""Model files from checkpoints that others published."""

from collections.abc import Sequence
from pathlib import Path

from regraft.errors import WeightsError
from regraft.recipes.catalogue import RECIPES
from regraft.recipes.preprocessing import preprocessing_of
from regraft.vision.modelfile import ModelCard, build, save_model
from regraft.vision.weight_file import read_weights
from regraft.vision.weight_layouts import recognise
from regraft.vision.weights import load_weights

PUBLISHED = [name.removeprefix("imagenet_") for name in RECIPES if name.startswith("imagenet_")]


def import_checkpoint(
    weights: Path,
    architecture: str,
    out: Path,
    *,
    num_classes: int = 1000,
    labels: Sequence[str] | None = None,
) -> ModelCard:
    """Write a model file with the weights of a checkpoint, in the form they are in.

    The card's preprocessing is that of the papers' evaluation (see `recipes.imagenet`).

    Raises:
        WeightsError: The checkpoint cannot be read or does not fit, the network was not published, or
            there is not one label a class.
    """
    if labels is not None and len(labels) != num_classes:
        raise WeightsError(f"There are {len(labels)} labels for {num_classes} classes; expected one a class.")
    recipe = RECIPES.get(f"imagenet_{architecture}")
    if recipe is None:
        raise WeightsError(
            f"No checkpoint of {architecture!r} was ever published.",
            hint=f"Published are: {', '.join(PUBLISHED)}.",
        )
    kind = recognise(read_weights(weights).entries)
    card = ModelCard(
        architecture=architecture,
        num_classes=num_classes,
        preprocess=preprocessing_of(recipe()),
        fused=kind is not None and kind.form == "fused",
        labels=tuple(labels or ()),
    )
    save_model(out, load_weights(build(card), weights), card)
    return card


def read_labels(path: Path) -> list[str]:
    """Class names from a text file, one a line.

    Raises:
        WeightsError: The file cannot be read as text.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        hint = "Give a text in UTF-8, one name a line."
        raise WeightsError(f"The labels in {path} cannot be read: {error}.", hint=hint) from error
