"""Operations against the plainest way to compute them, at their identity, and their slopes."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from scipy.special import ive
from torch import Tensor

from regraft.errors import RecipeError, ShapeError
from regraft.vision.range_operations import (
    BLUR,
    BRIGHTNESS,
    CONTRAST,
    GAMMA,
    NOISE,
    OPERATIONS,
    SATURATION,
    Operation,
    operation_named,
)

MAGNITUDES = torch.tensor([0.3, 0.9, 1.0, 1.7, 3.2], dtype=torch.float64)


def pictures(channels: int = 3, size: tuple[int, int] = (6, 9)) -> Tensor:
    """8-bit values, 0 and 255 among them, in float64."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(256, (len(MAGNITUDES), channels, *size), generator=generator)
    values[:, :, 0, 0], values[:, :, 1, 1] = 0, 255
    return values.double() / 255


def noise_like(x: Tensor) -> Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)


def plain_contrast(x: np.ndarray, magnitude: float, _: np.ndarray) -> np.ndarray:
    return np.stack([channel.mean() + magnitude * (channel - channel.mean()) for channel in x])


def plain_saturation(x: np.ndarray, magnitude: float, _: np.ndarray) -> np.ndarray:
    red, green, blue = x
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.stack([luma + magnitude * (channel - luma) for channel in x])


def plain_blur(x: np.ndarray, magnitude: float, _: np.ndarray) -> np.ndarray:
    """The discrete Gaussian, cut off far out, along rows and columns of the mirrored picture."""
    kernel = ive(np.arange(-40, 41), magnitude)
    return correlate1d(correlate1d(x, kernel, 1, mode="reflect"), kernel, 2, mode="reflect")


TWINS = {
    "brightness": lambda x, magnitude, _: x * magnitude,
    "contrast": plain_contrast,
    "noise": lambda x, magnitude, noise: x + magnitude * noise,
    "saturation": plain_saturation,
    "gamma": lambda x, magnitude, _: x**magnitude,
    "blur": plain_blur,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_picture_is_changed_as_its_magnitude_says(name: str) -> None:
    x = pictures()
    noise = noise_like(x)
    changed = operation_named(name).apply(x, MAGNITUDES, noise).numpy()
    twin = TWINS[name]
    for found, picture, magnitude, own in zip(changed, x.numpy(), MAGNITUDES, noise.numpy(), strict=True):
        # Algebra in float64: rounding alone is left.
        np.testing.assert_allclose(found, twin(picture, float(magnitude), own), atol=1e-12)
        assert np.abs(found - twin(picture, float(magnitude) + 0.01, own)).max() > 1e-4


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.name)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-14)])
def test_the_identity_changes_nothing(operation: Operation, dtype: torch.dtype, tolerance: float) -> None:
    # Some values are outside of [0, 1], as they are between operations.
    x = pictures().to(dtype) * 1.5 - 0.2
    same = operation.apply(x, torch.full((len(x),), operation.identity, dtype=dtype), noise_like(x))
    torch.testing.assert_close(same, x, atol=tolerance, rtol=0)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.name)
def test_slopes_are_those_of_finite_differences(operation: Operation) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(3, 3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    noise = noise_like(x)
    for magnitude in ([operation.identity] * 3, [operation.lowest, 0.6, operation.highest]):
        magnitudes = torch.tensor(magnitude, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x, m: operation.apply(x, m, noise), (x, magnitudes))


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.name)
def test_the_slope_is_finite_and_not_zero_at_the_identity_and_on_black(operation: Operation) -> None:
    x = pictures()
    x[0] = 0
    magnitude = torch.full((len(x),), operation.identity, dtype=torch.float64, requires_grad=True)
    x.requires_grad_()
    away = operation.apply(x, magnitude, noise_like(x))
    away.sum(dim=(1, 2, 3)).square().sum().backward()
    (slope,) = torch.autograd.grad(
        operation.apply(x, magnitude, noise_like(x))[1:].abs().pow(3).sum(), magnitude
    )
    assert x.grad.isfinite().all()
    assert slope.isfinite().all()
    assert (slope[1:] != 0).all()


def test_the_variance_of_a_blur_is_its_magnitude() -> None:
    dot = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    dot[..., 20, 20] = 1
    spread = BLUR.apply(dot, torch.tensor([2.5], dtype=torch.float64))[0, 0].sum(0)
    offsets = torch.arange(41) - 20
    assert float(spread.sum()) == pytest.approx(1)
    assert float((spread * offsets**2).sum()) == pytest.approx(2.5)


def test_grey_pictures_keep_their_colour_and_two_channels_have_none() -> None:
    grey = pictures(channels=1)
    assert torch.equal(SATURATION.apply(grey, MAGNITUDES), grey)
    assert SATURATION.apply(pictures(), MAGNITUDES.float()).dtype == torch.float64
    with pytest.raises(ShapeError, match="2 channels"):
        SATURATION.apply(pictures(channels=2), MAGNITUDES)


@pytest.mark.parametrize(
    "operation", [BRIGHTNESS, CONTRAST, GAMMA, BLUR], ids=lambda operation: operation.name
)
def test_other_operations_do_not_care_how_many_channels_there_are(operation: Operation) -> None:
    x = pictures(channels=2)
    alone = operation.apply(x[:, 1:], MAGNITUDES)
    torch.testing.assert_close(operation.apply(x, MAGNITUDES)[:, 1:], alone)


def test_noise_must_be_given() -> None:
    with pytest.raises(RecipeError, match="'noise' needs noise"):
        NOISE.apply(pictures(), MAGNITUDES)


def test_an_unknown_operation_is_named() -> None:
    with pytest.raises(RecipeError, match=r"no operation 'contarst'.*\n.*'contrast'"):
        operation_named("contarst")
