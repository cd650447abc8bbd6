"""Pictures cut to the square a network sees: decoded once into memory, or again whenever needed."""

import random
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Protocol, cast, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8, UInt64
from PIL import Image
from torch import Tensor

from regraft.augment.protocol import Params
from regraft.errors import RecipeError
from regraft.vision.arrays import image_from_tensor
from regraft.vision.crops import RandomResizedCrop
from regraft.vision.data import ImageSet
from regraft.vision.images import BadImage, read_image
from regraft.vision.preprocess import Preprocess
from regraft.vision.workers import in_processes

_CHUNK = 256
"""Pictures a worker decodes at once when filling the memory."""

PictureAugment = Callable[[Image.Image], Image.Image | Tensor]
"""A random change of one upright RGB picture, such as a torchvision v2 transform.

It may use the global random generators of torch, NumPy and Python; they are seeded for it. A tensor it
returns is `(c h w)`, 8 bits or floats within [0, 1].
"""


@dataclass(frozen=True)
class Framed:
    """Square pictures of some samples.

    Args:
        pixels: The pictures that could be read.
        kept: Which of the samples asked for they are, by position, ascending.
        bad: What was wrong with the others, by sample id.
    """

    pixels: UInt8[Tensor, "b c s s"]
    kept: Sequence[int]
    bad: Mapping[str, BadImage]


@dataclass(frozen=True)
class Draws:
    """What is random about the frames of some samples.

    Args:
        seeds: For the augmentation of each picture.
        crops: The part of each picture that is seen, where parts are drawn.
    """

    seeds: UInt64[np.ndarray, " b"]
    crops: Params | None = None


@runtime_checkable
class Frames(Protocol):
    """Square pictures on request."""

    def __call__(self, indices: Sequence[int], size_px: int, draws: Draws | None = None) -> Framed:
        """The samples at `indices`, each by its own draw, `size_px` wide and high."""
        ...


class FramesOnTheFly:
    """Decodes, augments and cuts pictures each time they are asked for.

    Args:
        samples: The pictures.
        preprocess: How the square is cut, unless `crop` cuts it.
        augment: Applied to the decoded picture before; `None` leaves it alone.
        crop: Cuts a random part; `None` leaves the cut to `preprocess`.
    """

    def __init__(
        self,
        samples: ImageSet,
        preprocess: Preprocess,
        augment: PictureAugment | None = None,
        crop: RandomResizedCrop | None = None,
    ) -> None:
        self.samples = samples
        self.preprocess = preprocess
        self.augment = augment
        self.crop = crop

    def __call__(self, indices: Sequence[int], size_px: int, draws: Draws | None = None) -> Framed:
        """The samples at `indices`, each by its own draw, `size_px` wide and high.

        Where something is random, `draws` must be given.
        """
        preprocess = replace(self.preprocess, size_px=size_px)
        pixels: list[Tensor] = []
        kept: list[int] = []
        bad: dict[str, BadImage] = {}
        # Views of one picture that follow one another share its decoding, which is most of the work.
        for index, same in groupby(range(len(indices)), indices.__getitem__):
            try:
                image = self.samples.read(index).image
            except BadImage as error:
                bad[self.samples.ids[index]] = error
                continue
            for position in same:
                pixels.append(self._view(image, preprocess, position, draws))
                kept.append(position)
        empty = torch.empty(0, preprocess.channels, size_px, size_px, dtype=torch.uint8)
        return Framed(torch.stack(pixels) if pixels else empty, kept, bad)

    def _view(
        self, image: Image.Image, preprocess: Preprocess, position: int, draws: Draws | None
    ) -> UInt8[Tensor, "c s s"]:
        if self.augment is not None:
            assert draws is not None, "an augmentation draws"
            image = _augmented(image, self.augment, int(draws.seeds[position]))
        if self.crop is None:
            return preprocess.frame(image)
        assert draws is not None, "a random crop is drawn"
        assert draws.crops is not None, "a random crop is drawn"
        whole = preprocess.pixels(image)[None]
        return self.crop.apply_to(whole, draws.crops[position : position + 1], preprocess.size_px)[0]


