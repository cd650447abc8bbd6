"""Making a table of a teacher's answers block by block, each wherever it may be."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float32, Int, UInt8
from torch import Tensor

from regraft.augment import codec
from regraft.augment.protocol import Params
from regraft.errors import RecipeError, SampleError
from regraft.tables.columns import Column
from regraft.tables.topk import TopK
from regraft.vision.teachers import Teacher
from regraft.vision.views import Views
from regraft.vision.workers import in_processes

ANSWERS, PARAMETERS = "soft", "parameters"
"""Names of the columns: the teacher's answers, and where they are stored the parameters of the views."""
BLOCK_VIEWS = 512
"""Views of a block, or those of one picture if it has more. The teacher sees as many at once, so that a table
has the same bytes wherever its blocks are made."""

Records = dict[str, np.ndarray]
"""Records of some rows, by column."""


@final
@dataclass(frozen=True, eq=False)
class ViewBlocks:
    """The views of block number n: all draws of a few pictures, which are taken in the order of their ids.

    Args:
        views: Makes them.
        num_draws: Views of each picture.
    """

    views: Views
    num_draws: int

    @property
    def pictures_per_block(self) -> int:
        """Pictures of every block but the last."""
        return max(1, BLOCK_VIEWS // self.num_draws)

    def __len__(self) -> int:
        return math.ceil(len(self.views.order) / self.pictures_per_block)

    def rows(self, number: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """The index of the picture and the draw of each row of block `number`."""
        start = number * self.pictures_per_block
        pictures = self.views.order[start : start + self.pictures_per_block]
        return np.repeat(pictures, self.num_draws), np.tile(np.arange(self.num_draws), len(pictures))

    def __call__(self, number: int) -> UInt8[Tensor, "n c s s"]:
        """The views of block `number`.

        Raises:
            SampleError: A picture of it cannot be read.
        """
        return self.show(number, self.views.sample(*self.rows(number)))

    def show(self, number: int, params: Params) -> UInt8[Tensor, "n c s s"]:
        """The views of block `number` that `params` describe.

        Raises:
            SampleError: A picture of it cannot be read.
        """
        indices, draws = self.rows(number)
        seeds, size_px = self.views.seeds(indices, draws), self.views.preprocess.size_px
        viewed = self.views.show(indices, params, seeds, size_px)
        if viewed.bad:
            raise SampleError(
                f"A picture turned bad: {next(iter(viewed.bad.values()))}",
                hint="A table holds every picture; remove it, and record into another place.",
            )
        return viewed.pixels


@final
@dataclass(frozen=True, eq=False)
class Blocks:
    """The records of block number n.

    Args:
        seen: The views.
        teacher: Judges them.
        columns: What is stored of each view: how an answer is, and whether its parameters are.
    """

    seen: ViewBlocks
    teacher: Teacher
    columns: Mapping[str, Column]

    @property
    def column(self) -> TopK:
        """How an answer is stored."""
        column = self.columns[ANSWERS]
        assert isinstance(column, TopK), "answers are stored as their largest part"
        return column

    def ask(self, pixels: UInt8[Tensor, "n c s s"]) -> Float32[np.ndarray, "n classes"]:
        """Logarithms of the probabilities that the teacher gives each view.

        Raises:
            RecipeError: The teacher knows another number of classes.
        """
        asked = [self.teacher(part).float().cpu() for part in pixels.split(BLOCK_VIEWS)]
        answers = torch.cat(asked).numpy()
        if answers.shape[1] != self.column.num_classes:
            raise RecipeError(
                f"The teacher knows {answers.shape[1]} classes, expected {self.column.num_classes}."
            )
        return answers

    def store(self, number: int, answers: Float32[np.ndarray, "n classes"]) -> Records:
        """The records of block `number`."""
        records = {ANSWERS: self.column.encode(answers)}
        if PARAMETERS in self.columns:
            records[PARAMETERS] = codec.encode(self.seen.views.sample(*self.seen.rows(number)))
        return records

    def __call__(self, number: int) -> Records:
        """Look, ask and store.

        Raises:
            SampleError: A picture cannot be read.
            RecipeError: The teacher knows another number of classes.
        """
        return self.store(number, self.ask(self.seen(number)))


Executor = Callable[[Blocks, range], Iterator[Records]]
"""Makes the blocks of some numbers, and yields them in their order."""


@final
@dataclass(frozen=True)
class Here:
    """Make blocks in this process, their views in others.

    Args:
        workers: Processes that make views; 0 makes them here.
    """

    workers: int = 0

    def __call__(self, blocks: Blocks, numbers: range) -> Iterator[Records]:
        """Make blocks, one after the other."""
        seen = in_processes(blocks.seen, numbers, self.workers)
        for number, pixels in zip(numbers, seen, strict=True):
            yield blocks.store(number, blocks.ask(pixels))
