"""`regraft`: one verb per stage of a model's life."""

import sys
from typing import Annotated

import typer

import regraft
from regraft.cli import (
    convert,
    demo,
    evaluate,
    export,
    fuse,
    gallery,
    listing,
    ranges,
    reinforce,
    reinforce_files,
    reinforce_released,
    side,
    train,
    upgrade,
)
from regraft.errors import RegraftError

app = typer.Typer(
    name="regraft",
    help=regraft.__doc__,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo.demo)
app.command()(train.train)
app.command()(side.side)
app.command()(evaluate.evaluate)
app.command()(fuse.fuse)
app.command()(export.export)
reinforce.app.command()(reinforce_released.import_released)
reinforce.app.command()(reinforce_files.export)
reinforce.app.command("import")(reinforce_files.import_file)
app.add_typer(reinforce.app, name="reinforce")
app.add_typer(ranges.app, name="ranges")
app.add_typer(gallery.app, name="gallery")
app.add_typer(upgrade.app, name="upgrade")
app.command("import")(convert.import_weights)
app.command()(convert.publish)
app.command()(listing.models)
app.command()(listing.recipes)


def _print_version(wanted: bool | None) -> None:
    if wanted:
        typer.echo(f"regraft {regraft.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
    ] = None,
) -> None:
    """Regraft grows efficient perception models and replaces them without replanting."""


def main() -> None:
    """Run the command line. A mistake of the user's is one clean message and exit code 1."""
    try:
        app()
    except RegraftError as error:
        sys.exit(f"regraft: {error}")
