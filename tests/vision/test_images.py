import io
import os
import pickle
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.vision.images import BadImage, decode, name_of, read_image

PIXELS = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3) * 5
"""Every pixel different, and wider than high."""

LOSSLESS = ("PNG", "TIFF", "WEBP")


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    if file_format == "WEBP":
        options["lossless"] = True
    image.save(stream, file_format, **options)
    return stream.getvalue()


def pixels(source: Path | bytes | Image.Image) -> np.ndarray:
    image = read_image(source)
    assert image.mode == "RGB"
    return np.asarray(image)


def displayed(stored: np.ndarray, orientation: int) -> np.ndarray:
    """What a viewer shows of the stored pixels, by the definition in the EXIF standard (2.32, 4.6.4)."""
    transposed = stored.swapaxes(0, 1)
    return {
        1: stored,  # row 0 is the top, column 0 the left side
        2: stored[:, ::-1],  # top, right
        3: stored[::-1, ::-1],  # bottom, right
        4: stored[::-1],  # bottom, left
        5: transposed,  # left, top
        6: transposed[:, ::-1],  # right, top
        7: transposed[::-1, ::-1],  # right, bottom
        8: transposed[::-1],  # left, bottom
    }[orientation]


@pytest.mark.parametrize("file_format", [*LOSSLESS, "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations_are_applied(file_format: str, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(PIXELS)
    stored = np.asarray(Image.open(io.BytesIO(encoded(image, file_format))))
    decoded = decode(encoded(image, file_format, exif=exif))
    np.testing.assert_array_equal(np.asarray(decoded.image), displayed(stored, orientation))
    assert decoded.notes == (("turned upright",) if orientation > 1 else ())
    # A picture read twice is not turned twice.
    np.testing.assert_array_equal(pixels(decoded.image), displayed(stored, orientation))


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_garbled_exif_leaves_the_picture(exif: bytes):
    image = Image.fromarray(PIXELS)
    np.testing.assert_array_equal(pixels(encoded(image, "JPEG", exif=exif)), pixels(encoded(image, "JPEG")))


def test_orientations_out_of_range_are_ignored():
    exif = Image.Exif()
    exif[0x0112] = 9
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(PIXELS), "PNG", exif=exif)), PIXELS)


def test_16_bit_grey_is_scaled_not_clipped():
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    expected = [0, 0, 1, 1, 128, 255]
    for file_format in ("PNG", "TIFF"):
        decoded = decode(encoded(Image.fromarray(values), file_format))
        np.testing.assert_array_equal(np.asarray(decoded.image)[0], np.repeat([expected], 3, axis=0).T)
        assert decoded.notes == ("16 bits scaled to 8",)


def test_big_endian_and_portable_16_bit_grey():
    portable = b"P5 3 1 65535\n" + struct.pack(">3H", 0, 32768, 65535)
    assert pixels(portable)[0, :, 0].tolist() == [0, 128, 255]
    big = Image.frombytes("I;16B", (3, 1), struct.pack(">3H", 0, 32768, 65535))
    assert pixels(big)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[0, 257, 65535]], np.int32), [0, 1, 255]),
        (np.array([[0, 2**30, 2**31 - 1]], np.int32), [0, 128, 255]),
        (np.array([[-10, 0, 10]], np.int32), [0, 128, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.4, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 500.0, 1000.0]], np.float32), [0, 128, 255]),
        (np.array([[300.0, 300.0, 300.0]], np.float32), [0, 0, 0]),
    ],
)
def test_integers_and_floats_are_scaled(values: np.ndarray, expected: list[int]):
    decoded = decode(encoded(Image.fromarray(values), "TIFF"))
    assert np.asarray(decoded.image)[0, :, 1].tolist() == expected
    assert decoded.notes == ("numbers scaled to 8 bits",)


def test_floats_that_are_not_finite_are_bad():
    values = np.array([[0.0, np.nan, 1.0]], np.float32)
    with pytest.raises(BadImage, match="not all finite"):
        read_image(encoded(Image.fromarray(values), "TIFF"))


