"""Streamed counts agree exactly with a full sort, at every point of a backfilling."""

from collections.abc import Set
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.errors import RecipeError, ShapeError
from regraft.retrieval import counting, ranking
from regraft.retrieval.curve import backfilling_curve
from regraft.retrieval.distances import COSINE, EUCLIDEAN, Metric, prepared
from regraft.retrieval.metrics import Evaluation, evaluate
from regraft.retrieval.relevance import Relevance

KS = (1, 2, 5)


def naive_positions(far: np.ndarray, relevant: Set[int], own_row: int) -> list[int]:
    """Places of the relevant items in one query's sorted gallery, the irrelevant ones first among equals."""
    items = [item for item in range(len(far)) if item != own_row]
    items.sort(key=lambda item: (far[item], item in relevant))
    return [place for place, item in enumerate(items, start=1) if item in relevant]


def check(
    evaluation: Evaluation, queries: np.ndarray, gallery: np.ndarray, relevance: Relevance, metric: Metric
) -> None:
    left = prepared(metric.queries, (queries, np.arange(len(queries))))
    right = prepared(metric.gallery, (gallery, np.arange(len(gallery))))
    distances = (left @ right.T)[: len(queries), : len(gallery)]
    found = {
        query: naive_positions(far, set(relevance.groups[group].tolist()), int(own))
        for query, (far, group, own) in enumerate(
            zip(distances, relevance.group, relevance.own_row, strict=True)
        )
    }
    judged = [query for query, positions in found.items() if positions]
    assert evaluation.judged.tolist() == judged
    assert evaluation.num_unjudged == len(queries) - len(judged)
    for place, query in enumerate(judged):
        positions = found[query]
        precision = np.mean([rank / position for rank, position in enumerate(positions, start=1)])
        assert evaluation.average_precision[place] == pytest.approx(precision, abs=1e-12)
        assert evaluation.first_rank[place] == positions[0]
        assert evaluation.num_relevant[place] == len(positions)
        wanted = [sum(position <= k for position in positions) for k in KS]
        assert evaluation.found[:, place].tolist() == wanted


@dataclass(frozen=True)
class Case:
    queries: np.ndarray
    transformed: np.ndarray
    native: np.ndarray
    order: np.ndarray
    stops: list[int]
    relevance: Relevance


def tied(seed: int, num_queries: int, num_rows: int, num_stops: int, judge_by_labels: bool) -> Case:
    """Vectors of small whole numbers: many distances are equal, and float32 holds every one exactly."""
    draw = np.random.default_rng(seed)
    largest = draw.integers(0, 3)

    def vectors(num: int) -> np.ndarray:
        return np.float32(np.hstack([draw.integers(-largest, largest + 1, (num, 2)), np.ones((num, 1))]))

    ids = [f"item-{row}" for row in range(num_rows)]
    strangers = [f"stranger-{number}" for number in range(3)]
    query_ids = [str(name) for name in draw.choice([*ids, *strangers], num_queries, replace=False)]
    labels = draw.integers(0, draw.integers(1, 5), num_queries + num_rows)
    qrels = {name: {item for item in ids if draw.random() < 0.4} for name in query_ids}
    return Case(
        vectors(num_queries),
        vectors(num_rows),
        vectors(num_rows),
        draw.permutation(num_rows),
        sorted(draw.integers(0, num_rows + 1, num_stops).tolist()),
        Relevance.by_labels(query_ids, ids, labels[:num_queries], labels[num_queries:])
        if judge_by_labels
        else Relevance.by_qrels(query_ids, ids, qrels),
    )


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 14), st.integers(1, 5), st.booleans())
def test_every_point_agrees_with_a_full_sort(
    seed: int, num_queries: int, num_rows: int, num_stops: int, judge_by_labels: bool
) -> None:
    case = tied(seed, num_queries, num_rows, num_stops, judge_by_labels)
    arguments = case.queries, case.transformed, case.native, case.order, case.relevance
    curve = backfilling_curve(*arguments, metric=EUCLIDEAN, ks=KS, stops=case.stops)
    for stop, evaluation in zip(case.stops, curve.evaluations, strict=True):
        mixed = case.transformed.copy()
        mixed[case.order[:stop]] = case.native[case.order[:stop]]
        check(evaluation, case.queries, mixed, case.relevance, EUCLIDEAN)


