import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from regraft.errors import RecipeError
from regraft.nn.encoder import Preprocessing
from regraft.vision.preprocess import Preprocess


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("size", [(64, 64), (100, 37), (41, 90), (31, 400), (8, 8)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop", [0.875, 0.9, 1.0])
def test_frames_are_torchvisions_resize_and_centre_crop(
    size: tuple[int, int], interpolation: str, crop: float
):
    preprocess = Preprocess(size_px=32, interpolation=interpolation, crop=crop)
    image = noise(*size)
    resized = tv.resize(image, [int(32 / crop)], InterpolationMode(interpolation))
    expected = tv.pil_to_tensor(tv.center_crop(resized, [32, 32]))
    difference = (preprocess.frame(image).float() - expected).abs()
    # Pillow resizes rows and columns in whichever order is cheaper, which differs between the picture and
    # the box, and rounds to 8 bits in between. That is one grey level at most for a filter without
    # overshoot; bicubic's is also clipped in between, which noise makes as bad as can be.
    assert difference.max() <= (1 if interpolation == "bilinear" else 25)
    assert difference.mean() < 0.5
    shifted = preprocess.frame(image.transform(size, Image.Transform.AFFINE, (1, 0, 1, 0, 1, 0)))
    assert (shifted.float() - expected).abs().mean() > 2  # one pixel to the side would be seen


def test_the_right_size_is_left_alone():
    image = noise(48, 48)
    assert torch.equal(Preprocess(48, crop=1.0).frame(image), tv.pil_to_tensor(image))
    normalised = Preprocess(48, crop=1.0)(image)
    scaled = tv.to_dtype(tv.pil_to_tensor(image), torch.float32, scale=True)
    expected = tv.normalize(scaled, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(normalised, expected, rtol=0, atol=1e-6)  # float32 rounding


def test_a_strip_does_not_fill_the_memory():
    strip = Image.new("RGB", (1, 60_000), "red")
    assert Preprocess(224).frame(strip).float().mean((1, 2)).tolist() == [255, 0, 0]
    assert Preprocess(224).frame(Image.new("RGB", (1, 1), "blue")).shape == (3, 224, 224)


def test_grey_has_one_channel():
    preprocess = Preprocess(8, mean=(0.5,), std=(0.5,), crop=1.0, channels=1)
    image = noise(8, 8)
    assert torch.equal(preprocess.frame(image), tv.pil_to_tensor(image.convert("L")))
    assert preprocess(image).shape == (1, 8, 8)


def test_it_takes_files_and_odd_pictures():
    image = noise(20, 20)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    assert torch.equal(Preprocess(16)(stream.getvalue()), Preprocess(16)(image))
    assert Preprocess(16)(image.convert("RGBA")).shape == (3, 16, 16)
    assert isinstance(Preprocess(16), Preprocessing)


def test_a_batch_is_normalised_like_its_pictures():
    preprocess = Preprocess(8)
    frames = torch.stack([preprocess.frame(noise(9 + i, 9)) for i in range(3)])
    assert torch.equal(preprocess.normalise(frames)[1], preprocess.normalise(frames[1]))


def test_a_description_is_json_and_enough():
    preprocess = Preprocess(40, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0), interpolation="bicubic", crop=0.95)
    description = json.loads(json.dumps(preprocess.describe()))
    assert Preprocess.from_description(description) == preprocess
    assert description["layout"] == "nchw"
    assert description["color"] == "rgb"
    assert description["value_range"] == [0.0, 1.0]
    assert description["resize_short_side_px"] == 42
    del description["std"], description["crop"]
    with pytest.raises(RecipeError, match="has no std, crop"):
        Preprocess.from_description(description)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size_px", 0),
        ("crop", 0.0),
        ("crop", 1.1),
        ("crop", float("nan")),
        ("channels", 4),
        ("mean", (0.5,)),
        ("std", (1.0, 0.0, 1.0)),
        ("mean", (0.5, float("nan"), 0.5)),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: object):
    with pytest.raises(RecipeError, match=name):
        replace(Preprocess(), **{name: value})


def test_pixels_come_back_from_what_was_made_of_them() -> None:
    pixels = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    assert torch.equal(Preprocess().pixels_of(Preprocess().normalise(pixels)), pixels)
    grey = Preprocess(channels=1, mean=(0.3,), std=(0.1,))
    assert torch.equal(grey.pixels_of(grey.normalise(pixels[:, :1])), pixels[:, :1])
