import io
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as tv

from regraft.errors import RecipeError, SampleError
from regraft.vision import data
from regraft.vision.data import (
    ImageSet,
    from_dataset,
    from_folder,
    from_manifest,
    with_content_ids,
)
from regraft.vision.images import BadImage


def picture(seed: int, size: tuple[int, int] = (6, 4)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8))


def save(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed).save(path)
    return path


def test_a_folder_a_class(tmp_path: Path):
    for name in ("cat/a.png", "cat/sub/deep/b.PNG", "ant/c.jpg", "cat/c.jpg"):
        save(tmp_path / name)
    samples = from_folder(tmp_path)
    assert samples.classes == ("ant", "cat")
    assert samples.ids == ("ant/c.jpg", "cat/a.png", "cat/c.jpg", "cat/sub/deep/b.PNG")
    assert samples.labels == (0, 1, 1, 1)
    assert samples.notes == ()
    np.testing.assert_array_equal(np.asarray(samples.read(1).image), np.asarray(picture(0)))


def test_what_is_no_sample_is_counted(tmp_path: Path):
    save(tmp_path / "cat/a.png")
    save(tmp_path / "cat/.trash/b.png")
    save(tmp_path / "cat/.hidden.png")
    save(tmp_path / "beside.png")
    (tmp_path / ".git").mkdir()
    (tmp_path / "dog").mkdir()
    (tmp_path / "cat/Thumbs.DB").touch()
    (tmp_path / "cat/photo.heic").touch()
    (tmp_path / "cat/README").touch()
    samples = from_folder(tmp_path)
    assert samples.ids == ("cat/a.png",)
    assert samples.classes == ("cat", "dog")
    assert samples.notes == (
        "class 'dog' has no images",
        "not read: 1 files ending in .db",
        "not read: 1 files ending in .heic",
        "not read: 1 files without an ending",
        "not read: 2 hidden files",
        "not read: 1 pictures beside the class folders",
    )


def test_circles_of_links_end(tmp_path: Path):
    save(tmp_path / "cat/a.png")
    (tmp_path / "cat/again").symlink_to(tmp_path / "cat", target_is_directory=True)
    (tmp_path / "dog").symlink_to(tmp_path / "cat", target_is_directory=True)
    assert from_folder(tmp_path).ids == ("cat/a.png", "dog/a.png")


