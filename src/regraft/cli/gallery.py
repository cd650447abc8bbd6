"""`regraft gallery`: fill a gallery with searchable pictures, ask it, look at its state."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.printing import AsJson, Gallery, Workspace, echo, echo_json, progress_bar, short, size

if TYPE_CHECKING:
    from regraft.recipes.gallery import Added, SpaceState, Status
    from regraft.recipes.search import Answer
    from regraft.retrieval.store.protocol import Origin

app = typer.Typer(no_args_is_help=True, help="Fill a gallery with pictures, search it, look at its state.")


@app.command()
def add(
    gallery: Gallery,
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Picture files, or folders to search at any depth. None: complete the rows there are.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Model file that encodes; only needed the first time.")
    ] = None,
    side: Annotated[
        Path | None,
        typer.Option(help="Model file of `regraft side`: keep its vectors too, for upgrades to come."),
    ] = None,
    max_bad_share: Annotated[
        float, typer.Option(help="Largest share of the pictures that may be unreadable.")
    ] = 0.05,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Encode pictures and add them to GALLERY, which is made if it is not there.

    Pictures that are in it already are not encoded again: after an interruption, run the same command again.
    It may run while the gallery is upgraded.
    """
    from regraft.recipes import gallery as recipe
    from regraft.recipes.place import place_of

    place = place_of(gallery, workspace)
    with progress_bar() as bar:
        watch = partial(bar, "adding")
        added = recipe.add(
            place, images or [], model=model, side=side, max_bad_share=max_bad_share, watch=watch
        )
    echo_json(_added_json(added)) if as_json else _echo_added(place.name, added)


@app.command()
def search(
    gallery: Gallery,
    pictures: Annotated[list[Path], typer.Argument(help="Pictures to search for.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Hits a picture.")] = 10,
    exclude_itself: Annotated[
        bool, typer.Option("--exclude-itself", help="Leave out the query's own file.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with thumbnails, one file.")] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Find the pictures of GALLERY that resemble each of PICTURES most, with their cosine."""
    from regraft.files import check_place
    from regraft.recipes import search as recipe
    from regraft.recipes.answers import write_answers
    from regraft.recipes.place import place_of

    if html is not None:
        check_place(html)
    place = place_of(gallery, workspace)
    answers = recipe.search(place, pictures, k, exclude_itself=exclude_itself)
    if html is not None:
        subtitle = f"The pictures of {place.name} nearest to each query, by cosine."
        write_answers(answers, html, subtitle=subtitle)
    echo_json(_answers_json(answers)) if as_json else _echo_answers(answers)
    if html is not None and not as_json:
        echo(f"wrote {html}")


@app.command()
def status(
    gallery: Gallery,
    check_sources: Annotated[bool, typer.Option("--check-sources", help="Look for every source.")] = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Say what GALLERY holds: rows, spaces, encoders, index, size on disk."""
    from regraft.recipes import gallery as recipe
    from regraft.recipes.place import place_of

    state = recipe.status(place_of(gallery, workspace), check_sources=check_sources)
    echo_json(_status_json(state)) if as_json else _echo_status(state)


def _echo_added(gallery: str, added: "Added") -> None:
    rate = f", {added.num_new / added.duration_s:.0f} a second" if added.num_new else ""
    echo(f"{added.num_new:,} added in {added.duration_s:.1f} s{rate}; {gallery} has {added.num_rows:,} rows")
    counts = {
        "in the gallery already": added.num_present,
        "with the same bytes as another": added.num_duplicates,
        "passed over, not named like a picture": added.num_skipped,
        "older rows completed in another space": added.num_completed,
        "bad": len(added.bad),
    }
    for what, count in counts.items():
        if count:
            echo(f"  {count:,} {what}")
    for path, reason in added.bad:
        echo(f"    {path}: {reason}")
    if added.incomplete:
        echo(f"  {len(added.incomplete):,} rows could not be completed")
    for name, reason in added.incomplete:
        echo(f"    {name}: {reason}")


def _echo_answers(answers: "Sequence[Answer]") -> None:
    for answer in answers:
        echo(str(answer.query))
        for hit in answer.hits:
            echo(f"  {hit.score:6.3f}  {hit.source or f'(no source, id {hit.id})'}")


def _echo_status(state: "Status") -> None:
    indexed = (
        "none, every search reads every row" if state.num_indexed is None else f"{state.num_indexed:,} rows"
    )
    lines = {
        "rows": _rows(state.rows),
        "dimension": str(state.dimension),
        "encoder": f"{state.architecture} ({_form(state.is_fused)})",
        "space": state.space,
        "index": indexed,
        "on disk": size(state.size_bytes),
    }
    if state.missing is not None:
        lines["missing"] = f"{len(state.missing):,} sources"
    for name, value in lines.items():
        echo(f"{name:<10} {value}")
    for source in state.missing or ():
        echo(f"  {source}")
    for space in state.spaces[1:]:
        echo(f"{'side' if space.is_packed else 'beside':<10} {_space(space)}")


def _space(space: "SpaceState") -> str:
    encoder = f"{space.architecture} ({_form(space.is_fused)})" if space.architecture else "no model file"
    lacking = f", lacking in {space.num_lacking:,} rows" if space.num_lacking else ""
    return f"{short(space.space)}, {space.dimension} numbers, {encoder}: {_rows(space.rows)}{lacking}"


def _rows(rows: "Mapping[Origin, int]") -> str:
    return ", ".join(f"{count:,} {origin}" for origin, count in rows.items() if count) or "none"


def _form(is_fused: bool | None) -> str:
    return "fused" if is_fused else "branches not fused"


def _added_json(added: "Added") -> Mapping[str, object]:
    bad = [{"path": str(path), "reason": reason} for path, reason in added.bad]
    incomplete = [{"id": name, "reason": reason} for name, reason in added.incomplete]
    return vars(added) | {"bad": bad, "incomplete": incomplete}


def _answers_json(answers: "Sequence[Answer]") -> list[dict[str, object]]:
    return [
        {"query": str(answer.query), "space": answer.space, "hits": [vars(hit) for hit in answer.hits]}
        for answer in answers
    ]


def _status_json(state: "Status") -> Mapping[str, object]:
    return vars(state) | {"spaces": [vars(space) for space in state.spaces]}
