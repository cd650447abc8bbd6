"""Every augmentation: does what its slow twin does, to each picture alone, and draws what it should."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from regraft.augment.compose import Compose
from regraft.augment.protocol import Augmentation, Params
from regraft.augment.streams import Streams, keys_of
from regraft.errors import RecipeError, ShapeError
from regraft.vision.crops import Flip, PadCrop, RandomResizedCrop
from regraft.vision.erasing import RandomErase
from regraft.vision.jitter import ORDERS, ColourJitter
from regraft.vision.mixing import Mix, is_mixed, kept_share
from regraft.vision.rand_augment import OPERATIONS, RandAugment

AUGMENTATIONS = [
    PadCrop(3),
    Flip(),
    ColourJitter(0.4, 0.4, 0.4, 0.1),
    RandAugment(),
    RandAugment(3, 30, "nearest"),
    RandomErase(0.7),
    Compose((PadCrop(2), Flip(), RandAugment(), RandomErase(), RandAugment())),
]


def streams(num: int, seed: int = 0) -> Streams:
    return Streams.of(seed, keys_of(map(str, range(num))), np.arange(num) % 7)


def pictures(num: int, channels: int = 3, height: int = 17, width: int = 23) -> Tensor:
    generator = torch.Generator().manual_seed(num)
    noise = torch.rand(num, channels, 4, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic")
    return (smooth.clamp(0, 1) * 255).to(torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=lambda a: type(a).__name__)
def test_company_does_not_matter(augmentation: Augmentation, channels: int) -> None:
    x = pictures(40, channels)
    before = x.clone()
    params = augmentation.sample(streams(40))
    whole = augmentation.apply(x, params)
    assert torch.equal(x, before)
    assert not torch.equal(whole, x)
    assert whole.dtype == torch.uint8
    for row in range(40):
        alone = augmentation.apply(x[row : row + 1], params[row : row + 1])
        assert torch.equal(alone[0], whole[row])
    assert augmentation.apply(x[:0], params[:0]).shape == x[:0].shape


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=lambda a: type(a).__name__)
def test_parameters_of_others_are_refused(augmentation: Augmentation) -> None:
    params = augmentation.sample(streams(4))
    with pytest.raises(ShapeError, match="expected"):
        augmentation.apply(pictures(5), params)
    with pytest.raises(ShapeError, match="expected"):
        augmentation.apply(pictures(4), np.zeros(4, [("stranger", "u1")]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=lambda a: type(a).__name__)
def test_a_gpu_does_the_same_but_for_rounding(augmentation: Augmentation) -> None:
    x, params = pictures(40), augmentation.sample(streams(40))
    here, there = augmentation.apply(x, params), augmentation.apply(x.cuda(), params).cpu()
    # Half a grey level may round either way, and an edge of a rotation may fall to the next pixel.
    assert ((here.int() - there.int()).abs() > 1).float().mean() < 0.01


def slow_pad_crop(picture: Tensor, top: int, left: int, pad_px: int) -> Tensor:
    """Pixel by pixel."""
    channels, height, width = picture.shape
    out = torch.zeros_like(picture)
    for c, y, x in itertools.product(range(channels), range(height), range(width)):
        from_y, from_x = y + top - pad_px, x + left - pad_px
        if 0 <= from_y < height and 0 <= from_x < width:
            out[c, y, x] = picture[c, from_y, from_x]
    return out


def test_pad_crop_equals_its_slow_twin() -> None:
    x, crop = pictures(8, height=5, width=7), PadCrop(2)
    params = crop.sample(streams(8))
    slow = [
        slow_pad_crop(one, int(row["top"]), int(row["left"]), 2) for one, row in zip(x, params, strict=True)
    ]
    assert torch.equal(crop.apply(x, params), torch.stack(slow))


def test_shifts_and_mirrors_are_drawn_evenly() -> None:
    params = PadCrop(4).sample(streams(4000))
    counts = np.bincount(params["top"] * 9 + params["left"], minlength=81)
    assert counts.min() > 10  # 4,000 draws over 81 places: 49 each with a deviation of 7
    assert counts.max() < 90
    assert abs(Flip().sample(streams(4000))["mirrored"].sum() - 2000) < 160  # five deviations of 32


def test_a_random_crop_shows_what_its_box_says() -> None:
    x, crop = pictures(20, height=40, width=60), RandomResizedCrop((0.1, 0.9))
    params = crop.sample(streams(20))
    shown = crop.apply_to(x, params, 16)
    for one, (top, left, height, width), got in zip(x, crop.boxes(params, 40, 60), shown, strict=True):
        assert 0 <= top <= 40 - height
        assert 0 <= left <= 60 - width
        part = one[:, top : top + height, left : left + width]
        assert torch.equal(got, F.resize(part, [16, 16], InterpolationMode.BILINEAR, antialias=True))
    drawn = crop.sample(streams(4000))
    assert drawn["area"].min() > 0.1
    assert abs(drawn["area"].mean() - 0.5) < 0.02
    assert abs(np.log(drawn["aspect"]).mean()) < 0.02
    for height, width in ((40, 60), (500, 375), (1, 9)):
        boxes = np.array(crop.boxes(drawn, height, width))
        assert (boxes[:, 2:] >= 1).all()
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 0] + boxes[:, 2] <= height).all()
        assert (boxes[:, 1] + boxes[:, 3] <= width).all()


def test_the_same_part_at_another_resolution() -> None:
    crop = RandomResizedCrop()
    params = crop.sample(streams(9))
    small, large = (np.array(crop.boxes(params, 100 * scale, 150 * scale)) for scale in (1, 4))
    assert np.abs(small * 4 - large).max() <= 4


def torchvision_jitter(one: Tensor, row: np.void) -> Tensor:
    kernels = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    for number in ORDERS[row["order"]]:
        one = kernels[number](one, float(row[("brightness", "contrast", "saturation", "hue")[number]]))
    return one


def test_jitter_equals_torchvision() -> None:
    x, jitter = pictures(30), ColourJitter(0.4, 0.4, 0.4, 0.1)
    params = jitter.sample(streams(30))
    slow = torch.stack([torchvision_jitter(one[None], row)[0] for one, row in zip(x, params, strict=True)])
    difference = (jitter.apply(x, params).int() - slow.int()).abs()
    # Sums in another order may fall on the other side of a whole number, and hue spreads that.
    assert difference.max() <= 3
    assert (difference > 0).float().mean() < 0.01
    assert len(set(params["order"].tolist())) > 10
    assert params["brightness"].min() >= np.float32(0.6)


def test_jitter_of_nothing_is_nothing() -> None:
    x = pictures(5)
    assert torch.equal(ColourJitter().apply(x, ColourJitter().sample(streams(5))), x)


@dataclass(frozen=True)
class Expected:
    """What torchvision's own RandAugment would do for one operation."""

    name: str
    strongest: float

    def __call__(self, x: Tensor, magnitude: float) -> Tensor:
        from torchvision.transforms.v2 import RandAugment as Theirs

        theirs = Theirs(interpolation=InterpolationMode.BILINEAR)
        return theirs._apply_image_or_video_transform(  # pyright: ignore[reportPrivateUsage]
            x, self.name, magnitude, interpolation=InterpolationMode.BILINEAR, fill={}
        )


