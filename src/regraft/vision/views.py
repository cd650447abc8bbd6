"""Views of pictures: each a function of its parameters, which are a function of sample, draw and seed."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8, UInt64
from torch import Tensor

from regraft.augment.protocol import Params
from regraft.augment.streams import Streams, keys_of
from regraft.vision.data import ImageSet
from regraft.vision.frames import Draws, Framed, PictureAugment, choose_frames
from regraft.vision.images import BadImage
from regraft.vision.mixing import is_mixed, kept_share
from regraft.vision.preprocess import Preprocess
from regraft.vision.variation import Variation


@dataclass(frozen=True)
class Viewed:
    """Views of some samples.

    Args:
        pixels: The views that could be made.
        kept: Which of the samples asked for they are, by position, ascending.
        partner: Index of the picture that each is blended with; its own where there is none.
        share: What is left of each picture itself, in (0, 1].
        bad: What was wrong with pictures that could not be read, by sample id. A view whose partner cannot be
            read cannot be made either.
    """

    pixels: UInt8[Tensor, "b c s s"]
    kept: Sequence[int]
    partner: Int[np.ndarray, " b"]
    share: Float[np.ndarray, " b"]
    bad: Mapping[str, BadImage]

    def filled(self, num: int) -> "Viewed":
        """All `num` samples asked for: in the place of a lost view the next good one, around the end.

        `kept` then says where each came from. There are none still if none is good.
        """
        if len(self.kept) == num or not self.kept:
            return self
        return self.take([bisect_left(self.kept, position) % len(self.kept) for position in range(num)])

    def take(self, rows: Sequence[int]) -> "Viewed":
        """Some of the views, in any order."""
        chosen = list(rows)
        kept = [self.kept[row] for row in chosen]
        return replace(
            self,
            pixels=self.pixels[chosen],
            kept=kept,
            partner=self.partner[chosen],
            share=self.share[chosen],
        )


class Views:
    """Makes views of a set of pictures.

    A view depends on the seed, the sample's id, the number of the draw, the variation and the size alone;
    where pictures are mixed, on the set's ids as well, because any of them may be the partner.

    Args:
        samples: The pictures.
        preprocess: How the square is cut where the variation cuts none, and the colours.
        variation: What is random about a view.
        seed: Of every draw.
        augment: A random change of each upright picture before anything else; `None` is none. Its draws are
            seeded, but what it does is not written down: use it for training, not for what is to be repeated.
        largest_px: The largest size that will be asked for; `None` is the preprocessing's.
        memory_bytes: Memory that decoded pictures may take; 0 keeps none.
        workers: Processes that fill the memory.
    """

    def __init__(
        self,
        samples: ImageSet,
        preprocess: Preprocess,
        variation: Variation,
        seed: int,
        *,
        augment: PictureAugment | None = None,
        largest_px: int | None = None,
        memory_bytes: int,
        workers: int = 0,
    ) -> None:
        self.samples = samples
        self.preprocess = preprocess
        self.variation = variation
        self.seed = seed
        self.frames = choose_frames(
            samples,
            preprocess,
            augment=augment,
            crop=variation.crop,
            largest_px=largest_px or preprocess.size_px,
            memory_bytes=memory_bytes,
            workers=workers,
        )
        self._keys = keys_of(samples.ids)
        # A partner is drawn by its place among the sorted ids, which no reordering of the set changes.
        self.order = np.array(sorted(range(len(samples)), key=samples.ids.__getitem__), np.int64)

    def sample(self, indices: Int[np.ndarray, " b"], draws: Int[np.ndarray, " b"]) -> Params:
        """The parameters of one view of each sample."""
        streams = Streams.of(self.seed, self._keys[indices], draws)
        return self.variation.sample(streams, len(self.samples))

    def seeds(self, indices: Int[np.ndarray, " b"], draws: Int[np.ndarray, " b"]) -> UInt64[np.ndarray, " b"]:
        """A seed for `augment` for one view of each sample."""
        return Streams.of(self.seed, self._keys[indices], draws).child("picture").seeds

    def __call__(self, indices: Int[np.ndarray, " b"], draws: Int[np.ndarray, " b"]) -> Viewed:
        """View number `draws` of the samples at `indices`."""
        params, seeds = self.sample(indices, draws), self.seeds(indices, draws)
        return self.show(indices, params, seeds, self.preprocess.size_px)

    def show(
        self, indices: Int[np.ndarray, " b"], params: Params, seeds: UInt64[np.ndarray, " b"], size_px: int
    ) -> Viewed:
        """The views that `params` describe, `size_px` wide and high.

        Args:
            indices: Of the samples.
            params: A row a view, from `sample`.
            seeds: A seed a view for `augment`, which nothing else reads.
            size_px: Their height and width.
        """
        own = self._framed(indices, params, seeds, size_px)
        kept = np.asarray(own.kept, np.int64)
        viewed = Viewed(own.pixels, own.kept, indices[kept], np.ones(len(kept)), own.bad)
        if self.variation.mix is None or not len(kept):
            return viewed
        return self._mixed(viewed, params[kept], seeds[kept], size_px)

    def _framed(
        self, indices: Int[np.ndarray, " b"], params: Params, seeds: UInt64[np.ndarray, " b"], size_px: int
    ) -> Framed:
        """Frames after the steps on the square."""
        crops = params["crop"] if self.variation.crop is not None else None
        framed = self.frames([int(index) for index in indices], size_px, Draws(seeds, crops))
        steps = self.variation.steps
        return replace(framed, pixels=steps.apply(framed.pixels, params["steps"][list(framed.kept)]))

    def _mixed(self, viewed: Viewed, params: Params, seeds: UInt64[np.ndarray, " b"], size_px: int) -> Viewed:
        """The views blended with their partners, those without the partners they need left out."""
        mix = self.variation.mix
        assert mix is not None
        rows = np.flatnonzero(is_mixed(params["mix"]))
        partner = viewed.partner.copy()
        partner[rows] = self.order[params["mix"]["partner"][rows]]
        # Seeds of its own, or an augmentation outside the variation would do the same to both.
        other = self._framed(partner[rows], params["partner"][rows], ~seeds[rows], size_px)
        good = rows[list(other.kept)]
        pixels = viewed.pixels.clone()
        pixels[torch.from_numpy(good)] = mix.apply(viewed.pixels[good], other.pixels, params["mix"][good])
        share = kept_share(params["mix"], size_px, size_px)
        mixed = replace(viewed, pixels=pixels, partner=partner, share=share, bad={**viewed.bad, **other.bad})
        if len(good) == len(rows):
            return mixed
        lost = set(rows.tolist()) - set(good.tolist())
        return mixed.take([row for row in range(len(pixels)) if row not in lost])
