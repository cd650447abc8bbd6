"""The pictures of a training run: opened, inspected, and some of them held out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_fabric import Fabric

from regraft.errors import SampleError
from regraft.train.processes import only_first
from regraft.vision.data import ImageSet, from_folder, from_manifest, with_content_ids
from regraft.vision.inspection import Inspection, inspect

HELD_OUT_SHARE = 0.1
SPLIT_SEED = 0
"""Not the recipe's, so that runs of several seeds are judged on the same pictures."""


@dataclass(frozen=True)
class Pictures:
    """What a run trains on, and what it is judged on."""

    train: ImageSet
    held_out: ImageSet
    inspections: tuple[Inspection, ...]
    """What was found when every picture was decoded once."""


def labelled(place: Path) -> ImageSet:
    """Pictures by class: a folder of folders, or a CSV manifest.

    Raises:
        SampleError: As `from_folder` and `from_manifest` do.
    """
    return from_manifest(place) if place.suffix.lower() == ".csv" else from_folder(place)


def prepare(
    data: Path,
    held_out: Path | None,
    run: Path,
    *,
    max_bad_share: float,
    fabric: Fabric,
    open_pictures: Callable[[Path], ImageSet] = labelled,
) -> Pictures:
    """Open and inspect pictures by class, and hold a tenth out if no others are given.

    What is held out goes by content, so that no copy of a picture is trained on. What the inspection finds
    is kept in the run directory: a second start is quick, and of several processes the first one looks.

    Args:
        data: A folder of pictures by class, or a CSV manifest.
        held_out: The same, with the same classes; `None` splits `data`.
        run: The run directory.
        max_bad_share: Largest share of unreadable pictures to go on with.
        fabric: The processes that train together.
        open_pictures: Makes a set of pictures of a place.

    Raises:
        SampleError: Too many pictures are bad, the held-out ones have other classes, or there are none.
    """
    places = {run / "inspection.json": data}
    if held_out is not None:
        places[run / "inspection_held_out.json"] = held_out

    def look() -> list[tuple[ImageSet, Inspection]]:
        return [
            inspect(open_pictures(place), max_bad_share=max_bad_share, cache=cache)
            for cache, place in places.items()
        ]

    if fabric.world_size > 1:
        only_first(fabric, look)
    found = look()
    if len(found) == 1:
        return _split(data, *found[0])
    (train, first), (rest, second) = found
    if rest.classes != train.classes:
        raise SampleError(
            f"{held_out} has the classes {', '.join(rest.classes)}; {data} has {', '.join(train.classes)}.",
            hint="Both need the same class names.",
        )
    return Pictures(train, rest, (first, second))


def _split(data: Path, samples: ImageSet, inspection: Inspection) -> Pictures:
    train, rest = with_content_ids(samples).split(HELD_OUT_SHARE, SPLIT_SEED)
    if not len(rest):
        raise SampleError(
            f"{data} has too few pictures to hold any out: {len(samples)} in {len(samples.classes)} classes.",
            hint="Give other pictures to evaluate on, with --held-out.",
        )
    remarks = dict.fromkeys((*inspection.remarks, *train.notes, *rest.notes))
    return Pictures(train, rest, (replace(inspection, remarks=tuple(remarks)),))
