"""What a table can hold: columns whose records are all of one width, in the same bytes on every machine."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, final, get_args

import numpy as np
from jaxtyping import Num, UInt8

from regraft.errors import RecipeError, ShapeError, TableError
from regraft.tables.topk import TopK

Number = Literal["<f4", "<f2", "|i1"]
"""How numbers are kept, as NumPy spells it: float32, float16 or int8."""


@final
@dataclass(frozen=True)
class Vector:
    """A column of vectors, such as embeddings or scores. A record is an array of numbers.

    Args:
        width: Numbers in a vector.
        number: How each is kept.

    Raises:
        RecipeError: No numbers, or of another kind.
    """

    width: int
    number: Number = "<f4"

    def __post_init__(self) -> None:
        _check_width(self.width)
        if self.number not in get_args(Number):
            raise RecipeError(f"number is {self.number!r}, expected one of {', '.join(get_args(Number))}.")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The layout of a record."""
        return np.dtype((self.number, (self.width,)))

    def to_json(self) -> dict[str, Any]:
        """What a manifest says of the column."""
        return {"kind": "vector"} | asdict(self)

    def encode(self, values: Num[np.ndarray, "n width"]) -> np.ndarray:
        """Records of vectors. Numbers with a point are rounded to the column's; whole ones must be int8.

        Raises:
            ShapeError: The vectors have another width, or numbers of another kind.
            TableError: A number is not finite, or too large for the column.
        """
        kept = np.dtype(self.number)
        if not np.can_cast(values.dtype, kept, "same_kind" if kept.kind == "f" else "no"):
            raise ShapeError(f"The vectors are {values.dtype}, expected {kept}.")
        with np.errstate(over="ignore"):  # Refused in the next line.
            records = np.ascontiguousarray(values, kept)
        wrong = ~np.isfinite(records)
        if wrong.any():
            row = int(np.argwhere(wrong)[0, 0])
            raise TableError(f"Row {row} holds {values[wrong][0]}, expected numbers that {kept} can hold.")
        return check_records(self, records)

    def decode(self, records: np.ndarray) -> Num[np.ndarray, "n width"]:
        """The vectors that records hold: themselves.

        Raises:
            ShapeError: They are records of another column.
        """
        return check_records(self, records)


@final
@dataclass(frozen=True)
class Bytes:
    """A column of bytes that stay as they are, such as an augmentation's parameters.

    Args:
        width: Bytes in a record.

    Raises:
        RecipeError: There are none.
    """

    width: int

    def __post_init__(self) -> None:
        _check_width(self.width)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The layout of a record."""
        return np.dtype((np.uint8, (self.width,)))

    def to_json(self) -> dict[str, Any]:
        """What a manifest says of the column."""
        return {"kind": "bytes"} | asdict(self)

    def encode(self, values: UInt8[np.ndarray, "n width"]) -> np.ndarray:
        """Records of rows of bytes: themselves.

        Raises:
            ShapeError: The rows have another width.
        """
        return check_records(self, values)

    def decode(self, records: np.ndarray) -> UInt8[np.ndarray, "n width"]:
        """The rows of bytes that records hold: themselves.

        Raises:
            ShapeError: They are records of another column.
        """
        return check_records(self, records)


Column = Vector | TopK | Bytes

_KINDS = {"vector": Vector, "top_k": TopK, "bytes": Bytes}


def column_from_json(fields: Mapping[str, Any]) -> Column:
    """The column that `to_json` described.

    Raises:
        KeyError, TypeError, RecipeError: There is no such column.
    """
    settings = dict(fields)
    return _KINDS[settings.pop("kind")](**settings)


def check_records(column: Column, records: np.ndarray) -> np.ndarray:
    """Return `records` if they are some of a column's.

    Raises:
        ShapeError: They are not.
    """
    wanted = column.dtype
    if records.dtype != wanted.base or records.ndim != 1 + wanted.ndim or records.shape[1:] != wanted.shape:
        raise ShapeError(
            f"The records are {records.dtype} of shape {records.shape}, expected those of {column}.",
            hint="Encode what is to be recorded with the column.",
        )
    return records


def _check_width(width: int) -> None:
    if width < 1:
        raise RecipeError(f"width is {width}, expected at least 1.")
