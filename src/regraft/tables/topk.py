"""What a classifier said, in a few bytes: its most probable classes.

A class takes three bytes, two for its id and one for its probability; one more is for the mass of all
classes that are not listed. Bytes spent on more classes are spent well, and on more digits they are not.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float, Float32, Int64, Integer, UInt8

from regraft.errors import RecipeError, ShapeError, TableError
from regraft.tables.topk_batch import TopKBatch

MOST_CLASSES = 2**16

CODES_A_HALVING = 16
"""Codes between a probability and its half: neighbours are 4.4 % apart, and the last is 2^-15.9."""

REST_CODES_A_DOUBLING = 8
"""Codes between odds and their double."""
REST_EVEN = 128
"""The code of even odds: as much mass off the list as on it."""
LEAST_REST = 2.0**-15.9

SUM_TOLERANCE = 1e-3
"""How far from 1 the probabilities of a row may be: a thousand times float32's rounding."""

_PROBABILITY = np.exp2(-np.arange(256) / CODES_A_HALVING).astype(np.float32)
_ODDS = np.exp2((np.arange(256) - REST_EVEN) / REST_CODES_A_DOUBLING)
_REST = np.where(np.arange(256) == 0, 0, _ODDS / (1 + _ODDS)).astype(np.float32)


@final
@dataclass(frozen=True)
class TopK:
    """A column of the `k` most probable of `num_classes` classes, 3 k + 1 bytes a record.

    A probability p has the code round(-16 log2 p), at most 255. The mass r off the list has the code
    128 + round(8 log2(r / (1 - r))), from 1 to 255, or 0 if it is below 2^-15.9, which is as good as none.

    Args:
        k: Classes that are listed.
        num_classes: Classes that there are, at most 65,536.

    Raises:
        RecipeError: One of them is out of range.
    """

    k: int
    num_classes: int

    def __post_init__(self) -> None:
        if not 1 <= self.num_classes <= MOST_CLASSES:
            raise RecipeError(f"num_classes is {self.num_classes}, expected 1 to {MOST_CLASSES}.")
        if not 1 <= self.k <= self.num_classes:
            raise RecipeError(f"k is {self.k}, expected 1 to {self.num_classes}, the number of classes.")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The layout of a record."""
        return np.dtype([("ids", "<u2", (self.k,)), ("code", "u1", (self.k,)), ("rest", "u1")])

    def to_json(self) -> dict[str, Any]:
        """What a manifest says of the column."""
        return {"kind": "top_k"} | asdict(self)

    def encode(self, log_probabilities: Float[np.ndarray, "n num_classes"]) -> np.ndarray:
        """Records of the log-probabilities of all classes. Equal numbers give equal bytes.

        Raises:
            ShapeError: The rows do not have `num_classes` numbers.
            TableError: A number is NaN or plus infinity, or the probabilities of a row do not add up to 1.
        """
        values = _checked(log_probabilities, self.num_classes)
        _check_sums(_sums(values), least=1)
        ids = _largest(values, self.k)
        return self.encode_listed(ids, np.take_along_axis(values, ids, axis=1))

    def encode_listed(
        self, ids: Integer[np.ndarray, "n k"], log_probabilities: Float[np.ndarray, "n k"]
    ) -> np.ndarray:
        """Records of the `k` most probable classes that were chosen elsewhere, in any order.

        Raises:
            ShapeError: The rows do not have `k` ids and `k` numbers.
            TableError: A number is NaN or plus infinity, the probabilities of a row add up to more than 1
                (or to less, if all classes are listed), or an id is no class, or is listed twice.
        """
        values = _checked(log_probabilities, self.k)
        if ids.shape != values.shape:
            raise ShapeError(f"The ids have shape {ids.shape}, expected {values.shape}, one a probability.")
        _check_ids(ids, self.num_classes)
        sums, has_rest = _sums(values), self.k < self.num_classes
        _check_sums(sums, least=0 if has_rest else 1)
        order = np.lexsort((ids, -values), axis=1)
        records = np.empty(len(values), self.dtype)
        records["ids"] = np.take_along_axis(ids, order, axis=1)
        records["code"] = _code(np.take_along_axis(values, order, axis=1))
        records["rest"] = _rest_code(1 - sums) if has_rest else 0
        return records

    def decode(self, records: np.ndarray) -> TopKBatch:
        """The distributions that records hold, scaled so that each adds up to 1.

        Raises:
            ShapeError: They are records of another column.
        """
        if records.dtype != self.dtype or records.ndim != 1:
            raise ShapeError(f"The records are {records.dtype}, expected those of {self}.")
        listed, rest = _PROBABILITY[records["code"]], _REST[records["rest"]]
        listed *= ((1 - rest) / listed.sum(axis=1))[:, None]
        return TopKBatch(records["ids"].astype(np.int64), listed, rest, self.num_classes)


def _largest(values: Float32[np.ndarray, "n c"], k: int) -> Int64[np.ndarray, "n k"]:
    """Columns of the `k` largest values of each row, in any order; the lower ones if there are too many."""
    num_others = values.shape[1] - k
    columns = np.argpartition(values, num_others, axis=1)[:, num_others:]
    least = np.take_along_axis(values, columns, axis=1).min(axis=1, keepdims=True)
    tied = np.count_nonzero(values >= least, axis=1) > k
    columns[tied] = np.argsort(-values[tied], axis=1, kind="stable")[:, :k]
    return columns


def _code(log_probabilities: Float32[np.ndarray, "n k"]) -> UInt8[np.ndarray, "n k"]:
    code = np.rint(log_probabilities * np.float64(-CODES_A_HALVING / math.log(2)))
    return np.clip(code, 0, 255).astype(np.uint8)


def _rest_code(rest: Float[np.ndarray, " n"]) -> UInt8[np.ndarray, " n"]:
    mass = np.clip(rest, 0, 1)
    with np.errstate(divide="ignore"):  # Nothing off the list, or nothing on it: the ends of the scale.
        code = np.rint(REST_CODES_A_DOUBLING * np.log2(mass / (1 - mass))) + REST_EVEN
    return np.where(mass < LEAST_REST, 0, np.clip(code, 1, 255)).astype(np.uint8)


def _sums(log_probabilities: Float32[np.ndarray, "n c"]) -> Float[np.ndarray, " n"]:
    with np.errstate(over="ignore"):  # Large logits, which are refused in a moment.
        return np.exp(log_probabilities).sum(axis=1, dtype=np.float64)


def _checked(values: Float[np.ndarray, "..."], width: int) -> Float32[np.ndarray, "n width"]:
    if values.ndim != 2 or values.shape[1] != width:
        raise ShapeError(f"The log-probabilities have shape {values.shape}, expected (n, {width}).")
    wrong = ~(values < np.inf)
    if wrong.any():
        row, place = np.argwhere(wrong)[0].tolist()
        raise TableError(
            f"Log-probability {place} of row {row} is {values[row, place]}, expected a number of at most 0 "
            "or minus infinity.",
            hint="Look at the teacher's logits; a float16 one may overflow, and bfloat16 does not.",
        )
    return values.astype(np.float32, copy=False)


def _check_sums(sums: Float[np.ndarray, " n"], *, least: int) -> None:
    wrong = (sums < least - SUM_TOLERANCE) | (sums > 1 + SUM_TOLERANCE)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise TableError(
            f"The probabilities of row {row} add up to {sums[row]:.6g}, "
            f"expected {'1' if least else 'at most 1'}.",
            hint="Pass log-probabilities (log_softmax in float32), not logits or probabilities.",
        )


def _check_ids(ids: Integer[np.ndarray, "n k"], num_classes: int) -> None:
    wrong = (ids < 0) | (ids >= num_classes)
    if wrong.any():
        row, place = np.argwhere(wrong)[0].tolist()
        raise TableError(f"Row {row} lists class {ids[row, place]}, expected 0 to {num_classes - 1}.")
    in_order = np.sort(ids, axis=1)
    twice = in_order[:, 1:] == in_order[:, :-1]
    if twice.any():
        row, place = np.argwhere(twice)[0].tolist()
        raise TableError(f"Row {row} lists class {in_order[row, place]} twice, expected each class once.")
