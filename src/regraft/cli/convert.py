"""`regraft import` and `regraft publish`: weights from elsewhere, and weights for elsewhere."""

from pathlib import Path
from typing import Annotated

import typer


def import_weights(
    weights: Annotated[Path, typer.Argument(help=".pth, .pt or .safetensors, of Apple's or timm's layout.")],
    model: Annotated[
        str, typer.Option(help="Which network the weights are of; `regraft models` lists them.")
    ],
    out: Annotated[Path, typer.Option(help="Where to write the model file.")],
    num_classes: Annotated[int, typer.Option(min=1, help="Width of its classifier.")] = 1000,
    labels: Annotated[Path | None, typer.Option(help="Text file with one class name a line.")] = None,
) -> None:
    """Turn a checkpoint of MobileOne or FastViT into a model file, in training or fused form.

    The preprocessing becomes that of the papers' evaluation. Files are read without running code.
    """
    from regraft.recipes.imported import import_checkpoint, read_labels

    names = read_labels(labels) if labels is not None else None
    card = import_checkpoint(weights, model, out, num_classes=num_classes, labels=names)
    typer.echo(f"{out}: {card.architecture}, {'fused' if card.fused else 'branches intact'}.")


def publish(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    out: Annotated[Path, typer.Option(help="Where to write the .safetensors file.")],
) -> None:
    """Write a model's weights under timm's names, so that timm loads them."""
    from safetensors.torch import save_file

    from regraft.files import replacing
    from regraft.vision.modelfile import load_model
    from regraft.vision.weights import to_timm

    network, _ = load_model(model)
    with replacing(out) as temporary:
        save_file(to_timm(network), temporary)
    typer.echo(f"{out}: timm's layout.")
