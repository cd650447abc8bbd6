"""`regraft upgrade`: replace the model of a gallery while it answers."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.printing import AsJson, Gallery, Workspace, echo_json
from regraft.cli.upgrade_printing import echo_plan, tell

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from regraft.recipes.pairing import PairSource
    from regraft.recipes.place import Place
    from regraft.retrieval.backfill_order import Order
    from regraft.retrieval.encoding import Executor
    from regraft.retrieval.ledger_entries import Progress

app = typer.Typer(
    no_args_is_help=True, help="Replace the model of a gallery while it answers: plan, run, look, go back."
)


class Machine(StrEnum):
    """Where a model runs."""

    HERE = "here"
    RAY = "ray"


On = Annotated[Machine, typer.Option("--on", help="Where the model runs: here, or on a Ray cluster.")]


@app.command()
def plan(
    gallery: Gallery,
    model: Annotated[Path, typer.Option(help="The new model's file.")],
    pairs: Annotated[
        int | None,
        typer.Option(min=10, help="Random items to learn from.", show_default="as many as it takes"),
    ] = None,
    pairs_from: Annotated[
        list[Path] | None,
        typer.Option(help="Learn from these pictures instead, such as those the new model was trained on."),
    ] = None,
    pairs_file: Annotated[
        Path | None,
        typer.Option(help="Learn from a table of vectors: columns old, new, and if you like side, label."),
    ] = None,
    old: Annotated[Path | None, typer.Option(help="Learn from vectors in .npy files: the old ones.")] = None,
    new: Annotated[Path | None, typer.Option(help="And the new ones, in the same order.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="What resembles what: `folder` (each picture's folder), or a CSV of id,label."),
    ] = None,
    side: Annotated[bool, typer.Option(help="Use the gallery's side-information, if it has any.")] = True,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Say what upgrading GALLERY to a new model will cost and bring, and when to stop. Touches no row.

    Learns to compute the new model's vectors from the old ones, and tries it on pairs that it did not learn
    from. Without labels it can only tell how well the new model is imitated.
    """
    from regraft.recipes import upgrade_plan as recipe
    from regraft.recipes.labels import labels_from
    from regraft.recipes.place import place_of

    place = place_of(gallery, workspace)
    source = _pair_source(place, pairs, pairs_from, pairs_file, old, new, seed=seed)
    with _bar() as bars:
        found = recipe.plan(
            place,
            model,
            pairs=source,
            labels=labels_from(labels),
            use_side=side,
            seed=seed,
            watch=lambda what, done, total: _show(bars, what, done, total),
        )
    page = (place.upgrade / "plan.html").absolute()
    echo_json(asdict(found) | {"switch": found.forecast.switch, "page": str(page)}) if as_json else echo_plan(
        found, page
    )


@app.command()
def run(
    gallery: Gallery,
    until: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Share of rows to encode anew.", show_default="the plan's recommended stop"
        ),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(
            help="Rows to encode first: `uncertain`, `random`, or a file of ids, one a line.",
            show_default="uncertain",
        ),
    ] = None,
    on: On = Machine.HERE,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Carry out the plan: compute new vectors, switch queries to the new model, encode rows anew.

    The gallery answers all the while, and pictures may be added. Ctrl-C when you like: the same command goes
    on where it stopped.
    """
    from regraft.recipes import upgrade as recipe
    from regraft.recipes.place import place_of

    place = place_of(gallery, workspace)
    with _bar() as bars:
        state = recipe.run(
            place,
            until=until,
            order=_order(order),
            executor=_executor(on),
            watch=lambda stage: _show_stage(bars, stage),
        )
    tell(state, as_json=as_json)


@app.command()
def pause(gallery: Gallery, workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Stop whoever works on the upgrade after the batch in flight. `run` goes on."""
    from regraft.recipes import upgrade as recipe
    from regraft.recipes.place import place_of

    tell(recipe.pause(place_of(gallery, workspace)), as_json=as_json)


