from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.data.sample import content_id, number_copies, path_id, without_copy_number


def test_content_ids_are_the_same_on_every_machine():
    assert content_id(b"regraft") == "ab3e1f6f390d38555a4a816fb4d3ec34"
    assert content_id(b"regraft") != content_id(b"regraft ")


def test_path_ids_are_relative_to_the_root():
    assert path_id(Path("pictures/cat/a.jpg"), Path("pictures")) == "cat/a.jpg"
    with pytest.raises(ValueError, match="subpath"):
        path_id(Path("elsewhere/a.jpg"), Path("pictures"))


def test_copies_are_numbered_from_two():
    assert number_copies(["a", "b", "a", "a"]) == ("a", "b", "a#2", "a#3")


@given(st.lists(st.sampled_from(["a", "a#2", "a#3", "b"])))
def test_numbered_ids_are_all_different(ids: list[str]):
    assert len(set(number_copies(ids))) == len(ids)


def test_copies_share_a_name():
    assert [without_copy_number(name) for name in ("a", "a#2", "b#x", "c#2/d.png")] == [
        "a",
        "a",
        "b#x",
        "c#2/d.png",
    ]
