"""`regraft reinforce`: store a teacher's answers with the data, once."""

from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from regraft.cli.printing import (
    AsJson,
    echo,
    echo_json,
    echo_other_versions,
    progress_bar,
    short,
    size,
)

if TYPE_CHECKING:
    from regraft.tables.table import Table
    from regraft.vision.blocks import Executor
    from regraft.vision.data import ImageSet

DEFAULT = "record"
DEFAULT_WORKERS = 2
"""Of a cluster, where --workers does not say."""


class RecordsByDefault(TyperGroup):
    """Takes `reinforce DATA ...` for `reinforce record DATA ...`."""

    # Typer carries a copy of Click of its own, whose context has no public name.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the verb in where none is given."""
        named = not args or args[0] in (*self.commands, "--help", "-h")
        return super().parse_args(ctx, args if named else [DEFAULT, *args])


app = typer.Typer(
    cls=RecordsByDefault,
    no_args_is_help=True,
    help="Store a teacher's answers to many views of each picture, once. "
    "`regraft reinforce DATA ...` records; `regraft train --table` learns from it.",
)

Data = Annotated[Path, typer.Argument(help="Folder of pictures by class, or a CSV with path,label.")]
TablePath = Annotated[Path, typer.Argument(help="A recorded table.", metavar="TABLE")]
Teachers = Annotated[
    list[str],
    typer.Option(
        help="A model file, an ONNX or TorchScript file, or timm:NAME. Several are averaged.",
        show_default=False,
    ),
]
HeldOut = Annotated[
    Path | None,
    typer.Option(help="Pictures that training is judged by. Without them a tenth of DATA is left out."),
]


class Machine(StrEnum):
    """Where the teacher works."""

    HERE = "here"
    RAY = "ray"


