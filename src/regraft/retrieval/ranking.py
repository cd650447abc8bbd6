"""The positions of the relevant items in every query's ranking, counted without sorting the gallery."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int32, Int64

from regraft.errors import ShapeError
from regraft.retrieval.counting import Counter
from regraft.retrieval.distances import prepared
from regraft.retrieval.mixture import Mixture
from regraft.retrieval.relevance import Relevance
from regraft.retrieval.thresholds import Thresholds

BLOCK_QUERIES = 128
BLOCK_BYTES = 2**30
"""Memory for the distances of a block of queries; a large gallery gets fewer queries."""

Positions = Int64[np.ndarray, "p r"]
"""Positions of one query's relevant items, from 1, ascending, at each point of a mixture."""


def relevant_positions(
    queries: Float[np.ndarray, "q _"], mixture: Mixture, relevance: Relevance
) -> Iterator[tuple[int, Positions]]:
    """Yield each query that has relevant items, by its row, and their positions.

    Items at equal distance stand in the worst order, the irrelevant ones first: no order among equals is made
    up, and a gallery of equal vectors is given no credit.

    The distances of a query's relevant items are its thresholds, two an item, each valid at some of the
    points. Every other item's two distances are sorted in among the thresholds and counted (`Counter`). So
    all points together cost two passes over the gallery. Needed beside the two galleries: a copy of them, and
    the distances of one block of queries.

    Args:
        queries: Of the new model.
        mixture: The gallery, at its points.
        relevance: In the order of the queries and of the gallery's rows.
    """
    _check(queries, mixture, relevance)
    answers = [_Answers.of(rows, mixture) for rows in relevance.groups]
    judged = np.flatnonzero(relevance.num_relevant > 0)
    sizes = np.array([len(answers[group].rows) for group in relevance.group[judged]], np.int64)
    judged = judged[np.argsort(sizes, kind="stable")]  # queries of a block share the width of their tables
    ready = prepared(mixture.metric.queries, (queries, judged))
    step = block_queries(len(mixture.vectors))
    distances = np.empty((min(step, len(ready)), len(mixture.vectors)), np.float32)
    for start in range(0, len(judged), step):
        rows = judged[start : start + step]
        tiled = ready[start : start + step]
        np.matmul(tiled, mixture.vectors.T, out=distances[: len(tiled)])
        block = _Block(
            mixture,
            distances[: len(rows), : mixture.num_vectors],
            [answers[group] for group in relevance.group[rows]],
            [mixture.rows_of(own[own >= 0]) for own in relevance.own_row[rows, None]],
        )
        yield from zip(rows.tolist(), block.positions(), strict=True)


def block_queries(num_vectors: int) -> int:
    """How many queries' distances to so many vectors are held at a time: a power of two, to fit tiles."""
    affordable = BLOCK_BYTES // (4 * max(1, num_vectors))
    return min(BLOCK_QUERIES, 1 << max(0, affordable.bit_length() - 1))


@dataclass(frozen=True, eq=False)
class _Answers:
    """The vectors of the relevant items of a group of queries, and from and until when each counts."""

    rows: Int64[np.ndarray, " s"]
    start: Int32[np.ndarray, " s"]
    end: Int32[np.ndarray, " s"]

    @classmethod
    def of(cls, items: Int64[np.ndarray, " r"], mixture: Mixture) -> "_Answers":
        rows = np.sort(mixture.rows_of(items))
        return cls(rows, *mixture.lifetimes(rows))


class _Block:
    """Some queries and their distances to all vectors, which ranking them uses up."""

    def __init__(
        self,
        mixture: Mixture,
        distances: Float32[np.ndarray, "b v"],
        answers: Sequence[_Answers],
        own_rows: Sequence[Int64[np.ndarray, " _"]],
    ) -> None:
        self._distances = distances
        self._answers = answers
        self._own_rows = own_rows
        self._num_columns = max(len(each.rows) for each in answers) + 1
        self._counter = Counter(mixture, self._num_columns)

    def positions(self) -> Iterator[Positions]:
        """The positions of each query's relevant items."""
        scratch = np.empty(self._distances.shape[1], np.int64)
        return (self._positions(query, scratch) for query in range(len(self._distances)))

    def _positions(self, query: int, scratch: Int64[np.ndarray, " v"]) -> Positions:
        distances, answers = self._distances[query], self._answers[query]
        distances[self._own_rows[query]] = np.inf
        relevant = distances[answers.rows]
        distances[answers.rows] = np.inf  # from here on only irrelevant items are left
        # The query itself, if among the relevant items, comes last and is cut off.
        nearest_first = np.argsort(relevant)[: np.count_nonzero(relevant < np.inf)]
        start, end = self._padded(answers, nearest_first)
        columns = Thresholds(relevant[nearest_first]).smaller(distances, scratch)
        return np.concatenate(
            [_positions_at(points, counts, start, end) for points, counts in self._counter.counts(columns)]
        )

    def _padded(
        self, answers: _Answers, nearest_first: Int64[np.ndarray, " t"]
    ) -> tuple[Int32[np.ndarray, " c"], Int32[np.ndarray, " c"]]:
        """When each column's threshold counts; columns without a threshold never do."""
        start = np.full(self._num_columns, 1, np.int32)
        end = np.zeros(self._num_columns, np.int32)
        start[: len(nearest_first)] = answers.start[nearest_first]
        end[: len(nearest_first)] = answers.end[nearest_first]
        return start, end


def _positions_at(
    points: range,
    irrelevant: Int64[np.ndarray, "p c"],
    start: Int32[np.ndarray, " c"],
    end: Int32[np.ndarray, " c"],
) -> Int64[np.ndarray, "p r"]:
    """Positions at some points, from the irrelevant items counted between one threshold and the next."""
    nearer = np.cumsum(irrelevant, axis=1, out=irrelevant).ravel()
    point = np.array(points, np.int32)[:, None]
    positions = nearer[np.flatnonzero((start <= point) & (point < end))].reshape(len(points), -1)
    positions += np.arange(1, positions.shape[1] + 1)
    return positions


def _check(queries: Float[np.ndarray, "q _"], mixture: Mixture, relevance: Relevance) -> None:
    mixture.check_queries(queries)
    if (len(relevance.query_ids), relevance.num_rows) != (len(queries), mixture.num_items):
        raise ShapeError(
            f"The judgements are of {len(relevance.query_ids)} queries and {relevance.num_rows} gallery "
            f"rows; expected {len(queries)} and {mixture.num_items}."
        )
