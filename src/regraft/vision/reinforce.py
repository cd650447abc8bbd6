"""Dataset Reinforcement: what a teacher says of many views of each picture, stored once (arXiv 2303.08983).

A view is a hash of seed, sample and draw, so of a view nothing is stored; of the teacher's answer to it, the
most likely classes and what is left. Students read it in place of asking the teacher.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np

from regraft.augment.protocol import description
from regraft.errors import RecipeError
from regraft.tables.columns import Bytes, Column
from regraft.tables.record import Recorder
from regraft.tables.table import Table
from regraft.tables.topk import TopK
from regraft.vision.blocks import ANSWERS, PARAMETERS, Blocks, Executor, Here, Records, ViewBlocks
from regraft.vision.data import ImageSet, identity
from regraft.vision.teachers import Teacher
from regraft.vision.views import Views

HERE = Here()
ROWS_TOGETHER = 2048
"""Rows that are forced to the disk at once, at least; a kill costs no more than asking about these again."""


def record(
    out: Path,
    views: Views,
    teacher: Teacher,
    *,
    num_draws: int,
    top_k: int,
    explicit: bool = False,
    notes: Mapping[str, object] | None = None,
    run: Executor = HERE,
    watch: Callable[[int, int], None] = lambda num_done, num_total: None,
) -> Table:
    """Ask the teacher about `num_draws` views of each picture and store what it says, or go on with that.

    Args:
        out: The table's folder.
        views: Makes the views; of pictures that can all be read.
        teacher: Its classes are those of the pictures.
        num_draws: Views of each picture.
        top_k: Classes stored of each answer; no more than there are.
        explicit: Whether the parameters of each view are stored too. Students then see the same views
            whatever a later release draws from the same seed; it costs their bytes.
        notes: What else to keep in the table's origin, as JSON values by name.
        run: Makes the blocks, here or elsewhere.
        watch: Told how many views are done, of how many.

    Raises:
        RecipeError: A number out of range, or a teacher of other classes.
        SampleError: A picture cannot be read.
        TableError: The folder holds another table.
    """
    check_teacher(teacher, views.samples)
    if num_draws < 1 or top_k < 1:
        raise RecipeError(f"num_draws is {num_draws} and top_k {top_k}; expected at least 1 of each.")
    seen = ViewBlocks(views, num_draws)
    blocks = Blocks(seen, teacher, _columns(views, top_k, explicit=explicit))
    ids = [views.samples.ids[index] for index in views.order]
    origin = origin_of(views, teacher.fingerprint) | dict(notes or {})
    recorder = Recorder(out, ids=ids, num_draws=num_draws, columns=blocks.columns, origin=origin)
    rows_per_block = seen.pictures_per_block * num_draws
    return filled(
        recorder,
        rows_per_block,
        lambda first: run(blocks, range(first, len(seen))),
        len(ids) * num_draws,
        watch,
    )


def filled(
    recorder: Recorder,
    rows_per_block: int,
    blocks_from: Callable[[int], Iterator[Records]],
    num_rows: int,
    watch: Callable[[int, int], None],
) -> Table:
    """The table of a recording, once the blocks that it lacks are made and appended.

    Args:
        recorder: Closed afterwards.
        rows_per_block: Rows of every block but the last.
        blocks_from: Makes the records of the blocks from a number on.
        num_rows: Of the whole table.
        watch: Told how many rows are made, of how many.
    """
    with recorder:
        watch(recorder.num_rows, num_rows)
        blocks = blocks_from(math.ceil(recorder.num_rows / rows_per_block))
        told = _told(blocks, recorder.num_rows, num_rows, watch)
        while several := list(islice(told, blocks_together(rows_per_block))):
            recorder.append({name: np.concatenate([one[name] for one in several]) for name in several[0]})
        return recorder.seal()


def blocks_together(rows_per_block: int) -> int:
    """How many blocks are appended as one. Not a matter of time, so that a table has one fingerprint."""
    return math.ceil(ROWS_TOGETHER / rows_per_block)


def _told(
    blocks: Iterator[Records], num_made: int, num_rows: int, watch: Callable[[int, int], None]
) -> Iterator[Records]:
    """The blocks, each counted as it comes, after the rows that were made before."""
    for records in blocks:
        num_made += len(next(iter(records.values())))
        watch(num_made, num_rows)
        yield records


def _columns(views: Views, top_k: int, *, explicit: bool) -> dict[str, Column]:
    num_classes = len(views.samples.classes)
    if top_k < 2 and views.variation.mix is not None:
        raise RecipeError(
            "top_k is 1, but the views are mixed of two pictures; expected at least 2.",
            hint="A fresh view among the recorded ones has the labels of both.",
        )
    columns: dict[str, Column] = {ANSWERS: TopK(min(top_k, num_classes), num_classes)}
    if explicit and not views.variation.dtype.itemsize:
        raise RecipeError(
            "The views have no parameters to store: nothing about them is random.",
            hint="Leave explicit out, or vary the views.",
        )
    if explicit:
        columns[PARAMETERS] = Bytes(views.variation.dtype.itemsize)
    return columns


def check_teacher(teacher: Teacher, samples: ImageSet) -> None:
    """Refuse a teacher of other classes than the pictures'.

    Raises:
        RecipeError: It names them, and they are others or in another order.
    """
    if teacher.labels and teacher.labels != samples.classes:
        odd = sorted(set(teacher.labels) ^ set(samples.classes))
        what = f"{', '.join(odd[:5])} are not known to both" if odd else "the same in another order"
        raise RecipeError(
            f"The teacher's {len(teacher.labels)} classes are not the {len(samples.classes)} of the "
            f"pictures: {what}.",
            hint="A teacher must tell the classes apart that the folder's names stand for.",
        )


def origin_of(views: Views, teacher: str) -> dict[str, object]:
    """What a table is made of, as JSON: pictures, views, teacher, and the versions that replay them."""
    return {
        "pictures": identity(views.samples),
        "classes": list(views.samples.classes),
        "views": describe_views(views),
        "teacher": teacher,
        "versions": versions(),
    }


def describe_views(views: Views) -> dict[str, object]:
    """All that decides a view beside the picture itself, as JSON."""
    preprocess = views.preprocess
    return {
        "variation": description(views.variation),
        "seed": views.seed,
        "size_px": preprocess.size_px,
        "crop": preprocess.crop,
        "interpolation": preprocess.interpolation,
        "channels": preprocess.channels,
    }


def versions() -> dict[str, str]:
    """Of the libraries whose kernels decide a view's bits."""
    return {name: version(name) for name in ("regraft", "torch", "torchvision", "pillow", "numpy", "scipy")}


def other_versions(table: Table) -> dict[str, tuple[str, str]]:
    """Libraries that a table was recorded with in another version: that one, and the one here, by name."""
    recorded, here = table.origin.get("versions", {}), versions()
    return {
        name: (recorded[name], here[name]) for name in here if recorded.get(name, here[name]) != here[name]
    }
