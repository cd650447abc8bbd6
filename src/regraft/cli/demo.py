"""`regraft demo`: the whole story on a folder of pictures."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, final

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from regraft.recipes.story import Record, Step
    from regraft.train.journal import Watcher


def demo(
    images: Annotated[
        Path | None,
        typer.Option(help="Folder with one folder of pictures a class.", show_default="handwritten digits"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for all that is made.")] = Path("regraft-demo"),
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Training steps of each network.", show_default="600"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """From pictures to a model that answers searches, and to a better one in its place, with a report.

    Trains a small MobileOne, fuses it, exports it, times it, fills a gallery and searches it. Then learns
    how strongly to vary the pictures, stores what its networks say of many views, trains a FastViT on that,
    and upgrades the gallery to it, which answers all the while. Ctrl-C and a second run continue where it
    stopped.
    """
    from rich.console import Console

    from regraft.recipes.demo import run
    from regraft.recipes.story import Story

    teller = Teller(Console(stderr=as_json))
    try:
        records = run(Story(out=out, images=images, steps=steps), teller)
    except KeyboardInterrupt:
        teller.stop()
        typer.echo("Stopped. Run the same command again to continue.", err=True)
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps({name: asdict(record) for name, record in records.items()}, indent=2))
        return
    path = Path(records["report"].facts["path"]).absolute()
    typer.echo(f"The report is {path}; open it in a browser: {path.as_uri()}")


@final
class Teller:
    """Tells a person each step as it begins and ends, and shows a bar between where there is a terminal."""

    def __init__(self, console: "Console") -> None:
        self._console = console
        self._bar: Progress | None = None

    @property
    def watchers(self) -> "Sequence[Watcher]":
        """What shows the training."""
        from regraft.train.progress import progress

        return (progress(),)

    def begin(self, number: int, num_steps: int, step: "Step") -> None:
        """Name the step."""
        self._print(f"{number}/{num_steps} {step.title}", style="bold")

    def advance(self, num_done: int, num_total: int) -> None:
        """Move the bar."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeRemainingColumn

        if not self._console.is_terminal:
            return
        if self._bar is None:
            columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.add_task("")
            self._bar.start()
        self._bar.update(TaskID(0), completed=num_done, total=num_total)

    def end(self, step: "Step", record: "Record", *, is_old: bool) -> None:
        """Say what was found."""
        self.stop()
        if is_old:
            self._print(f"{step.name}: {record.headline} (done before)", style="dim")
        else:
            self._print(f"    {record.headline} ({record.duration_s:.1f} s)")

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _print(self, line: str, style: str | None = None) -> None:
        self._console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
