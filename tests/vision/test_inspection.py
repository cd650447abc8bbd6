import io
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from regraft.data.stream import Order
from regraft.errors import RecipeError, SampleError
from regraft.vision import inspection
from regraft.vision.batches import ImageBatches, OrderedBatches
from regraft.vision.data import ImageSet, from_dataset, from_folder
from regraft.vision.inspection import inspect
from regraft.vision.preprocess import Preprocess

GREEN = (0, 200, 0)
PLAIN = Preprocess(4, mean=(0.0,) * 3, std=(1.0,) * 3, crop=1.0)


def write_bad_images(folder: Path) -> None:
    """One file of every defect."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    stream = io.BytesIO()
    noise.save(stream, "JPEG")
    (folder / "truncated.jpg").write_bytes(stream.getvalue()[:1500])
    (folder / "empty.jpg").touch()
    (folder / "page.jpg").write_text("<html>404</html>")
    # Few bytes, 144 million pixels.
    Image.new("1", (12_000, 12_000)).save(folder / "bomb.png")
    (folder / "dangling.jpg").symlink_to(folder / "gone.jpg")


def write_odd_images(folder: Path) -> None:
    """One file of every kind that is readable with care; each shows plain green where that is possible."""
    folder.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4), GREEN).save(folder / "rotated.png", exif=exif)
    Image.new("CMYK", (4, 4), (255, 55, 255, 0)).save(folder / "cmyk.tif")
    Image.fromarray(np.full((4, 4), 200 * 257, np.uint16)).save(folder / "deep.png")
    frames = [Image.new("RGB", (4, 4), colour) for colour in (GREEN, (255, 0, 0))]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (1, 1), GREEN).save(folder / "pixel.png")
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(folder / "clear.png")


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("spoilt")
    for i in range(100):
        (root / "good").mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), GREEN).save(root / f"good/{i:02}.png")
    write_bad_images(root / "bad")
    write_odd_images(root / "odd")
    return root


def test_every_kind_of_bad_image_is_named_and_every_odd_one_read(spoilt: Path):
    good, found = inspect(from_folder(spoilt), workers=1)
    assert {defect: list(ids) for defect, ids in found.bad.items()} == {
        "too many pixels": ["bad/bomb.png"],
        "missing file": ["bad/dangling.jpg"],
        "empty file": ["bad/empty.jpg"],
        "not an image": ["bad/page.jpg"],
        "truncated": ["bad/truncated.jpg"],
    }
    assert found.notes == {
        "first of several frames taken": ["odd/animated.gif"],
        "transparency laid on white": ["odd/clear.png"],
        "CMYK converted": ["odd/cmyk.tif"],
        "16 bits scaled to 8": ["odd/deep.png"],
        "a single pixel": ["odd/pixel.png"],
        "turned upright": ["odd/rotated.png"],
    }
    assert found.remarks == ("class 'bad' has no image that can be read",)
    assert (found.num_images, found.num_good, found.num_bad) == (111, 106, 5)
    assert len(good) == 106
    assert good.classes == ("bad", "good", "odd")


def test_the_odd_images_arrive_in_batches_as_they_look(spoilt: Path):
    good, _ = inspect(from_folder(spoilt), workers=1)
    odd = good.take(i for i, name in enumerate(good.ids) if name.startswith("odd/"))
    for memory_bytes in (2**20, 0):
        [batch] = OrderedBatches(odd, PLAIN, memory_bytes=memory_bytes)
        # Each picture has one colour, so its mean shows it and its deviation must be nothing.
        assert batch["image"].flatten(2).std(2).max() < 1e-6
        colours = (batch["image"].flatten(2).mean(2) * 255).round().int().tolist()
        by_name = dict(zip(odd.ids, map(tuple, colours), strict=True))
        assert by_name == {
            "odd/animated.gif": GREEN,
            "odd/clear.png": (255, 255, 255),
            "odd/cmyk.tif": GREEN,
            "odd/deep.png": (200, 200, 200),
            "odd/pixel.png": GREEN,
            "odd/rotated.png": GREEN,
        }


def test_uninspected_bad_images_are_replaced_and_reported(spoilt: Path):
    samples = from_folder(spoilt)
    batches = ImageBatches(samples, Order(len(samples), 37, seed=0), PLAIN, memory_bytes=0)
    epoch = list(itertools.islice(batches(0), 3))
    assert [len(batch["image"]) for batch in epoch] == [37] * 3
    # The bad ones are the whole of their class, and only their labels are gone.
    assert samples.classes[0] == "bad"
    assert all((batch["label"] > 0).all() for batch in epoch)
    assert set(batches.report()) == {f"bad/{name}" for name in BAD_NAMES}
    assert "bad/empty.jpg: " in str(batches.report())


BAD_NAMES = ("bomb.png", "dangling.jpg", "empty.jpg", "page.jpg", "truncated.jpg")


def test_the_report_reads_well(spoilt: Path):
    _, found = inspect(from_folder(spoilt), workers=1)
    assert str(found).splitlines()[0] == "111 images in 3 classes: 106 good, 5 left out"
    assert "  left out, truncated: 1 (bad/truncated.jpg)" in str(found).splitlines()
    assert "  kept, turned upright: 1 (odd/rotated.png)" in str(found).splitlines()


def test_too_many_bad_images_stop_at_the_start(spoilt: Path):
    with pytest.raises(SampleError, match=r"5 of 111 pictures \(4\.5%\) cannot be read") as caught:
        inspect(from_folder(spoilt), max_bad_share=0.04, workers=1)
    assert "1 (bad/truncated.jpg) truncated" in str(caught.value)
    with pytest.raises(RecipeError, match="max_bad_share is 2"):
        inspect(from_folder(spoilt), max_bad_share=2.0)


def test_a_set_without_a_good_image_is_refused(tmp_path: Path):
    write_bad_images(tmp_path / "bad")
    with pytest.raises(SampleError, match="5 of 5 pictures"):
        inspect(from_folder(tmp_path), max_bad_share=1.0, workers=1)


def test_processes_find_the_same(spoilt: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inspection, "_WORTH_A_POOL", 1)
    samples = from_folder(spoilt)
    assert inspect(samples, workers=2) == inspect(samples, workers=1)


@pytest.fixture
def small(tmp_path: Path) -> tuple[ImageSet, Path]:
    for i in range(4):
        (tmp_path / "data/cat").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (i, i, i)).save(tmp_path / f"data/cat/{i}.png")
    return from_folder(tmp_path / "data"), tmp_path / "run/inspection.json"


def test_unchanged_files_are_not_decoded_again(small: tuple[ImageSet, Path]):
    samples, cache = small
    first = inspect(samples, cache=cache)
    stored = json.loads(cache.read_text())
    # What the cache says is believed, which shows that nothing was decoded.
    for stamp in stored["files"]:
        stored["files"][stamp][0] = ["said the cache"]
    cache.write_text(json.dumps(stored))
    assert inspect(samples, cache=cache)[1].notes == {"said the cache": list(samples.ids)}
    assert first[1].notes == {}


def test_changed_files_are_decoded_again(small: tuple[ImageSet, Path]):
    samples, cache = small
    inspect(samples, cache=cache)
    changed = samples.sources[2]
    assert isinstance(changed, Path)
    size = changed.stat().st_size
    changed.write_bytes(bytes(size))
    os.utime(changed, ns=(1, 1))
    _, found = inspect(samples, cache=cache, max_bad_share=0.5)
    assert list(found.bad["not an image"]) == ["cat/2.png"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"pillow": "0.1", "files": {}}', '{"pillow": 1}'])
def test_a_damaged_cache_is_made_anew(small: tuple[ImageSet, Path], damage: str):
    samples, cache = small
    cache.parent.mkdir()
    cache.write_text(damage)
    assert inspect(samples, cache=cache)[1].num_good == 4
    assert len(json.loads(cache.read_text())["files"]) == 4


def test_missing_files_are_looked_for_again(small: tuple[ImageSet, Path]):
    samples, cache = small
    away = samples.sources[0]
    assert isinstance(away, Path)
    away.rename(away.with_suffix(".away"))
    assert inspect(samples, cache=cache, max_bad_share=0.5)[1].num_bad == 1
    away.with_suffix(".away").rename(away)
    assert inspect(samples, cache=cache)[1].num_bad == 0


def test_datasets_are_inspected_in_this_process(tmp_path: Path):
    broken = (tmp_path / "broken.png", tmp_path / "whole.png")
    Image.new("RGB", (4, 4)).save(broken[1])
    broken[0].write_bytes(broken[1].read_bytes()[:40])
    samples = from_dataset([(broken[0], 0), *((torch.full((3, 4, 4), i / 30), 0) for i in range(29))])
    good, found = inspect(samples, workers=4, cache=tmp_path / "cache.json")
    assert len(good) == 29
    assert found.num_bad == 1