@app.command()
def status(gallery: Gallery, workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Say how far the upgrade is. Disturbs nobody."""
    from regraft.recipes import upgrade as recipe
    from regraft.recipes.place import place_of

    tell(recipe.status(place_of(gallery, workspace)), as_json=as_json)


@app.command()
def rollback(
    gallery: Gallery, on: On = Machine.HERE, workspace: Workspace = None, as_json: AsJson = False
) -> None:
    """Answer by the old model again, and forget the new vectors. Possible until `finish`."""
    from regraft.recipes import upgrade as recipe
    from regraft.recipes.place import place_of

    with _bar() as bars:
        state = recipe.rollback(
            place_of(gallery, workspace),
            executor=_executor(on),
            watch=lambda stage: _show_stage(bars, stage),
        )
    tell(state, as_json=as_json)


@app.command()
def finish(gallery: Gallery, workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Forget the old vectors. There is no way back.

    Rows that were not encoded anew keep the vectors that were computed for them.
    """
    from regraft.recipes import upgrade as recipe
    from regraft.recipes.place import place_of

    tell(recipe.finish(place_of(gallery, workspace)), as_json=as_json)


def _pair_source(
    place: "Place",
    num: int | None,
    pictures: list[Path] | None,
    table: Path | None,
    old: Path | None,
    new: Path | None,
    *,
    seed: int,
) -> "PairSource":
    from regraft.recipes.pairing import FromGallery, Given, given_pairs
    from regraft.retrieval.pairs import from_npy

    if (old is None) != (new is None):
        raise typer.BadParameter("--old and --new belong together.")
    ways = {"--pairs": num, "--pairs-from": pictures, "--pairs-file": table, "--old": old}
    chosen = [name for name, way in ways.items() if way]
    if len(chosen) > 1:
        raise typer.BadParameter(f"{' and '.join(chosen)} are two ways to bring pairs; expected one.")
    if pictures:
        return _from_pictures(place, pictures)
    if table is not None:
        return given_pairs(table)
    if old is not None and new is not None:
        return Given(from_npy(old, new))
    return FromGallery(num, seed)


def _from_pictures(place: "Place", pictures: list[Path]) -> "PairSource":
    from regraft.recipes.encoders import Encoders
    from regraft.recipes.pairing import FromPictures
    from regraft.recipes.upgrade_plan import complete_side

    store, encoders = place.open(), Encoders(place)
    side = complete_side(store)
    return FromPictures(pictures, encoders.of(place.served(store)), side and encoders.of(side))


def _order(chosen: str | None) -> "Order | None":
    from regraft.retrieval.backfill_order import BySigma, Given, Shuffled

    if chosen is None:
        return None
    if chosen in ("uncertain", "random"):
        return BySigma() if chosen == "uncertain" else Shuffled(seed=0)
    file = Path(chosen)
    if not file.is_file():
        raise typer.BadParameter(f"{chosen} is neither `uncertain` nor `random`, nor a file of ids.")
    return Given([line for line in file.read_text(encoding="utf-8").splitlines() if line])


def _executor(on: Machine) -> "Executor":
    from regraft.retrieval.encoding import here

    if on is Machine.HERE:
        return here
    from regraft.retrieval.on_ray import OnRay

    return OnRay()


@contextmanager
def _bar() -> "Generator[Bars]":
    """Bars on stderr if that is a terminal, else nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        yield bars


def _show(bars: "Bars", what: str, done: int, total: int) -> None:
    """Move the bar of one thing that is being done; a new one takes the old one's place."""
    same = [task.id for task in bars.tasks if task.description == what]
    if not same:
        for task in bars.tasks:
            bars.remove_task(task.id)
        same = [bars.add_task(what, total=total or None)]
    bars.update(same[0], completed=done, total=total or None)


STAGES = {
    "transform": "computing new vectors",
    "backfill": "encoding rows anew",
    "return": "encoding new rows by the old model",
}


def _show_stage(bars: "Bars", stage: "Progress") -> None:
    _show(bars, STAGES[stage.stage], stage.items_done, stage.items_total)
