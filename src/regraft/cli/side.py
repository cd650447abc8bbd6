"""`regraft side`: an encoder for side-information, from pictures without labels."""

from pathlib import Path
from typing import Annotated

import typer


def side(
    pictures: Annotated[Path, typer.Argument(help="Folder of pictures, at any depth. Labels are not read.")],
    out: Annotated[Path, typer.Option(help="Run directory; an unfinished run in it is continued.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change the recipe, such as schedule.steps=2000.")
    ] = None,
    max_bad_share: Annotated[
        float, typer.Option(help="Largest share of unreadable pictures to go on with.")
    ] = 0.05,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that prepare pictures which do not fit into memory.")
    ] = 2,
) -> None:
    """Train an encoder that makes a later upgrade of a gallery better, and write OUT/model.safetensors.

    It learns without labels to know every picture again (SimCLR). `regraft gallery add --side` stores its
    vectors beside the gallery's own. Stop it as you like: the same command goes on where it stopped.
    """
    from regraft.files import check_folder_place
    from regraft.recipes.override import override
    from regraft.recipes.pictures import prepare
    from regraft.recipes.side import grow_side, side_mini, unlabelled
    from regraft.train import processes
    from regraft.train.progress import progress

    check_folder_place(out)
    recipe = override(side_mini(), settings or ())
    fabric = processes.launch(precision=recipe.precision)
    found = prepare(pictures, None, out, max_bad_share=max_bad_share, fabric=fabric, open_pictures=unlabelled)
    if fabric.is_global_zero:
        for inspection in found.inspections:
            typer.echo(str(inspection), err=True)
    left_out = grow_side(
        recipe, found.train, found.held_out, out, workers=workers, watchers=[progress()], fabric=fabric
    )
    if fabric.is_global_zero:
        if len(left_out):
            typer.echo(str(left_out), err=True)
        typer.echo(str(out / "model.safetensors"))
