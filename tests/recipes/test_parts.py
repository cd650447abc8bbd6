from pathlib import Path

import pytest

from regraft.errors import SampleError
from regraft.recipes.parts import load_parts, paths, save_parts, split
from regraft.vision.data import ImageSet


def picture_set(folder: Path, num_each: int) -> ImageSet:
    """Files of two classes. They are told apart by their bytes, and none is decoded."""
    files = [folder / f"{label}-{number}" for label in "ab" for number in range(num_each)]
    for file in files:
        file.write_bytes(file.name.encode())
    labels = tuple("ab".index(file.name[0]) for file in files)
    return ImageSet(tuple(file.name for file in files), tuple(files), labels, ("a", "b"))


def test_parts_are_disjoint_and_whole(tmp_path: Path) -> None:
    samples = picture_set(tmp_path, 100)
    parts = split(samples)
    files = [file for part in (parts.train, parts.gallery, parts.queries) for file in paths(part)]
    assert sorted(files) == sorted(paths(samples))
    assert parts.sizes["train"] == pytest.approx(160, abs=20)
    assert parts.sizes["queries"] == pytest.approx(10, abs=8)
    assert paths(parts.unseen) == paths(parts.gallery) + paths(parts.queries)


def test_copies_stay_together_whatever_their_names(tmp_path: Path) -> None:
    samples = picture_set(tmp_path, 50)
    for file in paths(samples)[1:50:2]:
        file.write_bytes(file.with_name(f"a-{int(file.name[2:]) - 1}").read_bytes())
    parts = split(samples)
    contents = [
        {file.read_bytes() for file in paths(part)} for part in (parts.train, parts.gallery, parts.queries)
    ]
    assert not contents[0] & contents[1]
    assert not contents[0] & contents[2]
    assert not contents[1] & contents[2]


def test_parts_survive_the_disk(tmp_path: Path) -> None:
    parts = split(picture_set(tmp_path, 20))
    save_parts(tmp_path / "split.json", parts)
    assert load_parts(tmp_path / "split.json").sizes == parts.sizes
    again = load_parts(tmp_path / "split.json").unseen
    assert (again.ids, again.labels, again.classes) == (
        parts.unseen.ids, parts.unseen.labels, parts.unseen.classes
    )  # fmt: skip


def test_too_few_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="too few for training"):
        split(picture_set(tmp_path, 1))
