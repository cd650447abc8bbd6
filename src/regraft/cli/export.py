"""`regraft export`: a file for another runtime, proven equal."""

import json
from pathlib import Path
from typing import Annotated

import typer


def export(
    model: Annotated[Path, typer.Argument(help="Fused model file.")],
    out: Annotated[Path, typer.Option(help="Where to write the exported model.")],
    target: Annotated[
        str, typer.Option(help="onnx, openvino, executorch, coreml or coreml-float32.")
    ] = "onnx",
    images: Annotated[
        Path | None, typer.Option(help="Folder of real pictures to compare on, beside random ones.")
    ] = None,
    inputs: Annotated[int, typer.Option(min=1, help="Random pictures to compare on.")] = 16,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Largest allowed difference, relative to the outputs.", show_default="the target's own"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write a fused model for another runtime and prove that it answers alike.

    The file carries preprocessing and labels. Nothing is written if the runtime disagrees. Core ML
    runs on macOS only; elsewhere it is exported, and reported as not verified.
    """
    import torch

    from regraft.deploy.export import export as write
    from regraft.recipes.proof import pictures_in, proof_inputs
    from regraft.vision.left_out import LeftOut
    from regraft.vision.modelfile import load_model

    network, card = load_model(model)
    size_px = card.preprocess.size_px
    left_out = LeftOut()
    pictures = pictures_in(images) if images else []
    proofs = proof_inputs(card, pictures, num_random=inputs, left_out=left_out)
    if len(left_out):
        typer.echo(str(left_out), err=True)
    artifact = write(
        network,
        out,
        example=torch.zeros(1, card.in_channels, size_px, size_px),
        target=target,
        metadata=card.metadata(),
        inputs=proofs,
        tolerance=tolerance,
    )
    if not as_json:
        typer.echo(str(artifact))
        return
    facts = {
        "path": str(artifact.path),
        "target": artifact.target,
        "size_bytes": artifact.size_bytes,
        "verified": artifact.verified,
        "parity": artifact.parity and artifact.parity.to_json(),
    }
    typer.echo(json.dumps(facts))
