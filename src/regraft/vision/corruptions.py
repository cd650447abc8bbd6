"""The fifteen corruptions of ImageNet-C, at five severities."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import numpy as np
from jaxtyping import UInt8

from regraft.data.stream import counter_seed
from regraft.errors import MissingExtra, RecipeError, ShapeError, nearest
from regraft.vision.frames import seeded

FAMILIES: dict[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
"""The corruptions by kind, as the paper groups them."""
CORRUPTIONS = tuple(name for names in FAMILIES.values() for name in names)
SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST_PX = 32
"""The corruptions need as much in both directions."""

_OWN_GENERATOR = ("impulse_noise", "glass_blur")
"""These do not draw from NumPy's global generator, but take a seed."""


def corrupt(
    pixels: UInt8[np.ndarray, "h w 3"], corruption: str, severity: int, *, sample_id: str, seed: int = 0
) -> UInt8[np.ndarray, "h w 3"]:
    """A picture with one corruption of ImageNet-C (arXiv 1903.12261), made by the package `imagecorruptions`.

    It depends on the picture, its id, the corruption, the severity and the seed alone. ImageNet-C itself
    was then stored as JPEG, which is not repeated here, so its published figures are not comparable to the
    last point. The strengths suit pictures of 224 pixels. Smaller ones are harmed more, and CIFAR-10-C,
    with milder strengths of its own, is another test.

    Args:
        pixels: RGB, at least 32 pixels wide and high.
        corruption: One of `CORRUPTIONS`.
        severity: 1 to 5.
        sample_id: What the picture is called.
        seed: Another seed is another draw.

    Raises:
        RecipeError: An unknown corruption or severity.
        ShapeError: The picture is too small.
        MissingExtra: The package is not installed.
    """
    check_corruptions([corruption], [severity])
    if min(pixels.shape[:2]) < SMALLEST_PX:
        raise ShapeError(
            f"The picture is {pixels.shape[1]} x {pixels.shape[0]} pixels; corruptions need at least "
            f"{SMALLEST_PX} in both directions."
        )
    package = load_corruptions()
    drawn = counter_seed("corruption", seed, sample_id, corruption, severity)
    own = {"seed": drawn % 2**32} if corruption in _OWN_GENERATOR else {}
    with seeded(drawn), _single_threaded():
        return package(pixels, severity=severity, corruption_name=corruption, **own)


def check_corruptions(corruptions: Sequence[str], severities: Sequence[int]) -> None:
    """Refuse what is no corruption or severity, none at all, and repetitions.

    Raises:
        RecipeError: With the first of them.
    """
    for name in corruptions:
        if name not in CORRUPTIONS:
            raise RecipeError(
                f"There is no corruption {name!r}.",
                hint=f"{nearest(name, CORRUPTIONS)}There are {', '.join(CORRUPTIONS)}.",
            )
    for severity in severities:
        if severity not in SEVERITIES:
            raise RecipeError(f"The severity is {severity}; expected a whole number from 1 to 5.")
    for what, given in {"corruptions": corruptions, "severities": severities}.items():
        if not given or len(set(given)) < len(given):
            raise RecipeError(f"The {what} are {list(given)}; expected at least one, and each once.")


def load_corruptions() -> Callable[..., UInt8[np.ndarray, "h w 3"]]:
    """The function that corrupts a picture, out of the optional package; it takes a while to load.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        from imagecorruptions import corrupt as function
    except ImportError as error:
        raise MissingExtra.of("corrupting pictures", "corruptions") from error
    return function


@contextmanager
def _single_threaded() -> Generator[None, None, None]:
    """Keep OpenCV from starting threads, without which a process forked later would hang."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
