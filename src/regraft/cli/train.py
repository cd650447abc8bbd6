"""`regraft train`: a classifier from pictures and a recipe."""

from pathlib import Path
from typing import Annotated

import typer

NEAR_DB = 0.5
"""How near to their target learned ranges are expected to end."""


def train(
    data: Annotated[Path, typer.Argument(help="Folder of pictures by class, or a CSV with path,label.")],
    out: Annotated[Path, typer.Option(help="Run directory; an unfinished run in it is continued.")],
    recipe: Annotated[str, typer.Option(help="A name that `regraft recipes` lists.")] = "mobileone_mini",
    held_out: Annotated[
        Path | None, typer.Option(help="Pictures to evaluate on; a tenth of DATA is held out otherwise.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="A table of `regraft reinforce`: learn from a teacher's answers.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Vary pictures by these learned ranges, a run's policy.json.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change the recipe, such as schedule.steps=1000.")
    ] = None,
    max_bad_share: Annotated[
        float, typer.Option(help="Largest share of unreadable pictures to go on with.")
    ] = 0.05,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that prepare pictures which do not fit into memory.")
    ] = 2,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write events for TensorBoard.")
    ] = False,
) -> None:
    """Train a network on pictures, and write OUT/model.safetensors.

    Stop it as you like: the same command goes on where it stopped. Under `torchrun` it uses every
    process; batch_size is that of all together.

    `--set ranges.target_db=20` learns how strongly to vary the pictures, and writes OUT/policy.json and
    OUT/ranges.svg.
    """
    from regraft.cli.printing import echo_other_versions
    from regraft.files import check_folder_place
    from regraft.recipes.catalogue import find_recipe
    from regraft.recipes.override import override
    from regraft.recipes.pictures import prepare
    from regraft.recipes.policies import with_policy
    from regraft.recipes.reinforcement import with_views_of
    from regraft.recipes.training import grow
    from regraft.tables.table import open_table
    from regraft.train import processes
    from regraft.train.progress import progress
    from regraft.train.tensorboard import TensorBoard

    check_folder_place(out)
    opened = open_table(table) if table else None
    resolved = find_recipe(recipe)
    resolved = with_views_of(resolved, opened) if opened else resolved
    resolved = override(resolved, settings or ())
    resolved = with_policy(resolved, policy) if policy else resolved
    fabric = processes.launch(precision=resolved.precision)
    if opened and fabric.is_global_zero:
        echo_other_versions(opened)
    pictures = prepare(data, held_out, out, max_bad_share=max_bad_share, fabric=fabric)
    if fabric.is_global_zero:
        for inspection in pictures.inspections:
            typer.echo(str(inspection), err=True)
    left_out = grow(
        resolved,
        pictures.train,
        pictures.held_out,
        out,
        table=opened,
        workers=workers,
        watchers=[progress(), *([TensorBoard()] if tensorboard else [])],
        fabric=fabric,
    )
    if fabric.is_global_zero:
        if len(left_out):
            typer.echo(str(left_out), err=True)
        if resolved.ranges.target_db is not None:
            _tell_of_ranges(out)
        typer.echo(str(out / "model.safetensors"))


def _tell_of_ranges(run: Path) -> None:
    """Draw how ranges were learned, and say so where they have missed their target."""
    from regraft.recipes.range_chart import evaluations_of, write_range_chart

    evaluations = evaluations_of(run)
    write_range_chart(run / "ranges.svg", evaluations)
    _, last = evaluations[-1]
    reached_db, target_db = last["range_psnr_db"], last["range_target_db"]
    if not abs(reached_db - target_db) <= NEAR_DB:
        typer.echo(
            f"The ranges reached {reached_db:.1f} dB, not {target_db:g}: train longer, or aim nearer.",
            err=True,
        )