@pytest.mark.parametrize("metric", [COSINE, EUCLIDEAN], ids=lambda metric: metric.name)
def test_blocks_and_tables_do_not_matter(monkeypatch: pytest.MonkeyPatch, metric: Metric) -> None:
    """Blocks of four queries and tables of one point, or of a few, give what one block and one table give."""
    case, ids = drawn(num_rows=150, num_queries=40), [f"item-{row}" for row in range(150)]
    arguments = case.queries, case.transformed, case.native, case.order, case.relevance
    whole = backfilling_curve(*arguments, metric=metric, ks=KS)
    for point, (stop, evaluation) in enumerate(zip(whole.num_native, whole.evaluations, strict=True)):
        assert stop == point * len(ids) // 21
        mixed = case.transformed.copy()
        mixed[case.order[:stop]] = case.native[case.order[:stop]]
        check(evaluation, case.queries, mixed, case.relevance, metric)
    monkeypatch.setattr(ranking, "BLOCK_QUERIES", 4)
    for num_cells in (1, 200):
        monkeypatch.setattr(counting, "TABLE_CELLS", num_cells)
        parts = backfilling_curve(*arguments, metric=metric, ks=KS)
        for one, other in zip(whole.evaluations, parts.evaluations, strict=True):
            same(one, other)


def test_the_ends_of_a_curve_are_single_evaluations() -> None:
    case = drawn(num_rows=150, num_queries=40)
    curve = backfilling_curve(case.queries, case.transformed, case.native, case.order, case.relevance, ks=KS)
    same(curve.evaluations[0], evaluate(case.queries, case.transformed, case.relevance, ks=KS))
    same(curve.evaluations[-1], evaluate(case.queries, case.native, case.relevance, ks=KS))
    with pytest.raises(AssertionError):
        same(curve.evaluations[0], curve.evaluations[-1])


def test_equal_vectors_get_no_credit() -> None:
    """All distances tie, wherever in the matrix they were computed, so every irrelevant item comes first."""
    gallery = np.tile(np.random.default_rng(0).standard_normal((1, 133)).astype(np.float32), (1001, 1))
    ids = [f"item-{row}" for row in range(1001)]
    relevance = Relevance.by_qrels(["query"], ids, {"query": {"item-0", "item-500", "item-1000"}})
    evaluation = evaluate(gallery[:1], gallery, relevance)
    assert evaluation.first_rank.tolist() == [999]
    assert evaluation.average_precision[0] == pytest.approx((1 / 999 + 2 / 1000 + 3 / 1001) / 3)


def test_the_query_itself_is_left_out_by_id_not_by_distance() -> None:
    """In a half upgraded gallery the query's own row need not be the nearest: here it is the farthest."""
    queries = np.float32([[1, 0]])
    transformed = np.float32([[-1, 0], [1, 0.1], [1, 0.5]])
    relevance = Relevance.by_labels(["a"], ["a", "b", "c"], [0], [0, 1, 0])
    evaluation = evaluate(queries, transformed, relevance)
    assert (evaluation.num_relevant.tolist(), evaluation.first_rank.tolist()) == ([1], [2])
    stranger = Relevance.by_labels(["z"], ["a", "b", "c"], [0], [0, 1, 0])
    assert evaluate(queries, transformed, stranger).average_precision[0] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_nothing_to_judge() -> None:
    case = drawn(num_rows=10, num_queries=3)
    nobody = Relevance.by_qrels(["x", "y", "z"], [f"item-{row}" for row in range(10)], {})
    evaluation = evaluate(case.queries, case.native, nobody)
    assert evaluation.num_unjudged == 3
    assert np.isnan(evaluation.mean_average_precision)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda case: {"order": np.zeros(10, np.int64)}, RecipeError, "does not name each of the 10 rows"),
        (lambda case: {"stops": [3, 1]}, RecipeError, r"stops are \[3, 1\]"),
        (lambda case: {"stops": [11]}, RecipeError, "numbers from 0 to 10"),
        (lambda case: {"ks": (0,)}, RecipeError, "k is 0"),
        (lambda case: {"native": case.native[:, :3]}, ShapeError, "dimensions"),
        (lambda case: {"native": case.native[:9]}, ShapeError, "10 transformed vectors, 9 native"),
        (lambda case: {"queries": case.queries[:2]}, ShapeError, "of 3 queries and 10 gallery rows"),
        (lambda case: {"queries": case.queries[:, :3]}, ShapeError, "Queries have dimension 3"),
    ],
)
def test_what_does_not_fit_is_refused(change, error: type[Exception], message: str) -> None:
    case = drawn(num_rows=10, num_queries=3)
    arguments = {
        name: getattr(case, name) for name in ("queries", "transformed", "native", "order", "relevance")
    }
    with pytest.raises(error, match=message):
        backfilling_curve(**arguments | change(case))


def drawn(num_rows: int, num_queries: int) -> Case:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 6, num_rows)
    native = generator.standard_normal((6, 12))[labels] + generator.standard_normal((num_rows, 12))
    transformed = native + generator.standard_normal((num_rows, 12))
    ids = [f"item-{row}" for row in range(num_rows)]
    relevance = Relevance.by_labels(ids[:num_queries], ids, labels[:num_queries], labels)
    return Case(
        native[:num_queries].astype(np.float32),
        transformed.astype(np.float32),
        native.astype(np.float32),
        generator.permutation(num_rows),
        [],
        relevance,
    )


def same(one: Evaluation, other: Evaluation) -> None:
    for field in ("judged", "num_relevant", "average_precision", "first_rank", "found"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