def _augmented(image: Image.Image, augment: PictureAugment, seed: int) -> Image.Image:
    with seeded(seed):
        # It is the user's, so what it returns is checked whatever it promises.
        changed = cast(object, augment(image))
    if isinstance(changed, Tensor):
        changed = image_from_tensor(changed)
    if not isinstance(changed, Image.Image):
        raise RecipeError(
            f"The augmentation returned a {type(changed).__name__}, expected a PIL image or a tensor."
        )
    return read_image(changed)


class FramesInMemory:
    """Decodes and cuts all pictures when first asked, and again only when the size changes.

    Args:
        source: Where the pictures come from; not augmented, or all epochs would show the same draw.
        workers: Processes that decode; 0 decodes in this one.
    """

    def __init__(self, source: FramesOnTheFly, workers: int = 0) -> None:
        if source.augment is not None or source.crop is not None:
            raise RecipeError("Augmented pictures cannot be kept in memory.")
        self._source = source
        self._num_samples = len(source.samples)
        self._workers = workers
        self._pixels = torch.empty(0, 0, 0, 0, dtype=torch.uint8)
        self._bad: dict[str, BadImage] = {}

    def __call__(self, indices: Sequence[int], size_px: int, draws: Draws | None = None) -> Framed:
        """The samples at `indices`, which are the same in every draw, `size_px` wide and high."""
        if self._pixels.shape[-1] != size_px:
            self._load(size_px)
        if not self._bad:
            return Framed(self._pixels[list(indices)], range(len(indices)), {})
        ids = [self._source.samples.ids[index] for index in indices]
        kept = [position for position, name in enumerate(ids) if name not in self._bad]
        bad = {name: self._bad[name] for name in ids if name in self._bad}
        return Framed(self._pixels[[indices[position] for position in kept]], kept, bad)

    def _load(self, size_px: int) -> None:
        channels = self._source.preprocess.channels
        # The old frames go first, so that two sizes are never held at once.
        self._pixels = torch.empty(0, 0, 0, 0, dtype=torch.uint8)
        pixels = torch.zeros(self._num_samples, channels, size_px, size_px, dtype=torch.uint8)
        bad: dict[str, BadImage] = {}
        chunks = [
            range(start, min(start + _CHUNK, self._num_samples))
            for start in range(0, self._num_samples, _CHUNK)
        ]
        framed = in_processes(_InChunks(self._source, chunks, size_px), range(len(chunks)), self._workers)
        for chunk, part in zip(chunks, framed, strict=True):
            pixels[[chunk[position] for position in part.kept]] = part.pixels
            bad |= part.bad
        self._pixels, self._bad = pixels, bad


@dataclass(frozen=True)
class _InChunks:
    """The frames of chunk number n, in a form that worker processes can be sent."""

    source: FramesOnTheFly
    chunks: Sequence[range]
    size_px: int

    def __call__(self, number: int) -> Framed:
        return self.source(self.chunks[number], self.size_px)


@contextmanager
def seeded(seed: int) -> Generator[None, None, None]:
    """Seed the global generators of torch, NumPy and Python for a block, and put them back after it."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    # Not torch.manual_seed, which would reseed the accelerators as well.
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def choose_frames(
    samples: ImageSet,
    preprocess: Preprocess,
    *,
    augment: PictureAugment | None = None,
    crop: RandomResizedCrop | None = None,
    largest_px: int,
    memory_bytes: int,
    workers: int = 0,
) -> FramesOnTheFly | FramesInMemory:
    """Frames in memory where nothing random happens to the pictures and `memory_bytes` hold them all.

    Args:
        samples: The pictures.
        preprocess: How the square is cut.
        augment: A random change of each picture, which rules memory out.
        crop: A random part of each picture, which does so too.
        largest_px: The largest size that will be asked for.
        memory_bytes: Memory the frames may take; 0 keeps none.
        workers: Processes that fill the memory.
    """
    on_the_fly = FramesOnTheFly(samples, preprocess, augment, crop)
    needed = len(samples) * preprocess.channels * largest_px**2
    if augment is not None or crop is not None or needed > memory_bytes:
        return on_the_fly
    return FramesInMemory(on_the_fly, workers)
