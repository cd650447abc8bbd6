"""Batches of pictures that depend on nothing but the seed and the step."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from regraft.data.stream import Order, check_share, counter_seed, share
from regraft.errors import RecipeError, SampleError
from regraft.vision.crops import BatchAugment
from regraft.vision.data import ImageSet
from regraft.vision.frames import FramesInMemory, PictureAugment, choose_frames, seeded
from regraft.vision.images import BadImage
from regraft.vision.left_out import LeftOut
from regraft.vision.preprocess import Preprocess
from regraft.vision.workers import in_processes

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""A random blend of a batch of float pictures and its labels, such as torchvision's `v2.MixUp`.

It may use the global random generators of torch, NumPy and Python; they are seeded for it.
"""

MEMORY_BYTES = 2**30
"""Memory that decoded pictures may take unless said otherwise."""


class ImageBatches:
    """The training batches of a set of pictures, for `train.fit`.

    Each picture is read, changed by `augment`, cut to a square by `preprocess`, changed by
    `augment_pixels`, normalised, and blended with others by `mix`. Every random draw is seeded by what it
    is for (a picture's by seed, epoch and sample id; a blend's by seed and step), so batch n is the same
    in any run, on any number of workers, and each picture's draws in any number of processes.

    Pictures that no `augment` changes are decoded once and kept in memory, if they fit; others are read
    anew each time. Nothing but speed depends on that.

    Args:
        samples: The pictures.
        order: Which of them make up batch n; its seed is the seed of all draws.
        preprocess: How the square is cut and normalised. A random crop in `augment` wants `crop=1` here.
        augment: A random change of each upright picture before the square is cut; `None` is none.
        augment_pixels: A random change of the 8-bit squares of a batch, such as `PadCropFlip`; `None`
            is none.
        mix: A random blend of a batch; `None` is none.
        sizes: Pairs (first epoch, size in pixels) of a growing picture size, in ascending epochs; before
            the first pair and without any it is `preprocess.size_px`.
        rank: The number of this process, from 0.
        world: The number of processes that share each batch.
        workers: Processes that prepare batches, where they are not in memory; 0 prepares them here.
        memory_bytes: Memory that decoded pictures may take, in each process; 0 keeps none.
        left_out: Where the pictures are named that cannot be read; `None` is a new one in memory.

    Raises:
        RecipeError: Settings out of range or at odds with each other.
    """

    def __init__(
        self,
        samples: ImageSet,
        order: Order,
        preprocess: Preprocess,
        *,
        augment: PictureAugment | None = None,
        augment_pixels: BatchAugment | None = None,
        mix: Mix | None = None,
        sizes: Sequence[tuple[int, int]] = (),
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        memory_bytes: int = MEMORY_BYTES,
        left_out: LeftOut | None = None,
    ) -> None:
        check_share(order.batch_size, rank, world)
        _check_sizes(sizes)
        if order.num_samples != len(samples):
            raise RecipeError(f"The order is of {order.num_samples} samples, but there are {len(samples)}.")
        largest_px = max([preprocess.size_px, *(size_px for _, size_px in sizes)])
        frames = choose_frames(
            samples,
            preprocess,
            augment=augment,
            seed=order.seed,
            largest_px=largest_px,
            memory_bytes=memory_bytes,
            workers=workers,
        )
        # What is in memory is cheaper to batch here than to send from another process.
        self._workers = 0 if isinstance(frames, FramesInMemory) else workers
        self._samples = samples
        self._order = order
        self._preprocess = preprocess
        self._frames = frames
        self._augment_pixels = augment_pixels
        self._mix = mix
        self._sizes = tuple(sizes)
        self._rank = rank
        self._world = world
        self._left_out = LeftOut() if left_out is None else left_out

    def __call__(self, start_step: int) -> Iterator[dict[str, Tensor]]:
        """Yield batch `start_step` and all that follow it, without end.

        A batch has `image`, Float (b c h w), and `label`, Int (b); what `mix` makes of the labels
        where there is one. In the place of a picture that cannot be read stands the next good one of
        this process's share, so that all shares stay equally long; the report names it.

        Raises:
            SampleError: No picture of a share can be read.
        """
        for batch, bad in in_processes(self.assemble, itertools.count(start_step), self._workers):
            self._left_out.add(bad)
            if not len(batch["image"]):
                raise SampleError(f"No picture of a batch can be read: {'; '.join(map(str, bad.values()))}")
            yield batch

    def report(self) -> LeftOut:
        """The pictures that could not be read so far, and all others that `left_out` holds."""
        return self._left_out

    def size_px(self, epoch: int) -> int:
        """Width and height of the pictures in `epoch`."""
        reached = [size_px for from_epoch, size_px in self._sizes if from_epoch <= epoch]
        return reached[-1] if reached else self._preprocess.size_px

    def assemble(self, step: int) -> tuple[dict[str, Tensor], Mapping[str, BadImage]]:
        """Batch `step`, and what was wrong with the pictures that others stand in for."""
        epoch, of_all_processes = self._order.batch(step)
        indices = [int(index) for index in share(of_all_processes, self._rank, self._world)]
        framed = self._frames(indices, epoch, self.size_px(epoch)).filled(len(indices))
        kept = [indices[position] for position in framed.kept]
        pixels = framed.pixels
        if self._augment_pixels is not None:
            pixels = self._augment_pixels(pixels, self._seeds(epoch, kept))
        image = self._preprocess.normalise(pixels)
        label = torch.tensor([self._samples.labels[index] for index in kept], dtype=torch.int64)
        if self._mix is not None and kept:
            with seeded(counter_seed("mix", self._order.seed, step)):
                image, label = self._mix(image, label)
        return {"image": image, "label": label}, framed.bad

    def _seeds(self, epoch: int, indices: Sequence[int]) -> np.ndarray:
        ids = (self._samples.ids[index] for index in indices)
        return np.array([counter_seed("pixels", self._order.seed, epoch, name) for name in ids], np.uint64)


