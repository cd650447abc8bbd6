"""Where many numbers fall among a few sorted ones: a table of cells instead of a binary search."""

import numpy as np
from jaxtyping import Float32, Int64

CHUNK = 32_768
"""Values looked up at a time; what they need stays in the processor's cache."""

FEWEST_CELLS, MOST_CELLS = 2**12, 2**18
CELLS_PER_THRESHOLD = 8

STEPS = 3
"""Thresholds tried one by one within a cell before a binary search does the rest."""

LARGEST_SCALE = 1e30


class Thresholds:
    """Finds for each of many numbers how many thresholds are smaller.

    The range of the thresholds is cut into cells of equal width. A cell without a threshold answers for all
    that falls into it; only the few values that share a cell with a threshold are compared. Exact, whatever
    the rounding, since a larger number never falls into a lower cell. About 3 ns a value, against 60 ns for
    `np.searchsorted` on unsorted values, as long as thresholds do not crowd in a small part of their range.

    Args:
        sorted_values: The thresholds, ascending, finite, at least one.
    """

    def __init__(self, sorted_values: Float32[np.ndarray, " t"]) -> None:
        self._sorted = sorted_values
        self._ended = np.append(sorted_values, np.float32(np.inf))
        wanted = CELLS_PER_THRESHOLD * len(sorted_values)
        self._num_cells = min(max(FEWEST_CELLS, 1 << wanted.bit_length()), MOST_CELLS)
        width = float(sorted_values[-1]) - float(sorted_values[0])
        # The first cell is for values below all thresholds, the last for those above.
        scale = (self._num_cells - 3) / width if width > 0 else LARGEST_SCALE
        self._scale = np.float32(min(scale, LARGEST_SCALE))
        cells = self._cells(sorted_values)
        in_cell = np.bincount(cells, minlength=self._num_cells)
        self._below = np.cumsum(in_cell) - in_cell
        self._answers = self._below.copy()
        self._answers[cells] = -1

    def smaller(
        self, values: Float32[np.ndarray, " n"], out: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"]:
        """Count for each value the thresholds below it: `np.searchsorted(thresholds, values, "left")`.

        Args:
            values: Numbers or infinities, not NaN.
            out: Where the counts are written; returned.
        """
        for start in range(0, len(values), CHUNK):
            self._look_up(values[start : start + CHUNK], out[start : start + CHUNK])
        return out

    def _cells(self, values: Float32[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        places = values - self._sorted[0]
        with np.errstate(over="ignore"):  # what overflows falls into the first or the last cell, as it should
            places *= self._scale
        places += 1
        np.clip(places, 0, self._num_cells - 1, out=places)
        return places.astype(np.int64)

    def _look_up(self, values: Float32[np.ndarray, " n"], out: Int64[np.ndarray, " n"]) -> None:
        cells = self._cells(values)
        self._answers.take(cells, out=out, mode="clip")  # "raise" would copy, to leave `out` whole on failure
        open_ = np.flatnonzero(out < 0)
        if len(open_) > 0:
            out[open_] = self._compare(values[open_], self._below[cells[open_]])

    def _compare(
        self, values: Float32[np.ndarray, " n"], counts: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"]:
        """Raise `counts`, of the thresholds in lower cells, by the smaller ones in the value's own cell."""
        higher = np.arange(len(values))
        for _ in range(STEPS):
            higher = higher[self._ended[counts[higher]] < values[higher]]
            if len(higher) == 0:
                return counts
            counts[higher] += 1
        counts[higher] = np.searchsorted(self._sorted, values[higher])
        return counts
