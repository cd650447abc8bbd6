"""`regraft ranges`: how strongly to vary pictures in training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.printing import AsJson, echo, echo_json, progress_bar

if TYPE_CHECKING:
    from regraft.recipes.sweep import Sweep

app = typer.Typer(no_args_is_help=True, help="Find out how strongly to vary pictures in training.")


@app.command()
def sweep(
    data: Annotated[Path, typer.Argument(help="Folder of pictures by class, or a CSV with path,label.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs; an unfinished sweep in it is continued.")],
    target: Annotated[
        list[float] | None,
        typer.Option(
            help="A peak signal-to-noise ratio in dB; less varies more. May be repeated.",
            show_default="40, 30, 20 and 10",
        ),
    ] = None,
    recipe: Annotated[str, typer.Option(help="A name that `regraft recipes` lists.")] = "mobileone_mini",
    held_out: Annotated[
        Path | None, typer.Option(help="Pictures to compare on; a tenth of DATA is held out otherwise.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change the recipe, such as schedule.steps=1000.")
    ] = None,
    without_corruptions: Annotated[
        bool, typer.Option("--without-corruptions", help="Do not measure robustness.")
    ] = False,
    max_bad_share: Annotated[
        float, typer.Option(help="Largest share of unreadable pictures to go on with.")
    ] = 0.05,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that prepare pictures which do not fit into memory.")
    ] = 2,
    as_json: AsJson = False,
) -> None:
    """Train once without varying pictures and once for each target, and compare on held-out pictures.

    Writes OUT/sweep.html and OUT/sweep.json, and a policy.json in each run, for `regraft train --policy`.
    """
    from regraft.files import check_folder_place
    from regraft.recipes import sweep as recipes
    from regraft.recipes.catalogue import find_recipe
    from regraft.recipes.override import override
    from regraft.recipes.pictures import prepare
    from regraft.recipes.sweep_page import write_sweep_page
    from regraft.train import processes
    from regraft.train.progress import progress

    check_folder_place(out)
    resolved = override(find_recipe(recipe), settings or ())
    fabric = processes.launch(precision=resolved.precision)
    pictures = prepare(data, held_out, out, max_bad_share=max_bad_share, fabric=fabric)
    found = recipes.sweep(
        resolved,
        pictures.train,
        pictures.held_out,
        out,
        targets_db=target or recipes.TARGETS_DB,
        corrupt=not without_corruptions,
        watchers=[progress()],
        bar=progress_bar,
        workers=workers,
        fabric=fabric,
    )
    if not fabric.is_global_zero:
        return
    for notice in (*pictures.inspections, *found.left_out):
        typer.echo(str(notice), err=True)
    write_sweep_page(out / "sweep.html", found)
    echo_json(found.to_json()) if as_json else _echo(found, out)


def _echo(found: "Sweep", out: Path) -> None:
    echo(f"{'target':<12} {'reached':>8} {'top-1':>8} {'corrupted':>10}")
    for trial in found.trials:
        reached = "" if trial.reached_db is None else f"{trial.reached_db:.1f} dB"
        corrupted = "" if trial.corrupted_top1 is None else f"{100 * trial.corrupted_top1:.1f} %"
        echo(f"{trial.name:<12} {reached:>8} {100 * trial.top1:>6.1f} % {corrupted:>10}")
    echo(f"most named right: {found.best.name}; {out / 'sweep.html'} shows it")
