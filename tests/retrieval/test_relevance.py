import numpy as np
import pytest

from regraft.errors import SampleError, ShapeError
from regraft.retrieval.relevance import Relevance, own_rows

GALLERY = ["a", "b", "c", "d"]


def test_labels_and_qrels_say_the_same() -> None:
    by_labels = Relevance.by_labels(
        ["a", "x", "y"], GALLERY, ["cat", "dog", "owl"], ["cat", "dog", "cat", "cat"]
    )
    by_qrels = Relevance.by_qrels(["a", "x", "y"], GALLERY, {"a": {"c", "d"}, "x": {"b"}})
    for relevance in (by_labels, by_qrels):
        assert relevance.own_row.tolist() == [0, -1, -1]
        assert relevance.num_relevant.tolist() == [2, 1, 0]
        assert relevance.num_rows == 4


def test_arrays_of_labels() -> None:
    relevance = Relevance.by_labels(["a", "b"], GALLERY, np.array([1, 7]), np.array([7, 1, 7, 3]))
    assert relevance.num_relevant.tolist() == [1, 2]


def test_the_query_itself_is_found_by_id() -> None:
    assert own_rows(["d", "z", "a"], GALLERY).tolist() == [3, -1, 0]


def test_unknown_items_are_named() -> None:
    with pytest.raises(SampleError, match=r"2 relevant items are not in the gallery: 'p', 'q'"):
        Relevance.by_qrels(["a"], GALLERY, {"a": {"b", "p", "q"}})


def test_ids_given_twice_are_named() -> None:
    with pytest.raises(SampleError, match=r"1 gallery ids are given more than once: 'a'"):
        Relevance.by_labels(["x"], ["a", "a"], [0], [0, 0])


def test_one_label_an_id() -> None:
    with pytest.raises(ShapeError, match="gallery got 4 ids and 3 labels"):
        Relevance.by_labels(["x"], GALLERY, [0], [0, 0, 1])


def test_no_queries() -> None:
    assert Relevance.by_labels([], GALLERY, [], [0, 0, 1, 1]).num_relevant.tolist() == []
