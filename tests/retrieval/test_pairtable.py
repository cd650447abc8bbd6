"""Pairs are columns of a table, whatever it is stored as."""

from collections.abc import Callable
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from regraft.errors import SampleError
from regraft.retrieval.pairtable import from_table

OLD = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
NEW = OLD[:, :2] * 2


def table(**changes: object) -> pa.Table:
    columns = {
        "name": ["a", "b", "c", "d"],
        "old": OLD.tolist(),
        "new": pa.FixedSizeListArray.from_arrays(NEW.flatten(), 2),
        "kind": ["dog", "cat", "dog", "ant"],
    }
    return pa.table(columns | changes)


def in_lance(path: Path) -> None:
    lancedb.connect(path.parent).create_table(path.stem, table())


WRITERS: dict[str, Callable[[Path], object]] = {
    ".parquet": lambda path: pyarrow.parquet.write_table(table(), path, row_group_size=3),
    ".feather": lambda path: pyarrow.feather.write_feather(table(), path),
    ".arrow": lambda path: pyarrow.feather.write_feather(table(), path),
    ".lance": in_lance,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_kind_of_table_gives_the_same_pairs(suffix: str, tmp_path: Path):
    path = tmp_path / f"pairs{suffix}"
    WRITERS[suffix](path)
    pairs = from_table(path, ids="name", labels="kind")
    assert pairs.ids == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(pairs.old, OLD)
    np.testing.assert_array_equal(pairs.new, NEW)
    np.testing.assert_array_equal(pairs.labels, [2, 1, 2, 0])


def test_a_table_in_memory_may_name_its_columns_as_it_likes():
    named = table().rename_columns(["name", "v1", "v2", "kind"])
    pairs = from_table(named, old="v1", new="v2", side="v1")
    assert pairs.dimensions == (3, 2, 3)
    assert pairs.ids == ["0", "1", "2", "3"]


def test_labels_that_are_numbers_stay_what_they_are():
    pairs = from_table(table(kind=[7, 3, 3, 0]), labels="kind")
    np.testing.assert_array_equal(pairs.labels, [7, 3, 3, 0])


@pytest.mark.parametrize(
    ("changes", "wanted", "message"),
    [
        ({}, {"old": "olt"}, "the table has no column 'olt'; it has name, old, new, kind"),
        ({"old": [[1.0, 2.0], None, [3.0, 4.0], [5.0, 6.0]]}, {}, "lacks 1 values, the first in row 1"),
        (
            {"old": [[1.0, 2.0], [3.0, 4.0], [3.0], [5.0, 6.0]]},
            {},
            "'old' of row 2 has 1 numbers, but that of row 0 has 2",
        ),
        ({}, {"old": "name"}, "Column 'name' holds string, expected lists of numbers"),
        ({"old": [["x"], ["y"], ["z"], ["w"]]}, {}, "'old' does not hold vectors"),
    ],
)
def test_what_is_wrong_is_named(changes: dict, wanted: dict, message: str):
    with pytest.raises(SampleError, match=message):
        from_table(table(**changes), **wanted)


def test_a_path_that_is_no_table_is_named(tmp_path: Path):
    (tmp_path / "broken.parquet").write_bytes(b"no table")
    with pytest.raises(SampleError, match=r"broken\.parquet cannot be read as a table: .*[^.]\.$"):
        from_table(tmp_path / "broken.parquet")
    with pytest.raises(SampleError, match="There is no table"):
        from_table(tmp_path / "gone.parquet")
    with pytest.raises(SampleError, match=r"is not a table, expected one of \.parquet"):
        from_table(tmp_path / "pairs.csv")
