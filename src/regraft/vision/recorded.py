"""Training on a table: which recorded view an epoch shows, and what the teacher said of it."""

import math
from collections.abc import Mapping
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from regraft.augment import codec
from regraft.augment.protocol import Params
from regraft.augment.streams import Streams, keys_of
from regraft.errors import RecipeError, TableError
from regraft.tables.table import Table
from regraft.tables.topk import TopK
from regraft.vision.blocks import ANSWERS, PARAMETERS
from regraft.vision.data import ImageSet
from regraft.vision.soft_targets import SoftTargets


@final
class Recorded:
    """A table as the targets of training batches (`vision.batches.Targets`).

    Each epoch shows another recorded view of each picture, going through all of them before it begins again.
    In the place of some of them fresh views are shown, with their labels alone (arXiv 2303.08983, section 4).

    Args:
        table: Made by `reinforce.record`.
        samples: Trained on. All of them must be in the table.
        share: Of pictures that an epoch shows in a recorded view, in (0, 1].
        temperature: Answers are raised to the power of its inverse and normalised anew; 1 leaves them alone.
        seed: Of the order of the views, and of which are fresh.

    Raises:
        RecipeError: A setting out of range.
        TableError: A picture is not in the table, or the table has other classes, or no answers.
    """

    def __init__(
        self, table: Table, samples: ImageSet, *, share: float = 0.99, temperature: float = 1.0, seed: int
    ) -> None:
        if not 0 < share <= 1 or not 0 < temperature < math.inf:
            raise RecipeError(
                f"share is {share:g} and temperature {temperature:g}; expected a share in (0, 1] and a "
                "positive number."
            )
        table.require({"classes": list(samples.classes)})
        column = table.columns.get(ANSWERS)
        if not isinstance(column, TopK):
            raise TableError(f"{table.folder} has no column {ANSWERS!r}, expected a teacher's answers in it.")
        self._table = table
        self._column = column
        self._ranks = table.ranks_of(samples.ids)
        self._keys = keys_of(samples.ids)
        self._share = share
        self._temperature = temperature
        self._seed = seed

    def draws(self, indices: Int[np.ndarray, " b"], epoch: int) -> Int[np.ndarray, " b"]:
        """Which view of each sample `epoch` shows; numbers that are not in the table are fresh views."""
        num_draws = self._table.num_draws
        cycle, place = divmod(epoch, num_draws)
        start = self._streams(indices, cycle).below("first view", num_draws)
        fresh = self._streams(indices, epoch).uniform("fresh") >= self._share
        return np.where(fresh, num_draws + epoch, (start + place) % num_draws)

    def parameters(
        self, indices: Int[np.ndarray, " b"], draws: Int[np.ndarray, " b"], drawn: Params
    ) -> Params:
        """The parameters of these views: as recorded, where they were; as drawn, where not."""
        recorded = self._is_recorded(draws)
        params = drawn.copy()
        ranks = self._ranks[indices[recorded]]
        params[recorded] = stored_parameters(self._table, ranks, draws[recorded], drawn[recorded])
        return params

    def __call__(
        self, indices: Int[np.ndarray, " b"], draws: Int[np.ndarray, " b"], labels: Tensor
    ) -> Mapping[str, Tensor]:
        """The teacher's answers to these views, or their labels where they are fresh."""
        recorded = self._is_recorded(draws)
        answers = self._column.decode(
            self._table.read(ANSWERS, self._ranks[indices], np.where(recorded, draws, 0))
        )
        if self._temperature != 1:
            answers = answers.tempered(self._temperature)
        targets = SoftTargets(*map(torch.from_numpy, (answers.ids, answers.probabilities, answers.rest)))
        return _labelled(targets, ~recorded, labels).to_batch()

    def _is_recorded(self, draws: Int[np.ndarray, " b"]) -> Bool[np.ndarray, " b"]:
        return draws < self._table.num_draws

    def _streams(self, indices: Int[np.ndarray, " b"], time: int) -> Streams:
        return Streams.of(self._seed, self._keys[indices], np.full(len(indices), time)).child("recorded")


def stored_parameters(
    table: Table, ranks: Int[np.ndarray, " n"], draws: Int[np.ndarray, " n"], drawn: Params
) -> Params:
    """The parameters that a table stores of some views, or those drawn if it stores none."""
    if PARAMETERS not in table.columns:
        return drawn
    return codec.decode(table.read(PARAMETERS, ranks, draws), drawn.dtype)


def _labelled(targets: SoftTargets, fresh: Bool[np.ndarray, " b"], labels: Tensor) -> SoftTargets:
    """The targets with labels in the place of the answers where a view is fresh."""
    if not fresh.any():
        return targets
    rows = torch.from_numpy(np.flatnonzero(fresh))
    certain = SoftTargets.of_labels(labels[rows], targets.ids.shape[1])
    for name in ("ids", "probabilities", "rest"):
        getattr(targets, name)[rows] = getattr(certain, name)
    return targets
