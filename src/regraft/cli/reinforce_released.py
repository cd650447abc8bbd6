"""`regraft reinforce import-released`: a table of published reinforcements."""

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.printing import AsJson, progress_bar
from regraft.cli.reinforce import echo_table


def import_released(
    folder: Annotated[Path, typer.Argument(help="What was published, unpacked: 0.pth.tar and so on.")],
    data: Annotated[Path, typer.Argument(help="The folder of pictures by class that was recorded.")],
    out: Annotated[Path, typer.Option(help="The table's folder; an unfinished one is continued.")],
    max_odd_share: Annotated[
        float, typer.Option(help="Largest share of pictures that EXIF turns, or that are transparent.")
    ] = 0.001,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Make a table of ImageNet+ and its kin, as Dataset Reinforcement published them.

    FOLDER is read without running anything in it. DATA must be the very folder that was recorded, because
    records go by the number of a picture in it. Stop it as you like: the same command goes on where it
    stopped. `regraft train DATA --held-out OTHERS --table OUT` trains on it.
    """
    from regraft.files import check_folder_place
    from regraft.recipes.released import import_released as import_table
    from regraft.vision.data import from_folder

    check_folder_place(out)
    samples = from_folder(data)
    with progress_bar() as watch:
        table = import_table(
            folder,
            out,
            samples,
            largest_odd_share=max_odd_share,
            workers=workers,
            watch=lambda num_done, num_all: watch("importing", num_done, num_all),
        )
    if odd := table.origin["read_otherwise"]:
        told = f"{len(odd)} pictures are shown otherwise than the teacher saw them, such as {odd[0]}"
        typer.echo(told, err=True)
    echo_table(table, as_json)
