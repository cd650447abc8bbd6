"""Pixels become shares, and the shares the same pixels again, at every size."""

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode

from regraft.augment.compose import Compose
from regraft.augment.protocol import Params
from regraft.errors import TableError
from regraft.vision.crops import PadCrop, RandomResizedCrop
from regraft.vision.erasing import RandomErase, inside
from regraft.vision.headers import Headers
from regraft.vision.rand_augment import OPERATIONS, RandAugment
from regraft.vision.released_params import boxes_in_shares, view_params
from regraft.vision.variation import Variation


def headers_of(sizes: np.ndarray) -> Headers:
    return Headers(sizes, np.ones(len(sizes), np.int64), np.ones(len(sizes), bool))


def params_of(variation: Variation, stage: str, numbers: np.ndarray, size_px: int, side: int = 32) -> Params:
    headers, pictures = headers_of(np.array([[side, side]])), np.zeros(len(numbers), np.int64)
    return view_params(variation, {stage: numbers}, pictures, headers, size_px)


@pytest.mark.parametrize("largest", [9, 500, 20_000])
def test_crops_come_back_to_the_pixel(largest: int) -> None:
    draw = np.random.default_rng(0)
    sizes = draw.integers(1, largest + 1, (20_000, 2))
    length = draw.integers(1, sizes + 1)
    start = draw.integers(0, sizes - length + 1)
    boxes = np.concatenate([start, length], axis=1)
    crop = RandomResizedCrop()
    variation = Variation(crop)
    got = view_params(
        variation, {"random_resized_crop": boxes}, np.arange(len(boxes)), headers_of(sizes), 224
    )
    for row in range(0, len(boxes), 199):
        height, width = sizes[row].tolist()
        assert crop.boxes(got["crop"][row : row + 1], height, width) == [tuple(boxes[row].tolist())]
    drawn_area = length.prod(axis=1) / sizes.prod(axis=1)
    np.testing.assert_allclose(got["crop"]["area"], drawn_area, rtol=1e-6)


@pytest.mark.parametrize("size_px", [8, 224])
def test_boxes_cover_the_same_pixels(size_px: int) -> None:
    edges = np.array([(a, b) for a in range(size_px + 1) for b in range(a, size_px + 1)])
    rows = edges[:: max(1, len(edges) // 400)]
    boxes = np.stack([rows[:, 0], rows[::-1, 0], rows[:, 1] - rows[:, 0], rows[::-1, 1] - rows[::-1, 0]], 1)
    got = inside(torch.zeros(len(boxes), 1, size_px, size_px), boxes_in_shares(boxes, size_px))
    for (top, left, height, width), covered in zip(boxes.tolist(), got, strict=True):
        expected = torch.zeros(size_px, size_px, dtype=torch.bool)
        expected[top : top + height, left : left + width] = True
        assert torch.equal(covered, expected)


@pytest.mark.parametrize("size_px", [32, 224])
def test_translations_are_by_the_same_pixels(size_px: int) -> None:
    pixels = np.concatenate([np.arange(-size_px / 2, size_px / 2, 0.25), [-0.0, 13.594, -101.5]])
    pairs = np.stack([np.stack([np.full(len(pixels), 3.0), pixels], 1)] * 2, 1)
    params = params_of(Variation(steps=Compose((RandAugment(),))), "rand_augment", pairs, size_px)
    for share, expected in zip(params["steps"]["0"]["magnitude"][:, 0].tolist(), pixels, strict=True):
        assert int(share * size_px) == int(expected)


def test_solarizing_turns_the_same_levels() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    thresholds = np.arange(0, 255.01, 0.25)
    pairs = np.stack([np.stack([np.full(len(thresholds), 11.0), thresholds], 1)] * 2, 1)
    params = params_of(Variation(steps=Compose((RandAugment(),))), "rand_augment", pairs, 32)
    for share, threshold in zip(params["steps"]["0"]["magnitude"][:, 0].tolist(), thresholds, strict=True):
        got = OPERATIONS[11].apply(levels, share, InterpolationMode.NEAREST)
        assert torch.equal(got, torch.where(levels >= threshold, 255 - levels, levels))


@pytest.mark.parametrize(
    ("box", "size"), [((0, 0, 11, 1), (10, 10)), ((-1, 0, 2, 2), (10, 10)), ((0, 0, 0, 2), (10, 10))]
)
def test_parts_outside_are_refused(box: tuple[int, ...], size: tuple[int, int]) -> None:
    with pytest.raises(TableError, match="expected one inside the 10 x 10"):
        params_of(Variation(RandomResizedCrop()), "random_resized_crop", np.array([box]), 8, side=10)
    if box[2]:
        with pytest.raises(TableError, match="expected one inside the 10 x 10"):
            params_of(Variation(steps=Compose((RandomErase(),))), "random_erase", np.array([box]), 10)


def test_shifts_are_of_squares() -> None:
    variation = Variation(steps=Compose((PadCrop(4),)))
    params = params_of(variation, "random_crop", np.array([[0, 8], [3, 4]]), 32)
    assert params["steps"]["0"].tolist() == [(0, 8), (3, 4)]
    with pytest.raises(TableError, match="cut out at 0 to 9, expected 0 to 8"):
        params_of(variation, "random_crop", np.array([[0, 9]]), 32)
    with pytest.raises(TableError, match="30 x 40 pixels, expected a square"):
        view_params(
            variation,
            {"random_crop": np.array([[0, 0]])},
            np.array([0]),
            headers_of(np.array([[30, 40]])),
            32,
        )
