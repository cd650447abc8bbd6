import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from table_toys import log_softmax

from regraft.errors import RecipeError, ShapeError, TableError
from regraft.tables.columns import TopK, column_from_json
from regraft.tables.topk_batch import TopKBatch


def answers(scale: float, num: int = 300, num_classes: int = 1000) -> np.ndarray:
    """Log-probabilities of a teacher, the surer the larger the scale."""
    rng = np.random.default_rng(int(scale * 100))
    return log_softmax(scale * rng.standard_normal((num, num_classes)))


def exact(log_probabilities: np.ndarray, k: int) -> TopKBatch:
    """The same lists without codes: the obvious way."""
    ids = np.argsort(-log_probabilities, axis=1, kind="stable")[:, :k]
    listed = np.exp(np.take_along_axis(log_probabilities, ids, axis=1))
    rest = np.maximum(0, 1 - listed.sum(axis=1))
    return TopKBatch(ids, listed, rest.astype(np.float32), log_probabilities.shape[1])


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p || q) of each row, in nats; classes that p says nothing of count nothing."""
    p, q = p.astype(np.float64), q.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * np.log(p / q), 0).sum(axis=1)


def test_the_bytes_of_a_record():
    records = TopK(2, 4).encode(np.log2([[0.125, 0.25, 0.125, 0.5]]) * np.log(2))
    # Classes 3 and 1; one and two halvings of 16 codes; 8 log2(1/3) = -12.7 below even odds.
    assert records.tobytes() == bytes([3, 0, 1, 0, 16, 32, 128 - 13])
    assert records.dtype.itemsize == 7


def test_ten_of_a_thousand_take_31_bytes():
    assert TopK(10, 1000).dtype.itemsize == 31
    assert column_from_json(TopK(10, 1000).to_json()) == TopK(10, 1000)


@given(
    arrays.arrays(np.float64, st.tuples(st.integers(0, 5), st.just(9)), elements=st.integers(-3, 3)),
    st.integers(1, 9),
)
def test_equals_are_listed_by_their_ids(logits: np.ndarray, k: int):
    values = log_softmax(logits)
    ids = TopK(k, 9).encode(values)["ids"]
    np.testing.assert_array_equal(ids, np.argsort(-values, axis=1, kind="stable")[:, :k])


@given(st.randoms(use_true_random=False))
def test_lists_made_elsewhere_give_the_same_bytes(chance):
    column, values = TopK(5, 30), answers(1.5, 8, 30)
    values[:, 7] = values[:, 3]
    values = log_softmax(values)
    records = column.encode(values)
    order = chance.sample(range(5), 5)
    ids = records["ids"][:, order].astype(np.int32)
    assert column.encode_listed(ids, np.take_along_axis(values, ids, axis=1)).tobytes() == records.tobytes()


def outcomes(batch: TopKBatch, has_rest: np.ndarray) -> np.ndarray:
    """The listed classes and the rest as one more, which is left out where there is none."""
    every = np.column_stack([batch.probabilities, batch.rest * has_rest]).astype(np.float64)
    return every / every.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0, 4.0, 8.0, 20.0])
@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_codes_cost_less_than_a_thousandth_of_a_nat(scale: float, k: int):
    values = answers(scale)
    plain, decoded = exact(values, k), TopK(k, 1000).decode(TopK(k, 1000).encode(values))
    some = decoded.rest > 0
    assert divergence(outcomes(plain, some), outcomes(decoded, some)).max() < 1e-3
    assert plain.rest[~some].max(initial=0) < 2**-15.8
    full = np.exp(values[some])
    added = divergence(full, decoded.dense()[some]) - divergence(full, plain.dense()[some])
    assert np.abs(added).max(initial=0) < 1e-3


def test_coarser_codes_would_cost_more():
    values, column = answers(2.0), TopK(10, 1000)
    records = column.encode(values)
    records["code"] = records["code"] // 8 * 8 + 4
    assert divergence(exact(values, 10).dense(), column.decode(records).dense()).max() > 1e-3


@given(arrays.arrays(np.uint8, (6, 13)))
def test_any_record_decodes_to_a_distribution(data: np.ndarray):
    batch = TopK(4, 1000).decode(data.reshape(-1).view(TopK(4, 1000).dtype))
    assert (batch.ids.dtype, batch.probabilities.dtype, batch.rest.dtype) == (
        np.int64,
        np.float32,
        np.float32,
    )
    np.testing.assert_allclose(batch.probabilities.sum(axis=1, dtype=np.float64) + batch.rest, 1, atol=3e-7)
    assert (batch.probabilities > 0).all()
    assert ((batch.rest > 0) == (data[:, -1] > 0)).all()


def test_a_rest_is_kept_to_a_twentieth():
    values = answers(2.0)
    for k in (1, 3, 10, 30, 300):
        rest = TopK(k, 1000).decode(TopK(k, 1000).encode(values)).rest
        np.testing.assert_allclose(rest, exact(values, k).rest, rtol=0.05)


def test_there_is_no_rest_where_nothing_is_left():
    column = TopK(3, 3)
    assert (column.encode(answers(1.0, 5, 3))["rest"] == 0).all()
    sure = np.full((1, 5), -np.inf, np.float32)
    sure[0, 3] = 0
    batch = TopK(2, 5).decode(TopK(2, 5).encode(sure))
    assert (batch.ids[0].tolist(), batch.rest[0]) == ([3, 0], 0)
    assert batch.probabilities[0, 0] > 0.9999


def test_a_list_of_impossible_classes_leaves_everything_to_the_rest():
    records = TopK(2, 5).encode_listed(np.array([[0, 1]]), np.full((1, 2), -np.inf))
    assert records["rest"][0] == 255
    assert TopK(2, 5).decode(records).rest[0] > 0.9999


@pytest.mark.parametrize("temperature", [0.02, 0.5, 1.0, 2.0, 7.5, 1000.0])
@pytest.mark.parametrize("k", [1, 4, 12])
def test_temperature_is_that_of_the_dense_distribution(temperature: float, k: int):
    batch = TopK(k, 12).decode(TopK(k, 12).encode(answers(3.0, 50, 12)))
    power = batch.dense().astype(np.float64) ** (1 / temperature)
    tempered = batch.tempered(temperature)
    np.testing.assert_allclose(
        tempered.dense(), power / power.sum(axis=1, keepdims=True), rtol=2e-5, atol=1e-30
    )
    np.testing.assert_allclose(tempered.probabilities.sum(axis=1) + tempered.rest, 1, atol=1e-6)


def test_a_cold_temperature_leaves_the_most_probable():
    batch = TopK(4, 1000).decode(TopK(4, 1000).encode(answers(0.1, 20))).tempered(1e-4)
    assert np.isfinite(batch.dense()).all()
    assert (batch.probabilities[:, 0] > 0.2).all()


def test_lists_may_be_long():
    column = TopK(300, 65_536)
    values = answers(2.0, 3, 65_536)
    np.testing.assert_array_equal(column.decode(column.encode(values)).ids, exact(values, 300).ids)


@pytest.mark.parametrize(("k", "num_classes"), [(0, 5), (6, 5), (1, 65_537), (0, 0)])
def test_sizes_out_of_range_are_refused(k: int, num_classes: int):
    with pytest.raises(RecipeError, match="expected 1 to"):
        TopK(k, num_classes)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperatures_out_of_range_are_refused(temperature: float):
    batch = TopK(1, 2).decode(TopK(1, 2).encode(answers(1.0, 1, 2)))
    with pytest.raises(RecipeError, match="expected a number above 0"):
        batch.tempered(temperature)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_log_probability_is_refused(value: float):
    values = answers(1.0, 4, 6)
    values[2, 5] = value
    with pytest.raises(TableError, match=f"Log-probability 5 of row 2 is {value}"):
        TopK(2, 6).encode(values)


@pytest.mark.parametrize("wrong", [np.exp, lambda values: 90 + values, lambda values: values - 0.01])
def test_what_does_not_add_up_is_refused(wrong):
    with pytest.raises(TableError, match=r"row 0 add up to .*, expected 1\.\n  hint: Pass log-prob"):
        TopK(2, 6).encode(wrong(answers(1.0, 4, 6)))


def test_lists_that_add_up_to_too_much_are_refused():
    column, ids = TopK(2, 6), np.array([[0, 1], [2, 3]])
    with pytest.raises(TableError, match=r"row 1 add up to 1\.2, expected at most 1"):
        column.encode_listed(ids, np.log([[0.5, 0.2], [0.7, 0.5]]))
    with pytest.raises(TableError, match=r"row 0 add up to 0\.7, expected 1"):
        TopK(2, 2).encode_listed(np.array([[0, 1]]), np.log([[0.5, 0.2]]))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, 6], "Row 0 lists class 6, expected 0 to 5"),
        ([-1, 2], "lists class -1"),
        ([2, 2], "lists class 2 twice"),
    ],
)
def test_ids_that_are_no_list_of_classes_are_refused(ids: list[int], message: str):
    with pytest.raises(TableError, match=message):
        TopK(2, 6).encode_listed(np.array([ids]), np.log([[0.5, 0.2]]))


def test_other_sizes_are_refused():
    with pytest.raises(ShapeError, match=r"shape \(4, 6\), expected \(n, 7\)"):
        TopK(2, 7).encode(answers(1.0, 4, 6))
    with pytest.raises(ShapeError, match=r"shape \(1, 3\), expected \(n, 2\)"):
        TopK(2, 7).encode_listed(np.array([[0, 1, 2]]), np.log([[0.5, 0.2, 0.1]]))
    with pytest.raises(ShapeError, match="expected those of TopK"):
        TopK(2, 7).decode(TopK(3, 6).encode(answers(1.0, 4, 6)))
