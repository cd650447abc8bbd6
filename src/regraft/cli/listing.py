"""`regraft models` and `regraft recipes`: what there is to choose from."""

import inspect
import json
from functools import partial
from typing import Annotated

import typer


def models(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the networks with their size and cost before and after fusing."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from regraft.deploy.cost import count
    from regraft.nn.reparam import fuse
    from regraft.vision.models import create_model, list_models

    rows: list[dict[str, object]] = []
    for name in list_models():
        size_px = 32 if name.endswith("mini") else 256 if name.startswith("fastvit") else 224
        with torch.device("meta"):
            model = create_model(name).eval()
            train = count(model, torch.empty(1, 3, size_px, size_px))
            fused = count(fuse(model), torch.empty(1, 3, size_px, size_px))
        rows.append(
            {
                "name": name,
                "size_px": size_px,
                "train_parameters": train.parameters,
                "fused_parameters": fused.parameters,
                "train_multiply_adds": train.multiply_adds,
                "fused_multiply_adds": fused.multiply_adds,
            }
        )
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table("model", "input px", "parameters, M", "fused", "multiply-adds, M", "fused")
    for name, size_px, *counts in (row.values() for row in rows):
        millions = (f"{int(str(value)) / 1e6:.2f}" for value in (counts[0], counts[1], counts[2], counts[3]))
        table.add_row(str(name), str(size_px), *millions)
    Console().print(table)


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