THEIRS = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
    "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip


@pytest.mark.parametrize("number", range(14), ids=THEIRS)
def test_every_operation_equals_torchvision(number: int) -> None:
    from torchvision.transforms.v2 import RandAugment as Theirs

    x, operation = pictures(3, height=31, width=31), OPERATIONS[number]
    assert operation.name.replace("_", "") == THEIRS[number].lower().replace("color", "colour")
    bins, signed = Theirs._AUGMENTATION_SPACE[THEIRS[number]]  # pyright: ignore[reportPrivateUsage]
    assert signed == operation.signed
    for strength in (0, 9, 17, 30):
        theirs = bins(31, 31, 31)
        magnitude = 0.0 if theirs is None else float(theirs[strength])
        ours = operation.magnitude(strength)
        in_pixels = ours * 31 if THEIRS[number].startswith("Translate") else ours
        assert in_pixels == pytest.approx(magnitude, abs=1e-6)
        for sign in (1, -1)[: 1 + signed]:
            expected = Expected(THEIRS[number], magnitude)(x, sign * magnitude)
            got = operation.apply(x, sign * ours, InterpolationMode.BILINEAR)
            assert (got.int() - expected.int()).abs().max() <= 1


def test_operations_are_drawn_evenly() -> None:
    params = RandAugment(2, 9).sample(streams(7000))
    counts = np.bincount(params["operation"].ravel(), minlength=14)
    assert abs(counts - 1000).max() < 160  # five deviations of 31
    signs = params["magnitude"][params["operation"] == 5]
    assert abs((signs > 0).mean() - 0.5) < 0.08
    assert set(np.abs(signs).tolist()) == {9.0}


