"""`regraft reinforce export` and `import`: tables as files that other programs read."""

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.printing import AsJson, echo
from regraft.cli.reinforce import TablePath, echo_table


def export(
    table: TablePath,
    out: Annotated[
        Path, typer.Argument(help="A new file ending in .arrow or .parquet, or folder in .lance.")
    ],
) -> None:
    """Write TABLE as Arrow, Parquet or Lance, by the ending of OUT."""
    from regraft.tables.exchange import export_table
    from regraft.tables.table import open_table

    export_table(open_table(table), out)
    echo(str(out))


def import_file(
    file: Annotated[Path, typer.Argument(help="What `regraft reinforce export` wrote.")],
    out: Annotated[Path, typer.Option(help="The table's folder. Nothing may be there.")],
    as_json: AsJson = False,
) -> None:
    """Make the very table again that FILE was exported from."""
    from regraft.tables.exchange import import_table

    echo_table(import_table(file, out), as_json)
