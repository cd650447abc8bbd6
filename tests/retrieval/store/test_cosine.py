import numpy as np

from regraft.retrieval.store.cosine import best, cosines


def test_equal_vectors_score_equally_wherever_they_stand() -> None:
    """In float32 this fails: a matrix product rounds differently at the edges of its blocks."""
    draw = np.random.default_rng(0)
    queries = draw.standard_normal((7, 133)).astype(np.float32)
    vectors = np.tile(draw.standard_normal((1, 133)).astype(np.float32), (1001, 1))
    scores = cosines(queries, vectors)
    assert (scores == scores[:, :1]).all()
    np.testing.assert_array_equal(cosines(queries[3:4], vectors[:1])[0, 0], scores[3, 0])


def test_extreme_lengths_do_not_matter() -> None:
    vectors = np.float32([[3e14, 4e14], [3e-15, 4e-15]])
    scores = cosines(np.float32([[1, 0]]), vectors)
    np.testing.assert_allclose(
        scores, [[0.6, 0.6]], rtol=2e-7
    )  # the inputs themselves are rounded to float32


def test_best_agrees_with_a_full_sort() -> None:
    draw = np.random.default_rng(0)
    for num_rows in (0, 1, 5, 200):
        scores = draw.integers(0, 6, num_rows).astype(np.float32)
        ids = [f"{number}" for number in draw.permutation(num_rows)]
        wanted = sorted(zip(ids, scores, strict=True), key=lambda pair: (-pair[1], pair[0]))
        for k in (1, 4, 300):
            found, found_scores = best(ids, scores, k)
            assert list(zip(found, found_scores, strict=True)) == wanted[:k]