def test_erased_rectangles() -> None:
    x, erase = torch.full((2000, 1, 20, 30), 255, dtype=torch.uint8), RandomErase(0.5, (0.1, 0.3))
    gone = (erase.apply(x, erase.sample(streams(2000))) == 0)[:, 0].float()
    share = gone.mean((1, 2))
    assert abs((share > 0).float().mean() - 0.5) < 0.06
    erased = gone[share > 0]
    assert share[share > 0].min() > 0.06
    assert share.max() < 0.36
    rows, columns = erased.amax(2).sum(1), erased.amax(1).sum(1)
    assert torch.equal(rows * columns, erased.sum((1, 2)))  # rectangles
    centre = erased.mean(0)
    assert centre[10, 15] > 2 * centre[0, 0] > 0


def mixed(mix: Mix, num: int = 2000) -> tuple[Params, Tensor, Tensor, Tensor]:
    x, partners = (
        torch.zeros(num, 3, 20, 30, dtype=torch.uint8),
        torch.full((num, 3, 20, 30), 200, dtype=torch.uint8),
    )
    params = mix.sample(streams(num), 77)
    return params, x, partners, mix.apply(x, partners, params)


def test_labels_are_mixed_as_pixels_are() -> None:
    for mix in (Mix(mixup=0.4), Mix(cutmix=1.0), Mix(0.2, 1.0), Mix(0.2, 1.0, chance=0.3)):
        params, _, _, got = mixed(mix)
        share = 1 - got.float().mean((1, 2, 3)) / 200
        assert np.abs(share.numpy() - kept_share(params, 20, 30)).max() < 0.003  # half a grey level of 200
        assert abs(is_mixed(params).mean() - mix.chance) < 0.06
        assert set(params["partner"].tolist()) == set(range(77))


def test_cutmix_pastes_rows_and_columns_of_all_channels() -> None:
    params, _, _, got = mixed(Mix(cutmix=1.0), 300)
    pasted = (got == 200).float()
    assert torch.equal(pasted[:, 0], pasted[:, 1])
    rows, columns = pasted[:, 0].amax(2), pasted[:, 0].amax(1)
    assert torch.equal(rows[:, :, None] * columns[:, None], pasted[:, 0])
    assert len({int(row.sum()) for row in rows}) > 10
    assert len({int(column.sum()) for column in columns}) > 10
    assert 0.2 < 1 - kept_share(params, 20, 30).mean() < 0.5


def test_mixup_shares_follow_their_distribution() -> None:
    from scipy.stats import beta, kstest

    for alpha in (0.2, 1.0, 3.0):
        share = Mix(mixup=alpha).sample(streams(3000), 5)["share"]
        assert kstest(share, beta(alpha, alpha).cdf).pvalue > 1e-3
    both = Mix(0.2, 1.0).sample(streams(3000), 5)
    assert abs((both["box"]["height"] > 0).mean() - 0.5) < 0.05


@pytest.mark.parametrize(
    "make",
    [
        lambda: PadCrop(-1),
        lambda: Flip(2.0),
        lambda: RandomErase(chance=-0.1),
        lambda: RandomErase(area=(0.0, 0.1)),
        lambda: ColourJitter(hue=0.6),
        lambda: ColourJitter(-1.0),
        lambda: ColourJitter(brightness=float("nan")),
        lambda: ColourJitter(contrast=float("inf")),
        lambda: RandomErase(aspect=(0.3, float("inf"))),
        lambda: PadCrop(2**15),
        lambda: RandAugment(0),
        lambda: RandAugment(2, 31),
        lambda: RandomResizedCrop((0.5, 0.2)),
        lambda: RandomResizedCrop(aspect=(0.0, 1.0)),
        lambda: Mix(),
        lambda: Mix(mixup=float("inf")),
        lambda: Mix(1.0, chance=0.0),
    ],
)
def test_settings_out_of_range_are_refused(make) -> None:
    with pytest.raises(RecipeError, match="expected"):
        make()
