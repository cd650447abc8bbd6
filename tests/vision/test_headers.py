"""Sizes by headers, and boxes that turn with their pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.errors import SampleError
from regraft.vision.headers import read_headers
from regraft.vision.images import read_image

ORIENTATION = 0x0112


def picture(height: int = 5, width: int = 9) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_a_box_turns_with_its_picture(orientation: int, ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"a.{ending}"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    picture(40, 72).save(file, exif=exif, lossless=True)
    with Image.open(file) as image:
        stored = np.asarray(image.convert("RGB"))
    upright = np.asarray(read_image(file))
    headers, first = read_headers([file]), np.array([0])
    assert headers.orientations.tolist() == [orientation]
    assert headers.sizes.tolist() == [[40, 72]]
    assert headers.upright_sizes(first).tolist() == [list(upright.shape[:2])]
    top, left, height, width = headers.upright(np.array([[3, 20, 10, 30]]), first)[0]
    part = upright[top : top + height, left : left + width]
    assert sorted(part.reshape(-1, 3).tolist()) == sorted(stored[3:13, 20:50].reshape(-1, 3).tolist())


def test_headers_of_many_pictures_are_read_by_workers_too(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(600)]
    for number, path in enumerate(paths):
        picture(2 + number % 5, 3 + number % 7).save(path)
    for workers in (0, 2):
        headers = read_headers(paths, workers=workers)
        assert headers.sizes.tolist() == [[2 + number % 5, 3 + number % 7] for number in range(600)]
        assert headers.plain.all()


def test_pictures_that_are_read_in_several_ways_are_known(tmp_path: Path) -> None:
    def saved(name: str, image: Image.Image, **settings: object) -> Path:
        image.save(tmp_path / name, **settings)
        return tmp_path / name

    plain = [
        saved("rgb.png", picture()),
        saved("grey.png", picture().convert("L")),
        saved("palette.png", picture().convert("P")),
        saved("inks.jpg", picture().convert("CMYK")),
    ]
    odd = [
        saved("alpha.png", picture().convert("RGBA")),
        saved("hole.png", picture().convert("P"), transparency=0),
        saved("deep.png", Image.fromarray(np.zeros((5, 9), np.uint16))),
        saved("numbers.tif", Image.fromarray(np.zeros((5, 9), np.float32))),
    ]
    assert read_headers(plain + odd).plain.tolist() == [True] * 4 + [False] * 4


def test_garbled_metadata_is_none(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.jpg", exif=b"Exif\0\0garbled")
    picture().save(
        tmp_path / "b.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0"
    )
    assert read_headers([tmp_path / "a.jpg", tmp_path / "b.jpg"]).orientations.tolist() == [1, 1]


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    with pytest.raises(SampleError, match=r"a\.jpg cannot be read as a picture"):
        read_headers([tmp_path / "a.jpg"])
    with pytest.raises(SampleError, match=r"b\.jpg cannot be read"):
        read_headers([tmp_path / "b.jpg"])
