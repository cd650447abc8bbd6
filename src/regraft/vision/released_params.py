"""Released parameters, which are pixels of one size, as those of our augmentations, which are shares."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, Shaped

from regraft.augment.protocol import Params
from regraft.errors import TableError
from regraft.vision.crops import Flip, PadCrop, RandomResizedCrop
from regraft.vision.erasing import BOX, RandomErase
from regraft.vision.headers import Headers
from regraft.vision.rand_augment import OPERATIONS, RandAugment
from regraft.vision.variation import Variation

Numbers = Mapping[str, Shaped[np.ndarray, "n ..."]]
"""What each stage did to some views, as in `released_records.Records`."""

_OPERATION = {operation.name: number for number, operation in enumerate(OPERATIONS)}


def view_params(
    variation: Variation, numbers: Numbers, pictures: Int[np.ndarray, " n"], headers: Headers, size_px: int
) -> Params:
    """The part of a variation's parameters that makes one view of each of some pictures.

    Args:
        variation: Of the views. Its steps are those that `numbers` has stages for.
        numbers: What was released.
        pictures: Which picture each row is of, by its place in `headers`.
        headers: Of all pictures.
        size_px: Height and width of the views.

    Raises:
        TableError: A number is out of range, such as a part that lies outside its picture.
    """
    crop = [] if variation.crop is None else [("crop", variation.crop.dtype)]
    params = np.zeros(len(pictures), [("steps", variation.steps.dtype), *crop])
    if variation.crop is not None:
        boxes = numbers["random_resized_crop"]
        params["crop"] = _crop(variation.crop, boxes, pictures, headers)
    for place, step in enumerate(variation.steps.steps):
        fields = params["steps"][str(place)]
        match step:
            case PadCrop():
                fields[:] = _shift(step, numbers["random_crop"], headers.sizes[pictures])
            case Flip():
                fields["mirrored"] = numbers["random_horizontal_flip"]
            case RandAugment():
                fields[:] = _rand_augment(step, numbers["rand_augment"], size_px)
            case RandomErase():
                fields[:] = boxes_in_shares(numbers["random_erase"], size_px)
            case _:
                raise AssertionError(f"{step} is nothing that was released")
    return params


def boxes_in_shares(boxes: Int[np.ndarray, "n 4"], size_px: int) -> Params:
    """Boxes (top, left, height, width) in pixels of a square as shares of it, which round to the same pixels.

    Raises:
        TableError: One lies outside the square.
    """
    _check_inside(boxes, np.array([[size_px, size_px]]), least=0)
    params = np.empty(len(boxes), BOX)
    for name, pixels in zip(("top", "left", "height", "width"), boxes.T, strict=True):
        params[name] = pixels / size_px
    return params


def _crop(
    crop: RandomResizedCrop, stored: Int[np.ndarray, "n 4"], pictures: Int[np.ndarray, " n"], headers: Headers
) -> Params:
    """Parameters that give back the very boxes."""
    _check_inside(stored, headers.sizes[pictures], least=1)
    boxes, sizes = headers.upright(stored, pictures), headers.upright_sizes(pictures)
    top, left, height, width = boxes.T
    room_below, room_beside = (sizes - boxes[:, 2:]).T
    params = np.empty(len(boxes), crop.dtype)
    params["area"] = height * width / sizes.prod(axis=1)
    params["aspect"] = width / height
    params["top"] = top / room_below.clip(min=1)
    params["left"] = left / room_beside.clip(min=1)
    back = np.array(crop.boxes(params, *sizes.T)).reshape(-1, 4)
    if (wrong := (back != boxes).any(axis=1)).any():
        raise TableError(
            f"The part {boxes[wrong][0]} of a picture of {sizes[wrong][0]} comes back as {back[wrong][0]}."
        )
    return params


def _check_inside(boxes: Int[np.ndarray, "n 4"], sizes: Int[np.ndarray, "m 2"], *, least: int) -> None:
    start, length = boxes[:, :2], boxes[:, 2:]
    wrong = ((start < 0) | (length < least) | (start + length > sizes)).any(axis=1)
    if wrong.any():
        box, size = boxes[wrong][0], np.broadcast_to(sizes, start.shape)[wrong][0]
        raise TableError(
            f"A part of {box[2]} x {box[3]} pixels begins at {box[0]}, {box[1]}, expected one inside the "
            f"{size[0]} x {size[1]} of its picture.",
            hint="It may be of another picture: records go by the order of torchvision's ImageFolder.",
        )


def _shift(crop: PadCrop, corners: Int[np.ndarray, "n 2"], sizes: Int[np.ndarray, "n 2"]) -> Params:
    """Where a square is cut out of its padded self."""
    if (sizes[:, 0] != sizes[:, 1]).any():
        height, width = sizes[sizes[:, 0] != sizes[:, 1]][0]
        raise TableError(
            f"A picture is {height} x {width} pixels, expected a square to be padded and shifted."
        )
    if (corners < 0).any() or (corners > 2 * crop.pad_px).any():
        raise TableError(
            f"A square is cut out at {corners.min()} to {corners.max()}, expected 0 to {2 * crop.pad_px}."
        )
    params = np.empty(len(corners), crop.dtype)
    params["top"], params["left"] = corners.T
    return params


def _rand_augment(step: RandAugment, pairs: Shaped[np.ndarray, "n operations 2"], size_px: int) -> Params:
    """Operations and their magnitudes.

    What is cut off to whole pixels, or compared with whole grey levels, is put half-way between two of them.
    """
    operation, magnitude = pairs[..., 0], pairs[..., 1].copy()
    if not np.isin(operation, range(len(OPERATIONS))).all():
        raise TableError(f"An operation is {operation.max():g}, expected 0 to {len(OPERATIONS) - 1}.")
    moved = np.isin(operation, [_OPERATION["translate_x"], _OPERATION["translate_y"]])
    pixels = np.trunc(magnitude) + np.copysign(0.5, magnitude)
    solarized = operation == _OPERATION["solarize"]
    params = np.empty(len(pairs), step.dtype)
    params["operation"] = operation
    params["magnitude"] = np.select(
        [moved, solarized], [pixels / size_px, (np.ceil(magnitude) - 0.5) / 255], magnitude
    )
    return params
