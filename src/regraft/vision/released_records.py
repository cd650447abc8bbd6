"""The released records of one picture as arrays, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float, Int, Shaped

from regraft.errors import TableError
from regraft.vision.released_config import MIXES, Pipeline

NO_PARTNER = -1

_BLANK: Mapping[str, Any] = {
    "random_crop": (0, 0),
    "random_resized_crop": (0, 0, 0, 0),
    "random_horizontal_flip": False,
    "rand_augment": ((0, 0.0), (0, 0.0)),
    "random_erase": (0, 0, 0, 0),
    "mixup": 1.0,
    "cutmix": (1.0, 0.0, 0.0, 0.0, 0.0),
}
"""What each stage has of a view, in the values of one that it leaves alone."""
_MAY_BE_NONE = ("rand_augment", "random_erase", *MIXES)


@final
@dataclass(frozen=True, eq=False)
class Records:
    """What was released of one picture, a row a view.

    Args:
        probabilities: Of the classes that the teacher found most probable, in any order.
        classes: Which those are.
        partner: Number of the picture that a view was mixed with, or `NO_PARTNER`.
        own: What each stage did to the picture: (top, left) of a crop, (top, left, height, width) of a
            resized crop or an erased part in pixels, whether it was mirrored, (operation, magnitude) pairs.
        other: The same of the partner; where there is none, nothing.
        share: What mixup left of the picture.
        pasted: The part that CutMix pasted in, as (top, left, bottom, right) in pixels.
    """

    probabilities: Float[np.ndarray, "n k"]
    classes: Int[np.ndarray, "n k"]
    partner: Int[np.ndarray, " n"]
    own: Mapping[str, Shaped[np.ndarray, "n ..."]]
    other: Mapping[str, Shaped[np.ndarray, "n ..."]]
    share: Float[np.ndarray, " n"]
    pasted: Int[np.ndarray, "n 4"]


def records_of(raw: Sequence[Any], pipeline: Pipeline, where: Path) -> Records:
    """The records of one picture, as they were unpickled.

    Args:
        raw: At least one record.
        pipeline: What they have parameters of.
        where: Their file, for errors.

    Raises:
        TableError: They are not of the released form.
    """
    try:
        answers = [record["prob"] for record in raw]
        rows = [list(record["params"]) for record in raw]
        partners, columns = _columns(rows, pipeline)
        views = {name: column for name, column in columns.items() if name not in MIXES}
        own, other = _apart(views, partners) if pipeline.mixes else (views, {})
        pasted = _numbers("cutmix", columns.get("cutmix", [None] * len(raw)))
        probabilities = _of_kind([values for values, _ in answers], "f", "probabilities")
        classes = _of_kind([numbers for _, numbers in answers], "i", "classes")
        if classes.ndim != 2 or classes.shape != probabilities.shape:
            raise ValueError(f"{probabilities.shape} probabilities are of {classes.shape} classes")
        return Records(
            probabilities=probabilities,
            classes=classes,
            partner=_of_kind([NO_PARTNER if n is None else n for n in partners], "i", "partners"),
            own={name: _numbers(name, column) for name, column in own.items()},
            other={name: _numbers(name, column) for name, column in other.items()},
            share=_numbers("mixup", columns.get("mixup", [None] * len(raw))),
            pasted=pasted[:, 1:].astype(np.int64),
        )
    # Whatever a record of another form drives this to.
    except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise TableError(
            f"{where} does not hold records of {', '.join(pipeline.stages)}: {error}.",
            hint="Its configuration may be that of other records.",
        ) from error


def _columns(rows: Sequence[list[Any]], pipeline: Pipeline) -> tuple[Sequence[Any], dict[str, Sequence[Any]]]:
    """The partners, and what the records have of each stage."""
    names = list(pipeline.stages)
    # The size of the first resizing is always the same, and not always there.
    if "resize" in names and {len(row) for row in rows} == {len(names) - 1}:
        names.remove("resize")
    names = ["partner"] * pipeline.mixes + names
    odd = next((len(row) for row in rows if len(row) != len(names)), len(names))
    if odd != len(names):
        raise ValueError(f"one has {odd} parameters, expected {len(names)}")
    columns: dict[str, Sequence[Any]] = dict(zip(names, zip(*rows, strict=True), strict=True))
    columns.pop("resize", None)
    return columns.pop("partner", [None] * len(rows)), columns


def _apart(
    columns: Mapping[str, Sequence[Any]], partners: Sequence[Any]
) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """What the records have of the pictures, and of their partners: where there is one, they have pairs."""
    own: dict[str, list[Any]] = {}
    other: dict[str, list[Any]] = {}
    for name, column in columns.items():
        alone = _BLANK[name]
        pairs = [
            (value, alone) if partner is None else value
            for value, partner in zip(column, partners, strict=True)
        ]
        own[name], other[name] = ([first for first, _ in pairs], [second for _, second in pairs])
    return own, other


def _numbers(stage: str, values: Sequence[Any]) -> np.ndarray:
    """What a stage has of each view, as numbers of one kind."""
    blank = _BLANK[stage]
    if stage in _MAY_BE_NONE:
        values = [blank if value is None else value for value in values]
    numbers = _of_kind(values, np.array(blank).dtype.kind, stage)
    if numbers.shape[1:] != np.shape(blank):
        raise ValueError(f"{stage} has numbers of shape {numbers.shape[1:]}, expected {np.shape(blank)}")
    return numbers


def _of_kind(values: Sequence[Any], kind: str, what: str) -> np.ndarray:
    numbers = np.array(values)
    if numbers.dtype.kind != kind or not np.isfinite(numbers).all():
        raise ValueError(f"{what} are {numbers.dtype}, expected finite numbers of kind {kind!r}")
    return numbers
