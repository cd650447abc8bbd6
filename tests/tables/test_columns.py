import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from regraft.errors import RecipeError, ShapeError, TableError
from regraft.tables.columns import Bytes, Vector, column_from_json


@given(arrays.arrays(np.float32, (3, 4), elements=st.floats(-60000, 60000, width=32)))
def test_vectors_come_back(values: np.ndarray):
    np.testing.assert_array_equal(Vector(4).decode(Vector(4).encode(values)), values)
    halves = Vector(4, "<f2")
    np.testing.assert_array_equal(halves.decode(halves.encode(values)), values.astype(np.float16))


@given(arrays.arrays(np.int8, (3, 4)))
def test_whole_numbers_come_back(values: np.ndarray):
    column = Vector(4, "|i1")
    np.testing.assert_array_equal(column.decode(column.encode(values)), values)


@given(arrays.arrays(np.uint8, (3, 7)))
def test_bytes_come_back(values: np.ndarray):
    np.testing.assert_array_equal(Bytes(7).decode(Bytes(7).encode(values)), values)


@pytest.mark.parametrize(
    ("column", "width"), [(Vector(3), 12), (Vector(3, "<f2"), 6), (Vector(3, "|i1"), 3), (Bytes(9), 9)]
)
def test_records_have_a_width(column: Vector | Bytes, width: int):
    assert column.dtype.itemsize == width
    assert column_from_json(column.to_json()) == column


def test_big_endian_vectors_become_little():
    assert Vector(2).encode(np.array([[1, 2]], ">f4")).tobytes() == np.array([1, 2], "<f4").tobytes()


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        (Vector(2), [[1.0, np.nan]], "Row 0 holds nan"),
        (Vector(2), [[1.0, 2.0], [np.inf, 0.0]], "Row 1 holds inf"),
        (Vector(2, "<f2"), [[1.0, 70000.0]], "holds 70000.0, expected numbers that float16 can hold"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(column: Vector, values: list[list[float]], message: str):
    with pytest.raises(TableError, match=message):
        column.encode(np.array(values))


def test_other_shapes_and_kinds_are_refused():
    with pytest.raises(ShapeError, match=r"shape \(1, 3\), expected those of Vector\(width=2"):
        Vector(2).encode(np.zeros((1, 3)))
    with pytest.raises(ShapeError, match="vectors are float64, expected int8"):
        Vector(2, "|i1").encode(np.zeros((1, 2)))
    with pytest.raises(ShapeError, match="vectors are int64, expected int8"):
        Vector(2, "|i1").encode(np.zeros((1, 2), np.int64))
    with pytest.raises(ShapeError, match="expected those of Bytes"):
        Bytes(2).decode(np.zeros((1, 3), np.uint8))


def test_columns_without_width_are_refused():
    for column in (Vector, Bytes):
        with pytest.raises(RecipeError, match="width is 0, expected at least 1"):
            column(0)