def test_cmyk_is_converted():
    inks = Image.new("CMYK", (8, 8), (10, 20, 30, 40))
    # (1 - ink) (1 - black), rounded: 245 * 215 / 255 and so on.
    decoded = decode(encoded(inks, "TIFF"))
    assert decoded.image.getpixel((4, 4)) == (207, 198, 190)
    assert decoded.notes == ("CMYK converted",)


@pytest.mark.parametrize(
    ("inks", "colour"),
    [((255, 0, 0, 0), (0, 255, 255)), ((0, 0, 0, 0), (255, 255, 255)), ((0, 0, 0, 255), (0, 0, 0))],
)
def test_cmyk_jpeg_is_inverted_as_adobe_writes_it(inks: tuple[int, ...], colour: tuple[int, ...]):
    file = encoded(Image.new("CMYK", (16, 16), inks), "JPEG", quality=100)
    assert b"Adobe" in file
    np.testing.assert_allclose(pixels(file)[8, 8].astype(int), colour, atol=2)  # JPEG is lossy
    # Without Adobe's marker nothing says which way round the inks are; the usual way is assumed.
    start = file.index(b"\xff\xee")
    length = struct.unpack(">H", file[start + 2 : start + 4])[0]
    bare = file[:start] + file[start + 2 + length :]
    assert b"Adobe" not in bare
    np.testing.assert_array_equal(pixels(bare), pixels(file))


def test_alpha_is_laid_on_white():
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 128), (9, 9, 9, 0), (10, 20, 30, 255)])
    for file_format in LOSSLESS:
        options = {"exact": True} if file_format == "WEBP" else {}
        decoded = decode(encoded(image, file_format, **options))
        assert np.asarray(decoded.image)[0].tolist() == [[255, 127, 127], [255, 255, 255], [10, 20, 30]]
        assert decoded.notes == ("transparency laid on white",)


def test_grey_alpha_and_premultiplied_pictures_are_laid_on_white():
    grey = Image.new("LA", (1, 1), (100, 0))
    assert pixels(encoded(grey, "PNG")).tolist() == [[[255, 255, 255]]]
    assert pixels(grey.convert("La")).tolist() == [[[255, 255, 255]]]
    assert pixels(Image.new("RGBA", (1, 1), (7, 7, 7, 0)).convert("RGBa")).tolist() == [[[255, 255, 255]]]


def test_palettes_are_looked_up_and_their_transparency_is_white():
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    assert pixels(encoded(image, "PNG"))[0].tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    for file_format in ("PNG", "GIF"):
        file = encoded(image, file_format, transparency=1)
        assert pixels(file)[0].tolist() == [[10, 20, 30], [255, 255, 255], [70, 80, 90]]
    per_entry = encoded(image, "PNG", transparency=bytes([255, 0, 255]))
    assert pixels(per_entry)[0].tolist() == [[10, 20, 30], [255, 255, 255], [70, 80, 90]]


def test_a_transparent_colour_is_white():
    image = Image.fromarray(PIXELS)
    file = encoded(image, "PNG", transparency=tuple(PIXELS[0, 0].tolist()))
    expected = PIXELS.copy()
    expected[0, 0] = 255
    np.testing.assert_array_equal(pixels(file), expected)
    grey = encoded(Image.fromarray(np.array([[7, 65535]], np.uint16)), "PNG", transparency=7)
    assert pixels(grey)[0, :, 0].tolist() == [255, 255]


def test_opaque_alpha_is_not_worth_a_note():
    assert decode(encoded(Image.fromarray(PIXELS).convert("RGBA"), "PNG")).notes == ()


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_of_several_frames_counts(file_format: str):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    decoded = decode(encoded(frames[0], file_format, save_all=True, append_images=frames[1:]))
    assert np.unique(np.asarray(decoded.image).reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]
    assert decoded.notes == ("first of several frames taken",)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"])
def test_one_pixel_is_enough(mode: str):
    decoded = decode(Image.new(mode, (1, 1)))
    assert decoded.image.size == (1, 1)
    assert "a single pixel" in decoded.notes


