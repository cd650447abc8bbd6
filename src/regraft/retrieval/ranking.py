"""The positions of the relevant items in every query's ranking, counted without sorting the gallery."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64

from regraft.errors import ShapeError
from regraft.retrieval.distances import prepared
from regraft.retrieval.mixture import Mixture
from regraft.retrieval.relevance import Relevance
from regraft.retrieval.thresholds import Thresholds

BLOCK_QUERIES = 128
BLOCK_BYTES = 2**29
"""Memory for the distances of a block of queries to one kind of vectors; large galleries get fewer queries."""

Summary = TypeVar("Summary")
Positions = Int64[np.ndarray, "p r"]
"""Positions of one query's relevant items, from 1, ascending, at each point of a mixture."""


def summarise_positions(
    queries: Float[np.ndarray, "q d"],
    mixture: Mixture,
    relevance: Relevance,
    summarise: Callable[[Positions], Summary],
) -> Iterator[tuple[int, Summary]]:
    """Yield, for each query that has relevant items, its row and a summary of their positions.

    Items at equal distance stand in the worst order, the irrelevant ones first: no order among equals is made
    up, and a gallery of equal vectors is given no credit.

    The distances of a query's relevant items are its thresholds, two an item, each valid at some of the
    points. Every other item's two distances are sorted in among the thresholds and counted by segment. From
    one point to the next only one segment changes: its transformed counts go, its native ones come. So all
    points together cost two passes over the gallery. Needed beside the two galleries: a copy of them, and the
    distances of one block of queries.

    Args:
        queries: Of the new model.
        mixture: The gallery, at its points.
        relevance: In the order of the queries and of the gallery's rows.
        summarise: Called in as many threads as torch uses.
    """
    _check(queries, mixture, relevance)
    answers = [_Answers.of(rows, mixture) for rows in relevance.groups]
    judged = np.flatnonzero(relevance.num_relevant > 0)
    sizes = np.array([len(answers[group].start) for group in relevance.group[judged]], np.int64)
    judged = judged[np.argsort(sizes, kind="stable")]  # queries of a block share the width of their tables
    ready = prepared(mixture.metric.queries, queries, judged)
    own_places = np.append(mixture.place, -1)[relevance.own_row]
    num_threads = torch.get_num_threads()
    step = block_queries(mixture.num_rows)
    with ThreadPoolExecutor(num_threads) as pool:
        for start in range(0, len(judged), step):
            rows = judged[start : start + step]
            wanted = [answers[group] for group in relevance.group[rows]]
            block = _Block(mixture, ready[start : start + step], wanted, own_places[rows])
            parts = np.array_split(np.arange(len(rows)), num_threads)
            summaries = pool.map(partial(block.summaries, summarise), parts)
            yield from zip(rows.tolist(), chain.from_iterable(summaries), strict=True)


