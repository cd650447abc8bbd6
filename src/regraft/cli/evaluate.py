"""`regraft evaluate`: how right, how sure and how robust a model is."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.printing import AsJson, echo, echo_json, progress_bar

if TYPE_CHECKING:
    from regraft.recipes.evaluation import ModelEvaluation
    from regraft.vision.corruption_errors import CorruptionErrors

NUM_WORST = 5
NUM_NAMED = 5


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model file, or an ONNX file of `regraft export`.")],
    data: Annotated[Path, typer.Argument(help="Folder of pictures by class, or a CSV with path,label.")],
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Also corrupt the pictures, in fifteen ways.")
    ] = False,
    severity: Annotated[
        list[int] | None,
        typer.Option(min=1, max=5, help="Corrupt this strongly; may be repeated.", show_default="all five"),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="What --corruptions --json printed of a model to divide errors by.")
    ] = None,
    subset: Annotated[
        int | None, typer.Option(min=1, help="Take this many pictures, always the same ones.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read and corrupt pictures.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write a page with charts, one file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say how right MODEL is about DATA, how sure, and how robust.

    Classes are matched by name. If DATA has fewer than MODEL, it chooses among these alone.
    """
    from regraft.errors import RecipeError
    from regraft.files import check_place
    from regraft.recipes import evaluation as recipe
    from regraft.recipes.evaluation_page import write_evaluation_page
    from regraft.vision.corruptions import CORRUPTIONS, SEVERITIES

    if severity and not corruptions:
        raise RecipeError("--severity says how to corrupt pictures; expected --corruptions with it.")
    if out is not None:
        check_place(out)
    with progress_bar() as watch:
        found = recipe.evaluate(
            model,
            data,
            corruptions=CORRUPTIONS if corruptions else (),
            severities=sorted(set(severity)) if severity else SEVERITIES,
            baseline=recipe.read_baseline(baseline) if baseline else None,
            subset=subset,
            workers=workers,
            watch=watch,
        )
    if out is not None:
        write_evaluation_page(out, found)
    if as_json:
        echo_json(found.to_json())
        return
    for line in _lines(found):
        echo(line)
    if out is not None:
        echo(f"wrote {out}")


def _lines(found: "ModelEvaluation") -> Iterator[str]:
    scores = found.scores
    of_all = f" of {found.num_found:,}" if scores.num_pictures < found.num_found else ""
    yield f"{found.data}: {scores.num_pictures:,}{of_all} pictures of {scores.num_classes:,} classes"
    yield from (f"  {note}" for note in found.notes)
    if found.match.is_slice:
        yield (
            f"  the model has {found.match.num_labels:,} classes and chose among these "
            f"{scores.num_classes:,} alone, which is easier"
        )
    if scores.left_out:
        pictures = "1 picture" if len(scores.left_out) == 1 else f"{len(scores.left_out):,} pictures"
        yield f"  {pictures} could not be read, left out of all figures:"
        yield from (f"    {error}" for error in list(scores.left_out.values())[:NUM_NAMED])
        if len(scores.left_out) > NUM_NAMED:
            yield "    --json names them all"
    yield f"top-1             {_percent(scores.top1)}"
    if scores.top5 is not None:
        yield f"top-5             {_percent(scores.top5)}"
    yield f"NLL               {scores.nll:7.4f} nats"
    yield f"Brier             {scores.brier:7.4f} of 2, summed over classes"
    yield f"calibration error {_percent(scores.reliability.error)} in {len(scores.reliability.num)} bins"
    yield f"  adaptive        {_percent(scores.equal_mass.error)} in bins of equal mass"
    yield "worst classes"
    width = max(len(score.name) for score in scores.classes[:NUM_WORST])
    for score in scores.classes[:NUM_WORST]:
        taken_for = f", most often taken for {score.taken_for}" if score.taken_for else ""
        yield f"  {score.name:<{width}} {_percent(score.accuracy)} of {score.num:,}{taken_for}"
    if found.corruption is not None:
        yield from _corruption_lines(found.corruption, found.baseline)


def _corruption_lines(errors: "CorruptionErrors", baseline: "CorruptionErrors | None") -> Iterator[str]:
    yield f"corruption error  {_percent(errors.mean)} named wrongly; {_percent(errors.clean)} when clean"
    yield f"  {'severity':<18}   mean   {' '.join(f'{severity:5}' for severity in errors.severities)}"
    for name, mean in errors.by_corruption.items():
        by_severity = " ".join(f"{100 * error:5.1f}" for error in errors.errors[name].values())
        yield f"  {name.replace('_', ' '):<18}{_percent(mean)}   {by_severity}"
    if baseline is not None:
        yield f"mCE               {errors.mean_corruption_error(baseline):7.3f} of the baseline's errors"


def _percent(share: float) -> str:
    return f"{100 * share:5.1f} %"
