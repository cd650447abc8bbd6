"""The class of each item of a gallery, where it is known."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Int

from regraft.errors import SampleError

FOLDER = "folder"
"""Says that the folder a picture lies in is its class."""


@runtime_checkable
class Labels(Protocol):
    """Tells the class of an item."""

    def of(self, name: str, source: str | None) -> str | None:
        """The class of one item; `None` if it is unknown.

        Args:
            name: The id of its row.
            source: Where it came from.
        """
        ...


@final
class FolderLabels:
    """The folder that a picture lies in is its class."""

    def of(self, name: str, source: str | None) -> str | None:
        """The name of the source's folder."""
        return None if source is None else Path(source).parent.name


@final
class TableLabels:
    """Classes from a table.

    Args:
        classes: The class of an item by its id, or by its source.
    """

    def __init__(self, classes: Mapping[str, str]) -> None:
        self._classes = classes

    def of(self, name: str, source: str | None) -> str | None:
        """The class that the table gives to the id, or to the source."""
        return self._classes.get(name) or self._classes.get(source or "")


def labels_from(given: str | None) -> Labels | None:
    """Labels as a person names them: `folder`, a CSV file with the columns `id` or `path`, and `label`.

    Raises:
        SampleError: The file is missing, or lacks a column.
    """
    if given is None:
        return None
    return FolderLabels() if given == FOLDER else read_labels(Path(given))


def read_labels(file: Path) -> TableLabels:
    """Read a CSV file with the columns `id` or `path`, and `label`; paths are relative to its folder.

    Raises:
        SampleError: The file is missing, empty or not text, lacks a column, or gives an item two classes.
    """
    if not file.is_file():
        raise SampleError(
            f"{file} is not a file; expected `{FOLDER}`, or a CSV file of id or path, and label."
        )
    try:
        classes = _classes(file)
    except (UnicodeDecodeError, csv.Error) as error:
        raise SampleError(
            f"{file} is not a CSV file in UTF-8; expected the columns id or path, and label."
        ) from error
    if not classes:
        raise SampleError(f"{file} lists no items.")
    return TableLabels(classes)


def _classes(file: Path) -> dict[str, str]:
    classes: dict[str, str] = {}
    with file.open(newline="", encoding="utf-8-sig") as opened:
        reader = csv.DictReader(opened, skipinitialspace=True)
        columns = reader.fieldnames or ()
        key = next((name for name in ("id", "path") if name in columns), None)
        if key is None or "label" not in columns:
            raise SampleError(
                f"{file} has the columns {', '.join(columns) or 'none'}; expected id or path, and label."
            )
        for row in reader:
            name = row[key] if key == "id" else str((file.parent / row[key]).absolute())
            if classes.setdefault(name, row["label"]) != row["label"]:
                raise SampleError(f"{file}, line {reader.line_num}: {name} has another label further up.")
    return classes


@dataclass(frozen=True, eq=False)
class Classified:
    """The classes of some items, as numbers."""

    labels: Int[np.ndarray, " n"]
    classes: tuple[str, ...]
    """The name of each number."""


def classify(names: Sequence[str], known: Sequence[str]) -> Classified:
    """Number the classes of items: as a model does, and after its classes those that it does not know.

    Args:
        names: The class of each item.
        known: The classes of the model, in the order of its logits.
    """
    classes = (*known, *sorted(set(names) - set(known)))
    number = {name: place for place, name in enumerate(classes)}
    return Classified(np.array([number[name] for name in names], np.int64), classes)
