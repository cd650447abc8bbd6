import json
import math
from pathlib import Path

import pytest

from regraft.errors import RecipeError
from regraft.vision.range_policy import Range, RangePolicy

RANGES = (Range("brightness", 0.5, 2.0), Range("blur", 0.0, 1.5))
POLICY = RangePolicy(operations=RANGES, target_db=20.0)


@pytest.mark.parametrize("target_db", [1 / 3, None])
def test_a_file_keeps_every_number(tmp_path: Path, target_db: float | None) -> None:
    exact = RangePolicy(operations=(Range("gamma", 0.1 + 0.2, 1.7),), target_db=target_db, chance=0.25)
    exact.save(tmp_path / "policy.json")
    assert RangePolicy.load(tmp_path / "policy.json") == exact
    assert json.loads((tmp_path / "policy.json").read_text()) == exact.to_json()
    assert POLICY.to_json() == {
        "version": 1,
        "target_db": 20.0,
        "chance": 0.5,
        "operations": {"brightness": {"low": 0.5, "high": 2.0}, "blur": {"low": 0.0, "high": 1.5}},
    }


@pytest.mark.parametrize(
    ("operations", "settings", "words"),
    [
        ((Range("brihgtness", 0.5, 2.0),), {}, "no operation 'brihgtness'"),
        ((), {}, "expected one or more"),
        ((RANGES[0], RANGES[0]), {}, "each once"),
        ((Range("noise", 0.3, 0.1),), {}, "noise goes from 0.3 to 0.1"),
        ((Range("noise", -0.1, 0.1),), {}, "from -0.1"),
        ((Range("noise", 0.0, math.nan),), {}, "to nan"),
        ((Range("noise", 0.0, math.inf),), {}, "to inf"),
        (RANGES, {"chance": 1.5}, "chance is 1.5"),
        (RANGES, {"target_db": math.nan}, "target_db is nan"),
    ],
)
def test_bad_numbers_are_refused(
    operations: tuple[Range, ...], settings: dict[str, float], words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        RangePolicy(**{"operations": operations, "target_db": 20.0} | settings)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "version 2, expected 1"),
        ({"chance": "0.5"}, "'0.5' is not a number"),
        ({"target_db": True}, "True is not a number"),
        ({"operations": {"noise": {"low": 0.0}}}, "'high'"),
        ({"operations": ["noise"]}, "cannot be read"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(POLICY.to_json() | change))
    with pytest.raises(RecipeError, match=words):
        RangePolicy.load(path)


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_what_is_no_policy_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "policy.json").write_text(text)
    with pytest.raises(RecipeError, match="policy"):
        RangePolicy.load(tmp_path / "policy.json")
    with pytest.raises(RecipeError, match="cannot be read"):
        RangePolicy.load(tmp_path / "missing.json")