class OrderedBatches:
    """All pictures of a set once, in their order and unchanged, for evaluation; iterate as often as you like.

    Pictures that cannot be read are left out, because a stand-in would count twice; the report names them.

    Args:
        samples: The pictures.
        preprocess: How they are cut and normalised.
        batch_size: Pictures in a batch; the last may be shorter.
        workers: Processes that prepare batches, where they are not in memory; 0 prepares them here.
        memory_bytes: Memory that decoded pictures may take; 0 keeps none.
        left_out: Where the pictures are named that cannot be read; `None` is a new one in memory.

    Raises:
        RecipeError: `batch_size` is below 1.
    """

    def __init__(
        self,
        samples: ImageSet,
        preprocess: Preprocess,
        *,
        batch_size: int = 128,
        workers: int = 0,
        memory_bytes: int = MEMORY_BYTES,
        left_out: LeftOut | None = None,
    ) -> None:
        if batch_size < 1:
            raise RecipeError(f"batch_size is {batch_size}, expected at least 1.")
        self._samples = samples
        self._preprocess = preprocess
        self._batch_size = batch_size
        size_px = preprocess.size_px
        self._frames = choose_frames(
            samples, preprocess, largest_px=size_px, memory_bytes=memory_bytes, workers=workers
        )
        self._workers = 0 if isinstance(self._frames, FramesInMemory) else workers
        self._left_out = LeftOut() if left_out is None else left_out

    def __len__(self) -> int:
        return -(-len(self._samples) // self._batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield batches of `image`, Float (b c h w), and `label`, Int (b)."""
        for batch, bad in in_processes(self.assemble, range(len(self)), self._workers):
            self._left_out.add(bad)
            if len(batch["image"]):
                yield batch

    def report(self) -> LeftOut:
        """The pictures that could not be read so far, and all others that `left_out` holds."""
        return self._left_out

    def assemble(self, number: int) -> tuple[dict[str, Tensor], Mapping[str, BadImage]]:
        """Batch `number`, and what was wrong with the pictures left out of it."""
        start = number * self._batch_size
        indices = range(start, min(start + self._batch_size, len(self._samples)))
        framed = self._frames(indices, 0, self._preprocess.size_px)
        label = torch.tensor([self._samples.labels[indices[position]] for position in framed.kept])
        return {
            "image": self._preprocess.normalise(framed.pixels),
            "label": label.to(torch.int64),
        }, framed.bad


def _check_sizes(sizes: Sequence[tuple[int, int]]) -> None:
    epochs = [epoch for epoch, _ in sizes]
    if epochs != sorted(set(epochs)) or any(epoch < 0 for epoch in epochs):
        raise RecipeError(f"The sizes start at the epochs {epochs}, expected ascending ones from 0 on.")
    if any(size_px < 1 for _, size_px in sizes):
        raise RecipeError(f"The sizes are {[size for _, size in sizes]}, expected at least 1 pixel.")
