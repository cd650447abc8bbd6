"""A folder of released records: a file a picture, by the number that torchvision's ImageFolder gives it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Int

from regraft.errors import SampleError, TableError
from regraft.vision.data import ImageSet
from regraft.vision.released_config import Pipeline, pipeline_of
from regraft.vision.released_pickles import load_plain
from regraft.vision.released_records import Records, records_of

CONFIG = "config.pth.tar"
_NUMBERED = re.compile(r"(0|[1-9][0-9]*)\.pth\.tar")


@final
@dataclass(frozen=True, eq=False)
class ReleasedFolder:
    """Released records, not yet read. `open_released` makes it.

    Args:
        folder: Where they are.
        config: How they were made, as released.
        pipeline: The same, understood.
        num_pictures: Pictures that there are records of.
        num_draws: Records of each.
        top_k: Classes in each.
    """

    folder: Path
    config: Mapping[str, Any]
    pipeline: Pipeline
    num_pictures: int
    num_draws: int
    top_k: int

    def read(self, number: int) -> Records:
        """The records of picture `number`.

        Raises:
            TableError: They are not of that picture, not as many as those of others, or of another form.
        """
        path = _file(self.folder, number)
        records = records_of(_raw(path, number), self.pipeline, path)
        num_draws, top_k = records.classes.shape
        if (num_draws, top_k) != (self.num_draws, self.top_k):
            raise TableError(
                f"{path} has {num_draws} records of {top_k} classes, expected {self.num_draws} of "
                f"{self.top_k}."
            )
        return records


def open_released(folder: Path) -> ReleasedFolder:
    """Look at a folder of released records.

    Raises:
        TableError: It lacks a picture or its configuration, or what it holds is of another form.
    """
    if not folder.is_dir():
        raise TableError(f"{folder} is no folder.", hint="Unpack the archive that was released.")
    config_file = folder / CONFIG
    if not config_file.is_file():
        raise TableError(f"{folder} has no {CONFIG}, which says how its records were made; expected one.")
    config = load_plain(config_file)
    pipeline = pipeline_of(config, config_file)
    num_pictures = _count(folder)
    first = records_of(_raw(_file(folder, 0), 0), pipeline, _file(folder, 0))
    assert isinstance(config, dict), "it has been read for the pipeline"
    return ReleasedFolder(folder, config, pipeline, num_pictures, *first.classes.shape)


def folder_order(samples: ImageSet) -> Int[np.ndarray, " n"]:
    """Indices of the samples in the order in which torchvision's ImageFolder numbers files.

    That is by class, then by the folder that a file lies in, then by its name, each compared as text. It is
    taken from the paths of the pictures, whatever the order and the ids of the set.

    Raises:
        SampleError: The pictures are no files.
    """
    paths = [source for source in samples.sources if isinstance(source, str | Path)]
    if len(paths) != len(samples):
        raise SampleError(
            f"{len(samples) - len(paths)} of the pictures are no files, expected those of a folder."
        )
    keys = [
        (samples.classes[label], Path(path).parent.as_posix(), Path(path).name)
        for path, label in zip(paths, samples.labels, strict=True)
    ]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number}.pth.tar"


def _count(folder: Path) -> int:
    """The number of pictures, which are numbered without gaps."""
    numbers = {int(found[1]) for path in folder.iterdir() if (found := _NUMBERED.fullmatch(path.name))}
    missing = next(number for number in range(len(numbers) + 1) if number not in numbers)
    if missing != len(numbers) or not numbers:
        raise TableError(
            f"{folder} has {len(numbers)} files of records, and {missing}.pth.tar is not there; expected all "
            "from 0.pth.tar on.",
            hint="Unpack the archive again.",
        )
    return len(numbers)


def _raw(path: Path, number: int) -> Sequence[Any]:
    """The records in a file as they were unpickled."""
    content = load_plain(path)
    match content:
        case (int() as told, [_, *_] as records):
            if told != number:
                raise TableError(
                    f"{path} says that it is of picture {told}, expected {number}, as it is called.",
                    hint="Unpack the archive again; its files were renamed.",
                )
            return records
        case _:
            raise TableError(f"{path} holds {content!r:.60}, expected the number of a picture and records.")
