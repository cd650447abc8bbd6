"""Batches of pictures under each of several corruptions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import final

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from regraft.errors import RecipeError
from regraft.vision.batches import MEMORY_BYTES
from regraft.vision.corruptions import SMALLEST_PX, check_corruptions, corrupt, load_corruptions
from regraft.vision.data import ImageSet
from regraft.vision.frames import FramesInMemory, choose_frames
from regraft.vision.images import BadImage
from regraft.vision.left_out import LeftOut
from regraft.vision.preprocess import Preprocess
from regraft.vision.workers import in_processes

Corruption = tuple[str, int]
"""A name and a severity."""


@final
class CorruptedBatches:
    """All pictures of a set in their order, as they are and then once for each corruption.

    A picture is corrupted as the network would see it: cut to its square, still in 8 bits and in colour.
    ImageNet-C does the same with squares of 224 pixels. What happens to it depends on the seed, its id, the
    corruption and the severity alone, not on batches or processes.

    Args:
        samples: The pictures.
        preprocess: How they are cut and normalised.
        corruptions: Names and severities, in the order they are wanted in.
        seed: Another seed is another draw.
        batch_size: Pictures in a batch; the last may be shorter.
        workers: Processes that corrupt; 0 does it in this one.
        memory_bytes: Memory that decoded squares may take; 0 keeps none, and each is decoded every time.
        left_out: Where the pictures are named that cannot be read; `None` is a new one in memory.

    Raises:
        RecipeError: An unknown corruption or severity, squares that are too small, a batch size below 1.
        MissingExtra: The package that corrupts is not installed.
    """

    def __init__(
        self,
        samples: ImageSet,
        preprocess: Preprocess,
        corruptions: Sequence[Corruption],
        *,
        seed: int = 0,
        batch_size: int = 128,
        workers: int = 0,
        memory_bytes: int = MEMORY_BYTES,
        left_out: LeftOut | None = None,
    ) -> None:
        for name, severity in corruptions:
            check_corruptions([name], [severity])
        if preprocess.size_px < SMALLEST_PX:
            raise RecipeError(
                f"The network sees {preprocess.size_px} pixels; corruptions need at least {SMALLEST_PX}."
            )
        if batch_size < 1:
            raise RecipeError(f"batch_size is {batch_size}, expected at least 1.")
        load_corruptions()
        colour = replace(preprocess, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
        self._samples = samples
        self._frames = choose_frames(
            samples, colour, largest_px=colour.size_px, memory_bytes=memory_bytes, workers=workers
        )
        self._preprocess = preprocess
        self._from_square = replace(preprocess, crop=1.0)
        self._settings: tuple[Corruption | None, ...] = (None, *corruptions)
        self._seed = seed
        self._batch_size = batch_size
        self._workers = workers
        self._left_out = LeftOut() if left_out is None else left_out

    def __len__(self) -> int:
        return len(self._settings) * self._batches_each

    def __iter__(self) -> Iterator[tuple[Corruption | None, dict[str, Tensor]]]:
        """Yield `None` or a corruption, and a batch of `image`, Float (b c h w), and `label`, Int (b).

        A batch none of whose pictures can be read is empty.
        """
        if isinstance(self._frames, FramesInMemory) and self._workers:
            # Before the processes start, or each would decode all pictures for itself.
            self._frames([0], self._preprocess.size_px)
        for number, (batch, bad) in enumerate(in_processes(self.assemble, range(len(self)), self._workers)):
            self._left_out.add(bad)
            yield self._settings[number // self._batches_each], batch

    def report(self) -> LeftOut:
        """The pictures that could not be read so far, and all others that `left_out` holds."""
        return self._left_out

    def assemble(self, number: int) -> tuple[dict[str, Tensor], Mapping[str, BadImage]]:
        """Batch `number`, and what was wrong with the pictures left out of it."""
        setting, batch = divmod(number, self._batches_each)
        start = batch * self._batch_size
        indices = range(start, min(start + self._batch_size, len(self._samples)))
        framed = self._frames(indices, self._preprocess.size_px)
        kept = [indices[position] for position in framed.kept]
        squares = [
            self._square(pixels, self._samples.ids[index], self._settings[setting])
            for pixels, index in zip(framed.pixels, kept, strict=True)
        ]
        size_px = self._preprocess.size_px
        empty = torch.empty(0, self._preprocess.channels, size_px, size_px, dtype=torch.uint8)
        image = self._preprocess.normalise(torch.stack(squares) if squares else empty)
        label = torch.tensor([self._samples.labels[index] for index in kept], dtype=torch.int64)
        return {"image": image, "label": label}, framed.bad

    def _square(
        self, pixels: UInt8[Tensor, "3 s s"], sample_id: str, setting: Corruption | None
    ) -> UInt8[Tensor, "c s s"]:
        array = pixels.permute(1, 2, 0).contiguous().numpy()
        if setting is not None:
            name, severity = setting
            array = corrupt(array, name, severity, sample_id=sample_id, seed=self._seed)
        return self._from_square.frame(Image.fromarray(array))

    @property
    def _batches_each(self) -> int:
        return -(-len(self._samples) // self._batch_size)