def block_queries(num_rows: int) -> int:
    """How many queries' distances to a gallery of so many rows are held at a time."""
    return max(1, min(BLOCK_QUERIES, BLOCK_BYTES // (4 * max(1, num_rows))))


@dataclass(frozen=True, eq=False)
class _Answers:
    """The relevant items of a group of queries: where their distances stand, and when they count."""

    transformed: Int64[np.ndarray, " t"]
    native: Int64[np.ndarray, " v"]
    start: Int64[np.ndarray, " t_plus_v"]
    """First point at which a distance counts, transformed ones first."""
    end: Int64[np.ndarray, " t_plus_v"]
    """First point at which it counts no more."""

    @classmethod
    def of(cls, rows: Int64[np.ndarray, " r"], mixture: Mixture) -> "_Answers":
        places = np.sort(mixture.place[rows])
        transformed = places[places >= mixture.first_transformed]
        native = places[places < mixture.end_native]
        return cls(
            transformed - mixture.first_transformed,
            native,
            start=np.concatenate([np.zeros_like(transformed), mixture.segment[native]]),
            end=np.concatenate([mixture.segment[transformed], np.full_like(native, mixture.num_points)]),
        )


class _Block:
    """Some queries, and their distances to both kinds of vectors."""

    def __init__(
        self,
        mixture: Mixture,
        queries: Float32[np.ndarray, "b e"],
        answers: Sequence[_Answers],
        own_places: Int64[np.ndarray, " b"],
    ) -> None:
        self._mixture = mixture
        self._answers = answers
        self._own_places: list[int] = own_places.tolist()
        self._to_transformed = queries @ mixture.transformed.T
        self._to_native = queries @ mixture.native.T
        # An item is counted in a table, in the row of its segment and the column of its nearer thresholds.
        self._width = max(len(each.start) for each in answers) + 1
        self._first_column = mixture.segment * self._width

    def summaries(
        self, summarise: Callable[[Positions], Summary], rows: Int64[np.ndarray, " m"]
    ) -> list[Summary]:
        """Summaries of the positions of some queries, each of which can be asked once."""
        scratch = np.empty(self._mixture.num_rows, np.int64)
        return [summarise(self._positions(row, scratch)) for row in rows.tolist()]

    def _positions(self, row: int, scratch: Int64[np.ndarray, " n"]) -> Positions:
        answers = self._answers[row]
        to_transformed, to_native = self._to_transformed[row], self._to_native[row]
        self._leave_out(self._own_places[row], to_transformed, to_native)
        distances = np.concatenate([to_transformed[answers.transformed], to_native[answers.native]])
        # From here on only irrelevant items are left. The query itself, if among `distances`, comes last.
        to_transformed[answers.transformed] = np.inf
        to_native[answers.native] = np.inf
        nearest_first = np.argsort(distances)[: np.count_nonzero(distances < np.inf)]
        thresholds = Thresholds(distances[nearest_first])
        counts = self._count(thresholds, to_transformed, to_native, scratch)[:, : len(nearest_first)]
        start, end = answers.start[nearest_first], answers.end[nearest_first]
        points = np.arange(self._mixture.num_points)[:, None]
        nearer = counts[(start <= points) & (points < end)].reshape(len(points), -1)
        return nearer + np.arange(1, nearer.shape[1] + 1)

    def _leave_out(
        self, place: int, to_transformed: Float32[np.ndarray, " t"], to_native: Float32[np.ndarray, " v"]
    ) -> None:
        if 0 <= place < len(to_native):
            to_native[place] = np.inf
        if place >= self._mixture.first_transformed:
            to_transformed[place - self._mixture.first_transformed] = np.inf

    def _count(
        self,
        thresholds: Thresholds,
        to_transformed: Float32[np.ndarray, " t"],
        to_native: Float32[np.ndarray, " v"],
        scratch: Int64[np.ndarray, " n"],
    ) -> Int64[np.ndarray, "p w"]:
        """Count at each point the irrelevant items that are as near as each threshold, or nearer."""
        first = self._mixture.first_transformed
        before = self._table(thresholds, to_transformed, self._first_column[first:], scratch)
        after = self._table(thresholds, to_native, self._first_column[: len(to_native)], scratch)
        after[0] += before[1:].sum(axis=0)
        after[1:] -= before[1:]
        counts = after[:-1]
        for point in range(1, len(counts)):
            counts[point] += counts[point - 1]
        return np.cumsum(counts, axis=1, out=counts)

    def _table(
        self,
        thresholds: Thresholds,
        distances: Float32[np.ndarray, " m"],
        first_column: Int64[np.ndarray, " m"],
        scratch: Int64[np.ndarray, " n"],
    ) -> Int64[np.ndarray, "p_plus_1 w"]:
        cells = thresholds.smaller(distances, scratch[: len(distances)])
        cells += first_column
        num_rows = self._mixture.num_points + 1
        return np.bincount(cells, minlength=num_rows * self._width).reshape(num_rows, self._width)


def _check(queries: Float[np.ndarray, "q d"], mixture: Mixture, relevance: Relevance) -> None:
    mixture.check_queries(queries)
    if (len(relevance.query_ids), relevance.num_rows) != (len(queries), mixture.num_rows):
        raise ShapeError(
            f"The judgements are of {len(relevance.query_ids)} queries and {relevance.num_rows} gallery "
            f"rows; expected {len(queries)} and {mixture.num_rows}."
        )
