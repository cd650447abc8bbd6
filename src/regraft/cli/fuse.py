"""`regraft fuse`: from training branches to plain convolutions, proven equal."""

import json
from pathlib import Path
from typing import Annotated

import typer


def fuse(
    model: Annotated[Path, typer.Argument(help="Trained model file, branches intact.")],
    out: Annotated[Path, typer.Option(help="Where to write the fused model file.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder of real pictures to compare on, beside random ones.")
    ] = None,
    inputs: Annotated[int, typer.Option(min=1, help="Random pictures to compare on.")] = 16,
    tolerance: Annotated[
        float, typer.Option(help="Largest allowed difference, relative to the outputs.")
    ] = 1e-4,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Fold a model's training branches into plain convolutions and prove nothing changed.

    Writes OUT only if the two models agree; exits 1 if they do not.
    """
    from regraft.deploy.parity import compare
    from regraft.errors import WeightsError
    from regraft.files import check_place
    from regraft.nn.reparam import fuse as fold
    from regraft.nn.reparam import is_fused
    from regraft.recipes.proof import pictures_in, proof_inputs
    from regraft.vision.backbone import Backbone
    from regraft.vision.left_out import LeftOut
    from regraft.vision.modelfile import load_model, save_model

    check_place(out)
    branched, card = load_model(model)
    if is_fused(branched):
        raise WeightsError(f"{model} has no branches to fuse.", hint="It is fused already.")
    fused = fold(branched)
    assert isinstance(fused, Backbone), "fusing keeps a backbone a backbone"
    left_out = LeftOut()
    pictures = pictures_in(images) if images else []
    proofs = proof_inputs(card, pictures, num_random=inputs, left_out=left_out)
    if len(left_out):
        typer.echo(str(left_out), err=True)
    parity = compare(branched, fused, proofs, tolerance=tolerance)
    typer.echo(json.dumps(parity.to_json()) if as_json else str(parity))
    if not parity.passed:
        raise typer.Exit(1)
    save_model(out, fused, card)
