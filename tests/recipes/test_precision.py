import pytest

from regraft.recipes.precision import Labelled, measure_precision, surest_mistakes, typical


def answer(query: str, label: int, *hit_labels: int, score: float = 0.9) -> Labelled:
    scores = tuple(score - 0.1 * place for place in range(len(hit_labels)))
    return Labelled(
        query, label, tuple(f"hit{place}" for place in range(len(hit_labels))), hit_labels, scores
    )


def test_precision_counts_the_first_hits() -> None:
    mixed = answer("a", 1, 1, 0, 1, 0, 0)
    assert mixed.is_right
    assert [mixed.precision(k) for k in (1, 2, 5, 9)] == [1, 0.5, 0.4, 0.4]


def test_the_mean_stands_beside_chance() -> None:
    found = measure_precision([answer("a", 0, 0, 0), answer("b", 1, 0, 1)], gallery_labels=[0, 0, 0, 1])
    assert (found.num_queries, found.at_1, found.at_5) == (2, 0.5, 0.75)
    assert found.chance == pytest.approx((3 / 4 + 1 / 4) / 2)


def test_examples_are_chosen_by_rule_whatever_the_order() -> None:
    answers = [
        answer("c", 0, 0),
        answer("b", 0, 0),
        answer("a", 0, 1, score=0.5),
        answer("d", 1, 1),
        answer("e", 1, 0, score=0.8),
        answer("f", 2, 2),
    ]
    for given in (answers, answers[::-1]):
        assert [right.query for right in typical(given, 5)] == ["b", "d", "f"]
        assert [right.query for right in typical(given, 2)] == ["b", "d"]
        assert [wrong.query for wrong in surest_mistakes(given, 5)] == ["e", "a"]
        assert [wrong.query for wrong in surest_mistakes(given, 1)] == ["e"]
