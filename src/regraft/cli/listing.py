"""`regraft models` and `regraft recipes`: what there is to choose from."""

import inspect
import json
from functools import partial
from typing import Annotated

import typer


def models(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the networks with their size and cost before and after fusing."""
    rows = measured_models()
    if as_json:
        typer.echo(json.dumps(rows))
        return
    line = "{:16}{:>10}{:>20}{:>10}{:>24}{:>10}"
    typer.echo(line.format("model", "input, px", "parameters, M", "fused", "multiply-adds, M", "fused"))
    for row in rows:
        millions = (f"{int(row[name]) / 1e6:.2f}" for name in COUNTS)
        typer.echo(line.format(row["name"], row["size_px"], *millions))


COUNTS = ("train_parameters", "fused_parameters", "train_multiply_adds", "fused_multiply_adds")


def measured_models() -> list[dict[str, str | int]]:
    """Size and cost of every network, counted at the size its paper evaluates it at."""
    import torch

    from regraft.deploy.cost import count
    from regraft.nn.reparam import fuse
    from regraft.vision.models import create_model, list_models

    rows: list[dict[str, str | int]] = []
    for name in list_models():
        size_px = 32 if name.endswith("mini") else 256 if name.startswith("fastvit") else 224
        with torch.device("meta"):
            model, picture = create_model(name).eval(), torch.empty(1, 3, size_px, size_px)
            train, fused = count(model, picture), count(fuse(model), picture)
        counts = (train.parameters, fused.parameters, train.multiply_adds, fused.multiply_adds)
        rows.append({"name": name, "size_px": size_px, **dict(zip(COUNTS, counts, strict=True))})
    return rows


def recipes(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the training recipes; `--json` prints every number of each."""
    from dataclasses import asdict

    from regraft.recipes.catalogue import RECIPES

    if as_json:
        typer.echo(json.dumps({name: asdict(make()) for name, make in RECIPES.items()}))
        return
    for name, make in RECIPES.items():
        function = make.func if isinstance(make, partial) else make
        typer.echo(f"{name:28}{(inspect.getdoc(function) or '').splitlines()[0]}")
