"""Pairs are checked whole, and what is wrong with them is named."""

from pathlib import Path

import numpy as np
import pytest

from regraft.errors import SampleError
from regraft.retrieval.pairs import Pairs, from_arrays, from_npy


def rows(num: int, dimension: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(num, dimension)).astype(np.float32)


def test_arrays_are_paired_row_by_row_and_made_float32():
    pairs = from_arrays(
        rows(4, 3).astype(np.float64), rows(4, 2), side=np.ones((4, 1), np.int8), labels=[0, 1, 2, 0]
    )
    assert pairs.dimensions == (3, 2, 1)
    assert pairs.old.dtype == pairs.new.dtype == np.float32
    assert pairs.side is not None
    assert pairs.side.dtype == np.float32
    assert pairs.ids == ["0", "1", "2", "3"]
    assert len(pairs) == 4


def test_no_pair_is_lost_or_doubled_by_a_split():
    pairs = from_arrays(rows(50), rows(50), labels=np.arange(50), side=rows(50))
    fit, held_out = pairs.split(0.2, seed=1)
    assert (len(fit), len(held_out)) == (40, 10)
    assert sorted(fit.ids + held_out.ids, key=int) == pairs.ids
    for part in (fit, held_out):
        chosen = [int(name) for name in part.ids]
        np.testing.assert_array_equal(part.new, pairs.new[chosen])
        np.testing.assert_array_equal(part.labels, chosen)
    again, _ = pairs.split(0.2, seed=1)
    other, _ = pairs.split(0.2, seed=2)
    assert again.ids == fit.ids != other.ids


def test_a_split_that_leaves_nothing_to_judge_on_is_refused():
    with pytest.raises(SampleError, match="leaves 1 to judge on and 9 to fit on"):
        from_arrays(rows(10), rows(10)).split(0.1, seed=0)


def test_the_fingerprint_knows_every_number():
    pairs = from_arrays(rows(5), rows(5))
    changed = pairs.new.copy()
    changed[3, 1] += 1e-6
    assert pairs.fingerprint == from_arrays(rows(5), rows(5)).fingerprint
    assert pairs.fingerprint != from_arrays(rows(5), changed).fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"new": rows(3)}, "Column 'new' has 3 rows, but there are 4 ids"),
        ({"side": rows(5)}, "Column 'side' has 5 rows"),
        ({"labels": [0, 1]}, "Column 'labels' has 2 rows"),
        ({"labels": [0, 1, -1, 0]}, "The label of row 2 .* is -1"),
        ({"labels": [0.5, 1, 1, 0]}, "expected one whole number a row"),
        ({"ids": ["a", "b", "a", "c"]}, "Rows 0 and 2 have the same id 'a'"),
        (
            {"old": np.where(np.arange(4)[:, None] == 2, np.nan, rows(4))},
            "Vector 'old' of row 2 .*not finite",
        ),
        ({"new": np.where(np.arange(4)[:, None] == 1, 0, rows(4))}, "Vector 'new' of row 1 .* is zero"),
        ({"old": [[1, 2], [3], [4, 5], [6, 7]]}, "'old' does not hold vectors of one length"),
        ({"old": np.ones(4)}, "Column 'old' has shape"),
        ({"old": np.ones((4, 0))}, "Column 'old' has shape"),
    ],
)
def test_what_is_wrong_is_named(changes: dict, message: str):
    with pytest.raises(SampleError, match=message):
        from_arrays(**({"old": rows(4), "new": rows(4)} | changes))


def test_one_pair_is_none():
    with pytest.raises(SampleError, match="There are 1 pairs"):
        Pairs(["a"], rows(1), rows(1))


def test_pairs_come_from_npy_files(tmp_path: Path):
    for name, array in {
        "old": rows(4),
        "new": rows(4, 2),
        "side": rows(4, 1),
        "labels": np.arange(4),
    }.items():
        np.save(tmp_path / f"{name}.npy", array)
    pairs = from_npy(
        tmp_path / "old.npy", tmp_path / "new.npy", side=tmp_path / "side.npy", labels=tmp_path / "labels.npy"
    )
    assert pairs.dimensions == (3, 2, 1)
    np.testing.assert_array_equal(pairs.new, rows(4, 2))


@pytest.mark.parametrize("content", [b"", b"no array"])
def test_a_file_that_is_no_array_is_named(tmp_path: Path, content: bytes):
    np.save(tmp_path / "old.npy", rows(4))
    (tmp_path / "new.npy").write_bytes(content)
    with pytest.raises(SampleError, match=r"new\.npy cannot be read as the array 'new'"):
        from_npy(tmp_path / "old.npy", tmp_path / "new.npy")
    with pytest.raises(SampleError, match="gone"):
        from_npy(tmp_path / "old.npy", tmp_path / "gone.npy")


def test_other_files_than_npy_are_named(tmp_path: Path):
    np.savez(tmp_path / "old.npz", rows(4))
    np.save(tmp_path / "new.npy", rows(4))
    with pytest.raises(SampleError, match=r"old\.npz cannot be read .* expected a \.npy file"):
        from_npy(tmp_path / "old.npz", tmp_path / "new.npy")


def test_npy_files_of_different_lengths_are_named(tmp_path: Path):
    np.save(tmp_path / "old.npy", rows(4))
    np.save(tmp_path / "new.npy", rows(3))
    with pytest.raises(SampleError, match=r"old\.npy has 4 rows, but .*new\.npy has 3"):
        from_npy(tmp_path / "old.npy", tmp_path / "new.npy")
