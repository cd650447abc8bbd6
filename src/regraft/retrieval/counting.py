"""How many items are nearer than each threshold, at every point of a backfilling."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Int64

from regraft.retrieval.mixture import Mixture

TABLE_CELLS = 2**18
"""Points are counted together as long as their tables stay in the processor's cache."""


class Counter:
    """Counts the vectors of a mixture in columns, at every point.

    From one point to the next only one segment changes: its transformed vectors go, its native ones come.

    Args:
        mixture: The gallery, at its points.
        num_columns: Columns that vectors may be in.
    """

    def __init__(self, mixture: Mixture, num_columns: int) -> None:
        self._mixture = mixture
        self._num_columns = num_columns
        step = max(1, TABLE_CELLS // num_columns)
        self._spans = [
            range(first, min(first + step, mixture.num_points))
            for first in range(0, mixture.num_points, step)
        ]
        # What to add to a vector's column to get its cell in the table of its span.
        self._first_cell = mixture.segment % step * num_columns

    def counts(self, columns: Int64[np.ndarray, " v"]) -> Iterator[tuple[range, Int64[np.ndarray, "p c"]]]:
        """Yield consecutive points, and how many vectors count there in each column, for the caller to keep.

        Args:
            columns: Of each vector; changed.
        """
        before = np.bincount(columns[: self._mixture.num_transformed], minlength=self._num_columns)
        columns += self._first_cell
        for points in self._spans:
            coming, going = self._mixture.coming(points), self._mixture.going(points)
            counts = self._table(columns[coming], len(points))
            counts -= self._table(columns[going], len(points))
            counts[0] += before
            for one, following in pairwise(counts):
                following += one
            before = counts[-1].copy()
            yield points, counts

    def _table(self, cells: Int64[np.ndarray, " m"], num_rows: int) -> Int64[np.ndarray, "p c"]:
        table = np.bincount(cells, minlength=num_rows * self._num_columns)
        return table.reshape(num_rows, self._num_columns)
