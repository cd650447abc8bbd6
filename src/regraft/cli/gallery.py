"""`regraft gallery`: fill a folder of searchable pictures, ask it, look at its state."""

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from regraft.recipes.gallery import Added, Answer, Status, Watch

app = typer.Typer(no_args_is_help=True, help="Fill a gallery with pictures, search it, look at its state.")

Gallery = Annotated[Path, typer.Argument(help="The gallery's folder.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def add(
    gallery: Gallery,
    images: Annotated[list[Path], typer.Argument(help="Picture files, or folders to search at any depth.")],
    model: Annotated[
        Path | None, typer.Option(help="Model file that encodes; only needed the first time.")
    ] = None,
    max_bad_share: Annotated[
        float, typer.Option(help="Largest share of the pictures that may be unreadable.")
    ] = 0.05,
    as_json: AsJson = False,
) -> None:
    """Encode pictures and add them to GALLERY, which is made if it is not there.

    Pictures that are in it already are not encoded again: after an interruption, run the same command again.
    """
    from regraft.recipes import gallery as recipe

    with _progress_bar() as watch:
        added = recipe.add(gallery, images, model=model, max_bad_share=max_bad_share, watch=watch)
    _echo_json(_added_json(added)) if as_json else _echo_added(gallery, added)


@app.command()
def search(
    gallery: Gallery,
    pictures: Annotated[list[Path], typer.Argument(help="Pictures to search for.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Hits a picture.")] = 10,
    exclude_itself: Annotated[
        bool, typer.Option("--exclude-itself", help="Leave out the query's own file.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with thumbnails, one file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find the pictures of GALLERY that resemble each of PICTURES most, with their cosine."""
    from regraft.files import check_place
    from regraft.recipes import gallery as recipe
    from regraft.recipes.answers import write_answers

    if html is not None:
        check_place(html)
    answers = recipe.search(gallery, pictures, k, exclude_itself=exclude_itself)
    if html is not None:
        write_answers(answers, html, subtitle=f"The pictures of {gallery} nearest to each query, by cosine.")
    _echo_json(_answers_json(answers)) if as_json else _echo_answers(answers)
    if html is not None and not as_json:
        _echo(f"wrote {html}")


@app.command()
def status(
    gallery: Gallery,
    check_sources: Annotated[bool, typer.Option("--check-sources", help="Look for every source.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what GALLERY holds: rows, encoder, index, size on disk."""
    from regraft.recipes import gallery as recipe

    state = recipe.status(gallery, check_sources=check_sources)
    _echo_json(vars(state)) if as_json else _echo_status(state)


@contextmanager
def _progress_bar() -> "Generator[Watch]":
    """A bar on stderr if that is a terminal, else nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("adding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("adding", total=None)
        yield lambda num_done, num_files: progress.update(task, completed=num_done, total=num_files)


def _echo_added(gallery: Path, added: "Added") -> None:
    rate = f", {added.num_new / added.duration_s:.0f} a second" if added.num_new else ""
    _echo(f"{added.num_new:,} added in {added.duration_s:.1f} s{rate}; {gallery} has {added.num_rows:,} rows")
    counts = {
        "in the gallery already": added.num_present,
        "with the same bytes as another": added.num_duplicates,
        "passed over, not named like a picture": added.num_skipped,
        "bad": len(added.bad),
    }
    for what, count in counts.items():
        if count:
            _echo(f"  {count:,} {what}")
    for path, reason in added.bad:
        _echo(f"    {path}: {reason}")


def _echo_answers(answers: "Sequence[Answer]") -> None:
    for answer in answers:
        _echo(str(answer.query))
        for hit in answer.hits:
            _echo(f"  {hit.score:6.3f}  {hit.source or f'(no source, id {hit.id})'}")


def _echo_status(state: "Status") -> None:
    form = "fused" if state.is_fused else "branches not fused"
    rows = ", ".join(f"{count:,} {origin}" for origin, count in state.rows.items() if count)
    indexed = (
        "none, every search reads every row" if state.num_indexed is None else f"{state.num_indexed:,} rows"
    )
    lines = {
        "rows": rows or "none",
        "dimension": str(state.dimension),
        "encoder": f"{state.architecture} ({form})",
        "space": state.space,
        "index": indexed,
        "on disk": _size(state.size_bytes),
    }
    if state.missing is not None:
        lines["missing"] = f"{len(state.missing):,} sources"
    for name, value in lines.items():
        _echo(f"{name:<10} {value}")
    for source in state.missing or ():
        _echo(f"  {source}")


def _added_json(added: "Added") -> Mapping[str, object]:
    bad = [{"path": str(path), "reason": reason} for path, reason in added.bad]
    return vars(added) | {"bad": bad}


def _answers_json(answers: "Sequence[Answer]") -> list[dict[str, object]]:
    return [{"query": str(answer.query), "hits": [vars(hit) for hit in answer.hits]} for answer in answers]


def _echo_json(value: Mapping[str, object] | Sequence[object]) -> None:
    typer.echo(json.dumps(value, indent=2))


def _echo(line: str) -> None:
    # A file name that is not valid UTF-8 cannot be printed as it is.
    typer.echo(line.encode("utf-8", "backslashreplace").decode())


def _size(num_bytes: int) -> str:
    value, unit = float(num_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"
