"""Figures of one gallery, against scikit-learn, pytorch-metric-learning and figures worked by hand."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from sklearn.metrics import average_precision_score

from regraft.errors import RecipeError, ShapeError, VectorError
from regraft.retrieval.distances import COSINE, EUCLIDEAN, Metric, prepared
from regraft.retrieval.metrics import MAP_KEY, evaluate, gap_closed, negative_flips, subgroup_gap
from regraft.retrieval.relevance import Relevance

NUM_QUERIES = 60


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    draw = np.random.default_rng(0)
    return (draw.standard_normal((7, 24))[labels()] + 2 * draw.standard_normal((300, 24))).astype(np.float32)


def labels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 7, 300)


def relevance() -> Relevance:
    ids = [f"item-{row}" for row in range(300)]
    return Relevance.by_labels(ids[:NUM_QUERIES], ids, labels()[:NUM_QUERIES], labels())


@pytest.mark.parametrize("metric", [COSINE, EUCLIDEAN], ids=lambda metric: metric.name)
def test_average_precision_is_that_of_scikit_learn(vectors: np.ndarray, metric: Metric) -> None:
    """To 1e-9, on the same float32 distances: without equal ones both count the same, and only sums round."""
    left = prepared(metric.queries, (vectors, np.arange(NUM_QUERIES)))
    right = prepared(metric.gallery, (vectors, np.arange(300)))
    scores = -(left @ right.T)[:NUM_QUERIES, :300]
    others = ~np.eye(300, dtype=bool)
    wanted = [
        average_precision_score(labels()[others[row]] == labels()[row], scores[row, others[row]])
        for row in range(NUM_QUERIES)
    ]
    assert all(len(np.unique(row)) == 300 for row in scores)
    found = evaluate(vectors[:NUM_QUERIES], vectors, relevance(), metric=metric).average_precision
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)
    with_self = [
        average_precision_score(labels() == labels()[row], scores[row]) for row in range(NUM_QUERIES)
    ]
    assert np.abs(found - with_self).max() > 1e-3


def test_equals_are_worse_than_in_scikit_learn() -> None:
    """Among equals scikit-learn gives each relevant item the precision at their end; here the worst order."""
    one = np.float32([[1, 0]])
    judgements = Relevance.by_qrels(["q"], ["a", "b", "c"], {"q": {"a", "b"}})
    found = evaluate(one, np.repeat(one, 3, axis=0), judgements).average_precision[0]
    assert found == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert average_precision_score([True, True, False], [1, 1, 1]) == pytest.approx(2 / 3)


def test_agrees_with_pytorch_metric_learning(vectors: np.ndarray) -> None:
    """To 1e-6: it works in float32. It must be told to return the whole gallery, or it cuts off."""
    calculator = AccuracyCalculator(
        include=("mean_average_precision", "precision_at_1"),
        k=299,
        knn_func=CustomKNN(CosineSimilarity()),
        device=torch.device("cpu"),
    )
    gallery, classes = torch.from_numpy(vectors), torch.from_numpy(labels())
    theirs = calculator.get_accuracy(
        gallery[:NUM_QUERIES], classes[:NUM_QUERIES], gallery, classes, ref_includes_query=True
    )
    ours = evaluate(vectors[:NUM_QUERIES], vectors, relevance())
    assert ours.mean_average_precision == pytest.approx(theirs["mean_average_precision"], abs=1e-6)
    assert ours.cmc(1) == pytest.approx(theirs["precision_at_1"], abs=1e-12)
    assert abs(ours.mean_average_precision - theirs["precision_at_1"]) > 1e-2


def test_by_hand() -> None:
    """Nearest first, the gallery of query x is a b c d; of query y, d c b a. Query z has nothing to find."""
    gallery = np.float32([[1, 0], [3, 1], [1, 1], [0, 1]])
    queries = np.float32([[1, 0], [0, 1], [1, 2]])
    judgements = Relevance.by_qrels(["x", "y", "z"], list("abcd"), {"x": {"b", "d"}, "y": {"d"}})
    found = evaluate(queries, gallery, judgements, ks=(1, 2, 3))
    assert found.judged.tolist() == [0, 1]
    assert found.average_precision.tolist() == [(1 / 2 + 2 / 4) / 2, 1]
    assert found.first_rank.tolist() == [2, 1]
    assert found.to_json() == {
        "num_queries": 3,
        "num_queries_without_relevant_items": 1,
        MAP_KEY: 0.75,
        "cmc@1": 0.5,
        "cmc@2": 1.0,
        "cmc@3": 1.0,
        "recall@1": 0.5,
        "recall@2": 0.75,
        "recall@3": 0.75,
    }
    with pytest.raises(RecipeError, match=r"counted at \[1, 2, 3\], not at 7"):
        found.recall(7)


def test_a_memory_mapped_gallery(vectors: np.ndarray, tmp_path) -> None:
    np.save(tmp_path / "gallery.npy", vectors)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    ours = evaluate(vectors[:NUM_QUERIES], mapped, relevance())
    assert ours.to_json() == evaluate(vectors[:NUM_QUERIES], vectors, relevance()).to_json()


def test_float64_vectors(vectors: np.ndarray) -> None:
    wide = vectors.astype(np.float64)
    ours = evaluate(wide[:NUM_QUERIES], wide, relevance())
    assert ours.to_json() == evaluate(vectors[:NUM_QUERIES], vectors, relevance()).to_json()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_vectors_without_a_distance_are_refused(vectors: np.ndarray, value: float) -> None:
    broken = vectors.copy()
    broken[123, 4] = value
    with pytest.raises(VectorError, match="row 123"):
        evaluate(vectors[:NUM_QUERIES], broken, relevance())


def test_zero_vectors_are_refused(vectors: np.ndarray) -> None:
    broken = vectors[:NUM_QUERIES].copy()
    broken[7] = 0
    with pytest.raises(VectorError, match="row 7 has length 0"):
        evaluate(broken, vectors, relevance())


def flips(change: Callable[[np.ndarray], np.ndarray]) -> float:
    gallery = np.float32([[1, 0], [0, 1], [1, 1]])
    queries = np.float32([[1, 0.1], [0.1, 1]])
    judgements = Relevance.by_qrels(["x", "y"], list("abc"), {"x": {"a"}, "y": {"b"}})
    before = evaluate(queries, gallery, judgements)
    return negative_flips(before, evaluate(queries, change(gallery), judgements))


def test_negative_flips() -> None:
    assert flips(lambda gallery: gallery) == 0
    assert flips(lambda gallery: gallery[[2, 1, 0]]) == 0.5
    assert flips(lambda gallery: gallery[[1, 0, 2]]) == 1


def test_flips_are_of_the_same_queries() -> None:
    one = np.float32([[1, 0]])
    judged = evaluate(one, one, Relevance.by_qrels(["q"], ["a"], {"q": {"a"}}))
    unjudged = evaluate(one, one, Relevance.by_qrels(["q"], ["a"], {}))
    with pytest.raises(ShapeError, match="judge other queries"):
        negative_flips(judged, unjudged)


def test_gap_closed() -> None:
    assert gap_closed(0.45, old=0.3, new=0.6) == pytest.approx(0.5)
    assert gap_closed(0.2, old=0.3, new=0.6) < 0
    assert np.isnan(gap_closed(0.3, old=0.3, new=0.3))


def test_the_worst_group() -> None:
    gallery = np.float32([[1, 0], [3, 1], [1, 1], [0, 1]])
    queries = np.float32([[1, 0], [0, 1], [1, 2]])
    judgements = Relevance.by_qrels(["x", "y", "z"], list("abcd"), {"x": {"d"}, "y": {"d"}})
    found = subgroup_gap(evaluate(queries, gallery, judgements), ["dark", "light", "none"])
    assert (found.worst, found.worst_value, found.mean, found.gap) == ("dark", 0.25, 0.625, 0.375)
    assert found.values == {"dark": 0.25, "light": 1.0}
    with pytest.raises(ShapeError, match="groups of 1 queries"):
        subgroup_gap(evaluate(queries, gallery, judgements), ["dark"])