@app.command()
def record(
    data: Data,
    teacher: Teachers,
    out: Annotated[Path, typer.Option(help="The table's folder; an unfinished one is continued.")],
    draws: Annotated[int, typer.Option(min=1, help="Views of each picture.")] = 50,
    top_k: Annotated[int, typer.Option(min=1, help="Classes stored of each answer.")] = 10,
    recipe: Annotated[str, typer.Option(help="Whose augmentation the views show.")] = "mobileone_mini",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change the recipe, such as augment.rand_augment=9.")
    ] = None,
    policy: Annotated[Path | None, typer.Option(help="Learned ranges to vary the views by.")] = None,
    held_out: HeldOut = None,
    seed: Annotated[int, typer.Option(help="Of the views.")] = 0,
    explicit: Annotated[
        bool, typer.Option("--explicit", help="Also store what was drawn, not only its seed.")
    ] = False,
    max_bad_share: Annotated[
        float, typer.Option(help="Largest share of unreadable pictures to go on with.")
    ] = 0.05,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that make views; with --on ray, workers in all, or 2.")
    ] = 0,
    on: Annotated[Machine, typer.Option(help="Where the teacher works.")] = Machine.HERE,
    gpus: Annotated[
        float, typer.Option(min=0, help="With --on ray, GPUs of each worker; may be a fraction.")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Ask a teacher about many views of each training picture, and store its answers in OUT.

    Stop it as you like: the same command goes on where it stopped. `regraft train DATA --table OUT` trains on
    it, on the same pictures, which are those that `regraft train DATA` does not hold out.
    """
    from regraft.files import check_folder_place
    from regraft.recipes.catalogue import find_recipe
    from regraft.recipes.override import override
    from regraft.recipes.policies import with_policy
    from regraft.recipes.reinforcement import SETTINGS, settings_of, views_of
    from regraft.recipes.teachers import load_teachers
    from regraft.vision.reinforce import record as record_table

    check_folder_place(out)
    run = _executor(on, workers, gpus)
    resolved = override(find_recipe(recipe), settings or ())
    resolved = with_policy(resolved, policy) if policy else resolved
    samples = _training_pictures(data, held_out, max_bad_share, table=out)
    taught = load_teachers(teacher, samples.classes)
    with progress_bar() as bar:
        table = record_table(
            out,
            views_of(resolved, samples, seed=seed),
            taught,
            num_draws=draws,
            top_k=top_k,
            explicit=explicit,
            notes={SETTINGS: settings_of(resolved)},
            run=run,
            watch=partial(bar, "asking the teacher"),
        )
    echo_table(table, as_json)


@app.command()
def verify(
    table: TablePath,
    data: Data,
    teacher: Teachers,
    held_out: HeldOut = None,
    share: Annotated[float, typer.Option(help="Share of the table to ask about again.")] = 0.001,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the choice; without one it is another share each time.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Largest mean divergence, in nats, beyond what storing loses.")
    ] = 0.01,
    max_bad_share: Annotated[
        float, typer.Option(help="Largest share of unreadable pictures to go on with.")
    ] = 0.05,
    as_json: AsJson = False,
) -> None:
    """Check every byte of TABLE, and ask the teacher again about a random share of it.

    Exits with 1 if what it says now is not what is stored.
    """
    import secrets

    from regraft.errors import TableError
    from regraft.recipes.catalogue import find_recipe
    from regraft.recipes.reinforcement import views_of, with_views_of
    from regraft.recipes.teachers import load_teachers
    from regraft.tables.table import open_table
    from regraft.vision.verification import verify as ask_again

    opened = open_table(table)
    opened.verify()
    echo_other_versions(opened)
    samples = _training_pictures(data, held_out, max_bad_share, table=table)
    recipe = with_views_of(find_recipe("mobileone_mini"), opened)
    views = views_of(recipe, samples, seed=opened.origin["views"]["seed"])
    taught = load_teachers(teacher, samples.classes)
    seed = secrets.randbelow(2**32) if seed is None else seed
    with progress_bar() as bar:
        found = ask_again(opened, views, taught, share=share, seed=seed, watch=partial(bar, "asking again"))
    if as_json:
        echo_json(asdict(found) | {"excess_kl": found.excess, "seed": seed})
    else:
        who = "the teacher that was recorded" if found.same_teacher else "ANOTHER teacher than was recorded"
        echo(
            f"{found.num_rows:,} of {opened.num_rows:,} views asked about again (--seed {seed}), of {who}: "
            f"{found.share_equal:.1%} of the records are the same to the bit.\n"
            f"Divergence from what the teacher says now: {found.mean_kl:.4f} nats on average "
            f"(worst {found.worst_kl:.4f}), of which storing loses {found.mean_kl_of_storing:.4f}."
        )
    if not found.excess <= tolerance:
        raise TableError(
            f"{table} is {found.excess:.4f} nats from what the teacher says now, expected {tolerance:g}.",
            hint="It may be another teacher, or other versions of the libraries that make views.",
        )


@app.command()
def show(table: TablePath, as_json: AsJson = False) -> None:
    """Say what TABLE is of."""
    from regraft.tables.table import open_table

    echo_table(open_table(table), as_json)


def _training_pictures(data: Path, held_out: Path | None, max_bad_share: float, *, table: Path) -> "ImageSet":
    """Those that `regraft train` would train on. What their inspection finds is kept beside the table."""
    from regraft.errors import RecipeError
    from regraft.recipes.pictures import prepare
    from regraft.train import processes

    fabric = processes.launch()
    if fabric.world_size > 1:
        raise RecipeError(
            f"{fabric.world_size} processes were started, but one writes a table.",
            hint="--workers or --on ray spread the work.",
        )
    beside = table.with_name(f"{table.name}.inspected")
    found = prepare(data, held_out, beside, max_bad_share=max_bad_share, fabric=fabric)
    for inspection in found.inspections:
        typer.echo(str(inspection), err=True)
    return found.train


def _executor(on: Machine, workers: int, gpus: float) -> "Executor":
    if on is Machine.HERE:
        if gpus:
            raise typer.BadParameter("--gpus is for --on ray; here the teacher takes a GPU by itself.")
        from regraft.vision.blocks import Here

        return Here(workers)
    from regraft.data.on_ray import Cluster
    from regraft.vision.blocks_on_ray import OnRay

    return OnRay(Cluster(num_workers=workers or DEFAULT_WORKERS, num_gpus=gpus))


def echo_table(table: "Table", as_json: bool) -> None:
    """Print what a table is of."""
    num_bytes = sum(file.stat().st_size for file in table.folder.iterdir())
    told = {
        "folder": str(table.folder),
        "fingerprint": table.fingerprint,
        "num_pictures": len(table.ids),
        "num_draws": table.num_draws,
        "num_bytes": num_bytes,
        "columns": {name: column.to_json() for name, column in table.columns.items()},
        "origin": dict(table.origin),
    }
    if as_json:
        echo_json(told)
        return
    echo(
        f"{table.folder}: {table.num_draws} views of {len(table.ids):,} pictures, {size(num_bytes)}, "
        f"{num_bytes / table.num_rows:.1f} bytes a view, fingerprint {short(table.fingerprint)}"
    )