def test_folders_without_classes_or_pictures_are_refused(tmp_path: Path):
    with pytest.raises(SampleError, match="is not a folder"):
        from_folder(tmp_path / "nowhere")
    save(tmp_path / "a.png")
    with pytest.raises(SampleError, match="no class folders; 1 pictures lie directly in it"):
        from_folder(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(SampleError, match="hold no pictures"):
        from_folder(tmp_path)


def manifest(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_manifest_names_its_samples(tmp_path: Path):
    save(tmp_path / "x/a.png", 1)
    text = "\ufefflabel, path,note\ndog,x/a.png,good\ncat,x/b.png,missing\ndog,x/a.png,again\n"
    samples = from_manifest(manifest(tmp_path / "list.csv", text))
    assert samples.ids == ("x/a.png", "x/b.png", "x/a.png#2")
    assert samples.classes == ("cat", "dog")
    assert samples.labels == (1, 0, 1)
    assert samples.read(0).image.size == (6, 4)
    with pytest.raises(BadImage, match=r"b\.png: missing file"):
        samples.read(1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column path and no column label; it has none"),
        ("file,label\na,b\n", "has no column path; it has file, label"),
        ("path,label\n", "lists no pictures"),
        ("path,label\na.png,cat\nb.png,\n", "line 3: expected a path and a label"),
        ("path,label\na.png\n", "line 2: expected a path and a label"),
        ("path,label\na.png,cat\na.png,dog\n", "gives a.png two labels, 'cat' and 'dog'"),
    ],
)
def test_broken_manifests_are_refused(tmp_path: Path, text: str, message: str):
    with pytest.raises(SampleError, match=message):
        from_manifest(manifest(tmp_path / "list.csv", text))


def test_a_missing_manifest_is_refused(tmp_path: Path):
    with pytest.raises(SampleError, match="is not a file"):
        from_manifest(tmp_path / "list.csv")


class Pairs(Dataset[tuple[object, object]]):
    """A dataset as torchvision's are."""

    def __init__(self, items: list[tuple[object, object]]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[object, object]:
        return self.items[index]


class NamedPairs(Pairs):
    classes = ("cat", "dog")


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def test_a_dataset_of_any_kind_of_picture():
    image = picture(0)
    kinds = [
        image,
        np.asarray(image),
        tv.pil_to_tensor(image),
        tv.to_dtype(tv.pil_to_tensor(image), torch.float32, scale=True),
        np.asarray(image) / 255,
        np.asarray(image).astype(np.int64),
    ]
    samples = from_dataset(NamedPairs([(kind, 1) for kind in kinds]))
    assert samples.classes == ("cat", "dog")
    assert samples.labels == (1,) * 6
    # The same picture and label, so copies of one sample.
    assert [name.partition("#")[2] for name in samples.ids] == ["", "2", "3", "4", "5", "6"]
    for index in range(6):
        np.testing.assert_array_equal(np.asarray(samples.read(index).image), np.asarray(image))


def test_grey_pictures_of_a_dataset():
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for grey in (values, values[:, :, None], torch.from_numpy(values), torch.from_numpy(values)[None]):
        read = np.asarray(from_dataset([(grey, 0)]).read(0).image)
        np.testing.assert_array_equal(read, np.repeat(values[:, :, None], 3, axis=2))
    deep = (values.astype(np.uint16) * 257, torch.from_numpy(values.astype(np.int32)))
    for grey in deep:
        np.testing.assert_array_equal(np.asarray(from_dataset([(grey, 0)]).read(0).image)[:, :, 0], values)


@pytest.mark.parametrize(
    "values", [torch.full((3, 4, 4), -0.5), torch.full((3, 4, 4), float("nan")), np.full((4, 4), 300)]
)
def test_pictures_out_of_range_are_refused(values: object):
    with pytest.raises(SampleError, match="has values from"):
        from_dataset([(values, 0)])
    with pytest.raises(SampleError, match="has the shape"):
        from_dataset([(torch.zeros(2, 4, 4), 0)])


class ClassLabel:
    names = ["cat", "dog"]


class Columns(list[dict[str, object]]):
    """A dataset as Hugging Face's are."""

    features = {"label": ClassLabel()}


def test_a_dataset_of_dictionaries(tmp_path: Path):
    path = save(tmp_path / "a.png", 1)
    rows = Columns(
        [{"image": picture(0), "label": 0}, {"image": {"bytes": None, "path": str(path)}, "label": 1}]
    )
    rows.append({"image": {"bytes": png(picture(2)), "path": "b.png"}, "label": 1})
    samples = from_dataset(rows)
    assert samples.classes == ("cat", "dog")
    assert samples.labels == (0, 1, 1)
    for index in range(3):
        np.testing.assert_array_equal(np.asarray(samples.read(index).image), np.asarray(picture(index)))
    renamed = [{"img": picture(0), "fine_label": "fox"}]
    assert from_dataset(renamed, image_key="img", label_key="fine_label").classes == ("fox",)
    with pytest.raises(SampleError, match="has no image and no label; it has img, fine_label"):
        from_dataset(renamed)


def test_content_ids_do_not_depend_on_order():
    items: list[tuple[object, object]] = [(picture(i), i % 2) for i in range(5)]
    ids = from_dataset(NamedPairs(items)).ids
    assert from_dataset(NamedPairs(items[::-1])).ids == ids[::-1]
    other_label = from_dataset(NamedPairs([(picture(0), 1)])).ids
    assert other_label[0] not in ids


def test_labels_without_names_are_the_classes():
    assert from_dataset(
        [(picture(0), 7), (picture(1), np.int64(3)), (picture(2), torch.tensor(7))]
    ).classes == ("3", "7")
    assert from_dataset([(picture(0), "b"), (picture(1), "a")]).labels == (1, 0)
    for labels, message in (
        ([1, "a"], "expected one kind"),
        ([[1, 2]], "expected one class"),
        ([5], "none of"),
    ):
        items: list[tuple[object, object]] = [(picture(i), label) for i, label in enumerate(labels)]
        with pytest.raises(SampleError, match=message):
            from_dataset((NamedPairs if labels == [5] else Pairs)(items))


def test_unusable_datasets_are_refused():
    for dataset in (iter([]), [], 3):
        with pytest.raises(SampleError, match="is empty or a stream"):
            from_dataset(dataset)
    with pytest.raises(SampleError, match="is a str, expected"):
        from_dataset(["a"])
    with pytest.raises(SampleError, match="is a float, expected a PIL image"):
        from_dataset([(1.5, 0)])


class Files(Pairs):
    """Opens its pictures when asked, so that a damaged one raises in the middle of the dataset."""

    def __getitem__(self, index: int) -> tuple[object, object]:
        data, label = self.items[index]
        return Image.open(io.BytesIO(data)).convert("RGB"), label


def test_items_a_dataset_cannot_read_are_named():
    items: list[tuple[object, object]] = [(png(picture(i)), 0) for i in range(20)]
    items[3] = (b"no picture", 0)
    samples = from_dataset(Files(items))
    assert len(samples) == 19
    assert "1 of 20 items" in samples.notes[0]
    assert "item 3: damaged" in samples.notes[0]
    with pytest.raises(SampleError, match=r"1 of 20 items.*More than 1% is too much"):
        from_dataset(Files(items), max_bad_share=0.01)


def test_empty_and_missing_pictures_of_a_dataset_are_counted(tmp_path: Path):
    cases: list[tuple[object, str]] = [
        ({"bytes": b"", "path": None}, "empty file"),
        ({"bytes": b"", "path": str(save(tmp_path / "a.png"))}, "empty file"),
        ({"bytes": None, "path": str(tmp_path / "gone.png")}, "missing file"),
        ({"bytes": None, "path": str(tmp_path)}, "unreadable file"),
    ]
    for bad, defect in cases:
        rows = Columns({"image": {"bytes": png(picture(i)), "path": None}, "label": 0} for i in range(19))
        rows.insert(3, {"image": bad, "label": 1})
        samples = from_dataset(rows)
        assert len(samples) == 19
        assert "1 of 20 items" in samples.notes[0]
        assert defect in samples.notes[0]
        with pytest.raises(SampleError, match=r"1 of 20 items.*More than 1% is too much"):
            from_dataset(rows, max_bad_share=0.01)


def numbered(num_classes: int, num_each: int) -> ImageSet:
    names = [(f"class{label}/{i}.png", label) for label in range(num_classes) for i in range(num_each)]
    ids, labels = zip(*names, strict=True)
    return ImageSet(ids, tuple(map(Path, ids)), labels, tuple(f"class{i}" for i in range(num_classes)))


def test_a_split_holds_out_its_share():
    samples = numbered(5, 400)
    kept, held_out = samples.split(0.25, seed=0)
    assert sorted(kept.ids + held_out.ids) == sorted(samples.ids)
    # 2,000 draws at 0.25 have a deviation of 19.
    assert abs(len(held_out) - 500) < 100
    assert samples.split(0.25, seed=0) == (kept, held_out)
    assert samples.split(0.25, seed=1)[1].ids != held_out.ids


def test_a_split_is_stable_when_samples_are_added():
    before = set(numbered(5, 100).split(0.2, seed=0)[1].ids)
    after = set(numbered(5, 200).split(0.2, seed=0)[1].ids)
    assert before <= after
    backwards = numbered(5, 100).take(range(499, -1, -1)).split(0.2, seed=0)[1].ids
    assert set(backwards) == before


def test_no_class_vanishes_in_a_split():
    for fraction in (0.01, 0.99):
        kept, held_out = numbered(20, 2).split(fraction, seed=0)
        assert set(kept.labels) == set(held_out.labels) == set(range(20))
        assert kept.notes == held_out.notes == ()
    kept, held_out = numbered(2, 1).split(0.5, seed=0)
    assert len(kept) == 2
    assert held_out.notes == tuple(f"class 'class{i}' has no image in the held-out part" for i in range(2))


def test_copies_stay_together_in_a_split():
    items: list[tuple[object, object]] = [(picture(i // 3), 0) for i in range(60)]
    kept, held_out = from_dataset(Pairs(items)).split(0.5, seed=0)
    assert len(kept) % 3 == len(held_out) % 3 == 0
    assert len(held_out) > 0


def doubled(root: Path) -> ImageSet:
    """Every picture is there again under another name."""
    for number in range(40):
        for name in ("b", "a-copy-of-b"):
            save(root / f"{number % 2}/{name}{number}.png", number)
    return from_folder(root)


def contents(samples: ImageSet) -> set[bytes]:
    return {Path(str(source)).read_bytes() for source in samples.sources}


def test_copied_files_with_content_ids_stay_together(tmp_path: Path):
    samples = doubled(tmp_path)
    kept, held_out = with_content_ids(samples).split(0.3, seed=0)
    assert not contents(kept) & contents(held_out)
    assert len(contents(kept) | contents(held_out)) == 40
    # By their ids, which are paths, they are torn apart.
    assert len(set.intersection(*map(contents, samples.split(0.3, seed=0)))) > 5
    assert set(kept.labels) == set(held_out.labels) == {0, 1}


def test_a_file_that_cannot_be_read_is_split_by_its_id(tmp_path: Path):
    samples = doubled(tmp_path)
    for source in samples.sources[:2]:
        Path(str(source)).unlink()
    named = with_content_ids(samples)
    assert named.ids[:2] == samples.ids[:2]
    assert not set(named.ids[2:]) & set(samples.ids)
    assert sum(map(len, named.split(0.3, seed=0))) == 80


def test_pictures_of_every_kind_are_named_by_content(tmp_path: Path):
    path = save(tmp_path / "a.png", 1)
    sources = (path, path.read_bytes(), str(path), picture(2), picture(2), picture(3))
    samples = ImageSet(tuple("abcdef"), sources, (0,) * 6, ("cat",))
    first, *others = with_content_ids(samples).ids
    assert others[:2] == [f"{first}#2", f"{first}#3"]
    assert others[3] == f"{others[2]}#2"
    assert "#" not in others[4]
    rows = from_dataset([(picture(2), "cat"), (picture(2), "dog"), (picture(3), "dog")])
    assert with_content_ids(rows).ids == (others[2], others[3], others[4])


def test_copies_in_several_classes_stay_together():
    # Class 0 is on one side by chance now and then, and all its names are those of class 1 as well.
    names = [(f"{i}", 0) for i in range(2)] + [(f"{i}#2", 1) for i in range(4)] + [("0#3", 2)]
    ids, labels = zip(*names, strict=True)
    samples = ImageSet(ids, (Path("a.png"),) * 7, labels, ("a", "b", "c"))
    for seed in range(60):
        kept, held_out = ({name.partition("#")[0] for name in part.ids} for part in samples.split(0.2, seed))
        assert not kept & held_out
        assert held_out


def test_folders_are_gone_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for number in range(40):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}/a.png").touch()
    num_added = 0

    class CountingSet(set[object]):
        def __init__(self, items: Iterable[object] = ()) -> None:
            nonlocal num_added
            super().__init__(items)
            num_added += len(self)

    monkeypatch.setattr(data, "set", CountingSet, raising=False)
    assert len(from_folder(tmp_path)) == 40
    # A few passes over 40 samples. One for each of 40 classes would be 1,600.
    assert 40 <= num_added < 400


def test_sets_that_do_not_add_up_are_refused():
    path = Path("a.png")
    with pytest.raises(SampleError, match="2 ids, 1 sources and 1 labels"):
        ImageSet(("a", "b"), (path,), (0,), ("cat",))
    with pytest.raises(SampleError, match="2 samples have the id 'a'"):
        ImageSet(("a", "a"), (path, path), (0, 0), ("cat",))
    with pytest.raises(SampleError, match="Labels run from 0 to 1, expected 0 to 0"):
        ImageSet(("a", "b"), (path, path), (0, 1), ("cat",))
    with pytest.raises(RecipeError, match="fraction is 1"):
        numbered(2, 2).split(1.0, seed=0)


def test_worker_processes_need_no_torch():
    code = "import regraft.vision.inspection, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
