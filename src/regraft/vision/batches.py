"""Batches of pictures that depend on nothing but the seed and the step."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from regraft.augment.protocol import Params
from regraft.data.stream import Order, check_share, share
from regraft.errors import RecipeError, SampleError
from regraft.vision.data import ImageSet
from regraft.vision.frames import FramesInMemory, PictureAugment, choose_frames
from regraft.vision.images import BadImage
from regraft.vision.left_out import LeftOut
from regraft.vision.preprocess import Preprocess
from regraft.vision.variation import Variation
from regraft.vision.views import Viewed, Views
from regraft.vision.workers import in_processes

PLAIN = Variation()

MEMORY_BYTES = 2**30
"""Memory that decoded pictures may take unless said otherwise."""


@runtime_checkable
class Targets(Protocol):
    """What is known of views beside the labels of their pictures."""

    def draws(self, indices: Int[np.ndarray, " b"], epoch: int) -> Int[np.ndarray, " b"]:
        """Which view of each sample `epoch` shows."""
        ...

    def parameters(
        self, indices: Int[np.ndarray, " b"], draws: Int[np.ndarray, " b"], drawn: Params
    ) -> Params:
        """The parameters of these views, in place of those `drawn` where others were recorded."""
        ...

    def __call__(
        self,
        indices: Int[np.ndarray, " b"],
        draws: Int[np.ndarray, " b"],
        labels: Float[Tensor, "b n"] | Int[Tensor, " b"],
    ) -> Mapping[str, Tensor]:
        """What to add to a batch of these views, whose labels are class indices, or shares where mixed."""
        ...


class ImageBatches:
    """The training batches of a set of pictures, for `train.fit`.

    Each picture is read, changed by `augment`, cut to a square, varied and normalised. Every random draw is
    a hash of the seed, the sample's id and the epoch, so batch n is the same in any run, on any number of
    workers, and each picture's draws in any number of processes.

    Pictures of which no random part is cut are decoded once and kept in memory, if they fit; others are
    read anew each time. Nothing but speed depends on that.

    Args:
        samples: The pictures.
        order: Which of them make up batch n.
        preprocess: How the square is cut and normalised. A random crop in `augment` wants `crop=1` here.
        variation: What is random about a view.
        augment: A random change of each upright picture before all others, such as a torchvision transform;
            `None` is none.
        targets: What is known of recorded views, and which of them an epoch shows; `None` knows nothing, and
            every epoch shows a fresh view.
        view_seed: The seed of all draws; `None` is the order's.
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
        variation: Variation = PLAIN,
        augment: PictureAugment | None = None,
        targets: Targets | None = None,
        view_seed: int | None = None,
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
        self._views = Views(
            samples,
            preprocess,
            variation,
            order.seed if view_seed is None else view_seed,
            augment=augment,
            largest_px=largest_px,
            memory_bytes=memory_bytes,
            workers=workers,
        )
        # What is in memory is cheaper to batch here than to send from another process.
        self._workers = 0 if isinstance(self._views.frames, FramesInMemory) else workers
        self._labels = np.array(samples.labels, np.int64)
        self._num_classes = len(samples.classes)
        self._order = order
        self._targets = targets
        self._sizes = tuple(sizes)
        self._rank = rank
        self._world = world
        self._left_out = LeftOut() if left_out is None else left_out

    def __call__(self, start_step: int) -> Iterator[dict[str, Tensor]]:
        """Yield batch `start_step` and all that follow it, without end.

        A batch has `image`, Float (b c h w), and `label`: Int (b), or Float (b n) with the share of each
        class where pictures are mixed; and what the targets add. In the place of a picture that cannot be
        read stands the next good one of this process's share, so that all shares stay equally long; the
        report names it.

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
        return reached[-1] if reached else self._views.preprocess.size_px

    def assemble(self, step: int) -> tuple[dict[str, Tensor], Mapping[str, BadImage]]:
        """Batch `step`, and what was wrong with the pictures that others stand in for."""
        epoch, of_all_processes = self._order.batch(step)
        indices = share(of_all_processes, self._rank, self._world)
        targets = self._targets
        draws = np.full(len(indices), epoch) if targets is None else targets.draws(indices, epoch)
        params = self._views.sample(indices, draws)
        if targets is not None:
            params = targets.parameters(indices, draws, params)
        seeds, size_px = self._views.seeds(indices, draws), self.size_px(epoch)
        viewed = self._views.show(indices, params, seeds, size_px).filled(len(indices))
        kept = np.asarray(viewed.kept, np.int64)
        label = self._label(indices[kept], viewed)
        batch = {"image": self._views.preprocess.normalise(viewed.pixels), "label": label}
        if targets is not None:
            batch |= targets(indices[kept], draws[kept], label)
        return batch, viewed.bad

    def _label(self, indices: Int[np.ndarray, " b"], viewed: Viewed) -> Tensor:
        own = torch.from_numpy(self._labels[indices])
        if self._views.variation.mix is None:
            return own
        share = torch.from_numpy(viewed.share).float()
        label = torch.zeros(len(own), self._num_classes)
        label.scatter_(1, own[:, None], share[:, None])
        other = torch.from_numpy(self._labels[viewed.partner])
        return label.scatter_add_(1, other[:, None], 1 - share[:, None])


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
        framed = self._frames(indices, self._preprocess.size_px)
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