def test_other_colour_spaces_become_rgb():
    image = Image.fromarray(PIXELS)
    for mode in ("HSV", "YCbCr", "LAB", "RGBX"):
        assert read_image(image.convert(mode)).mode == "RGB"
    bits = Image.fromarray(np.array([[True, False]]))
    assert pixels(encoded(bits, "PNG")).tolist() == [[[255] * 3, [0] * 3]]


def test_an_upright_rgb_picture_comes_back_itself():
    image = Image.fromarray(PIXELS)
    assert read_image(image) is image
    with_metadata = Image.open(io.BytesIO(encoded(image, "PNG", dpi=(72, 72))))
    assert read_image(with_metadata).info == {}
    assert with_metadata.info != {}


def defect(source: Path | bytes, **options: int) -> str:
    with pytest.raises(BadImage) as caught:
        read_image(source, **options)
    assert name_of(source) in str(caught.value)
    return caught.value.defect


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "BMP", "TIFF", "PPM", "QOI", "JPEG2000"])
def test_truncated_files_are_named(file_format: str, tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    whole = encoded(Image.fromarray(noise), file_format)
    path = tmp_path / "half"
    path.write_bytes(whole[: len(whole) // 2])
    assert defect(path) == "truncated"


@pytest.mark.parametrize("file_format", ["WEBP", "GIF", "AVIF"])
def test_truncated_files_of_terse_decoders_are_bad(file_format: str, tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    whole = encoded(Image.fromarray(noise), file_format)
    for share in (0.1, 0.3, 0.5):
        path = tmp_path / f"{share}"
        path.write_bytes(whole[: int(len(whole) * share)])
        assert defect(path) in ("truncated", "damaged", "not an image")


def test_files_that_are_no_pictures_are_named(tmp_path: Path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("<html>404 not found</html>")
    (tmp_path / "folder.jpg").mkdir()
    # Pillow would hand this to Ghostscript.
    (tmp_path / "program.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    assert defect(tmp_path / "empty.jpg") == "empty file"
    assert defect(b"") == "empty file"
    assert defect(tmp_path / "text.jpg") == "not an image"
    assert defect(tmp_path / "program.jpg") == "not an image"
    assert defect(tmp_path / "folder.jpg") == "unreadable file"
    assert defect(tmp_path / "missing.jpg") == "missing file"


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="the superuser may read anything")
def test_files_that_may_not_be_read_are_named(tmp_path: Path):
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(Image.fromarray(PIXELS), "PNG"))
    path.chmod(0)
    assert defect(path) == "unreadable file"


def png_header(width: int, height: int) -> bytes:
    """A PNG file that claims a size, without the pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = b"IDAT" + zlib.compress(bytes(1000))
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_decompression_bombs_are_refused_by_their_header():
    assert defect(png_header(12_000, 12_000)) == "too many pixels"  # above our limit, below Pillow's
    assert defect(png_header(100_000, 100_000)) == "too many pixels"
    assert defect(encoded(Image.fromarray(PIXELS), "PNG"), max_pixels=14) == "too many pixels"
    assert read_image(encoded(Image.fromarray(PIXELS), "PNG"), max_pixels=15).size == (5, 3)


def test_pillows_warnings_are_notes():
    entry_twice = encoded(Image.fromarray(PIXELS), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(entry_twice).notes == ("decoder warned",)
        # Above the size at which Pillow warns, and below the one where it refuses.
        assert defect(png_header(10_000, 10_000)) == "truncated"


def test_a_damaged_file_keeps_its_cause():
    file = bytearray(encoded(Image.fromarray(PIXELS), "PNG"))
    file[40:60] = bytes(20)
    with pytest.raises(BadImage) as caught:
        read_image(bytes(file))
    assert caught.value.__cause__ is not None


def test_bad_images_cross_processes():
    error = BadImage("a.jpg", "truncated", "10 bytes short")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.name, copy.defect, copy.detail) == (
        str(error),
        "a.jpg",
        "truncated",
        "10 bytes short",
    )
