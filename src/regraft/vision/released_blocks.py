"""Released records as those of a table, block by block."""

import math
from typing import final

import numpy as np
from jaxtyping import Int

from regraft.augment import codec
from regraft.augment.protocol import Params
from regraft.errors import TableError
from regraft.tables.columns import Bytes, Column
from regraft.tables.topk import TopK
from regraft.vision.blocks import ANSWERS, PARAMETERS
from regraft.vision.headers import Headers
from regraft.vision.mixing import is_mixed
from regraft.vision.released_folder import ReleasedFolder
from regraft.vision.released_params import Numbers, boxes_in_shares, view_params
from regraft.vision.released_records import NO_PARTNER, Records
from regraft.vision.views import Views

BLOCK_VIEWS = 2**14
"""Views that are recorded at once, or those of one picture if it has more."""


@final
class ReleasedBlocks:
    """The records of block number n: all draws of a few pictures, which are taken in the order of their ids.

    Args:
        released: The records.
        views: Of all pictures; their variation has the steps that were released.
        order: Which picture each released number stands for.
        headers: Of all pictures.
    """

    def __init__(
        self, released: ReleasedFolder, views: Views, order: Int[np.ndarray, " n"], headers: Headers
    ) -> None:
        num_classes = len(views.samples.classes)
        self.answers = TopK(released.top_k, num_classes)
        self.parameters = Bytes(views.variation.dtype.itemsize)
        self._released = released
        self._views = views
        self._order = order
        self._headers = headers
        # Of each picture its released number, and its place among the sorted ids, by which a partner goes.
        self._number, self._rank = np.argsort(order), np.argsort(views.order)

    @property
    def columns(self) -> dict[str, Column]:
        """What is stored of each view."""
        return {ANSWERS: self.answers, PARAMETERS: self.parameters}

    @property
    def rows_per_block(self) -> int:
        """Rows of every block but the last."""
        return self._pictures_per_block * self._released.num_draws

    def __len__(self) -> int:
        return math.ceil(len(self._order) / self._pictures_per_block)

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        """The records of block `number`, by column.

        Raises:
            TableError: A file is not of the released form, or its views cannot be of these pictures.
        """
        start = number * self._pictures_per_block
        pictures = self._views.order[start : start + self._pictures_per_block]
        parts = [self._of_picture(index) for index in pictures.tolist()]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.columns}

    @property
    def _pictures_per_block(self) -> int:
        return max(1, BLOCK_VIEWS // self._released.num_draws)

    def _of_picture(self, index: int) -> dict[str, np.ndarray]:
        number = int(self._number[index])
        records = self._released.read(number)
        with np.errstate(divide="ignore"):  # A probability of 0 has a code, too.
            logarithms = np.log(records.probabilities)
        try:
            answers = self.answers.encode_listed(records.classes, logarithms)
            return {ANSWERS: answers, PARAMETERS: codec.encode(self._params(index, records))}
        except TableError as error:
            raise TableError(f"Records of picture {number}: {error.message}", hint=error.hint) from error

    def _params(self, index: int, records: Records) -> Params:
        """What was drawn for each view of a picture."""
        pictures = np.full(len(records.partner), index)
        params = np.zeros(len(pictures), self._views.variation.dtype)
        own = self._view_params(records.own, pictures)
        for name in own.dtype.names or ():
            params[name] = own[name]
        if self._views.variation.mix is not None:
            self._mix(records, params)
        return params

    def _mix(self, records: Records, params: Params) -> None:
        """Put in what was drawn for the partners, and how much of them is seen."""
        mix = params["mix"]
        top, left, bottom, right = records.pasted.T
        box = np.stack([top, left, bottom - top, right - left], axis=1)
        mix["share"], mix["box"] = records.share, boxes_in_shares(box, self._size_px)
        rows = np.flatnonzero(records.partner != NO_PARTNER)
        numbers = records.partner[rows]
        self._check_mixes(records, is_mixed(mix))
        partners = self._order[numbers]
        mix["partner"][rows] = self._rank[partners]
        others = {name: values[rows] for name, values in records.other.items()}
        params["partner"][rows] = self._view_params(others, partners)

    def _check_mixes(self, records: Records, mixed: np.ndarray) -> None:
        alone, num = records.partner == NO_PARTNER, len(self._order)
        if (mixed & alone).any():
            raise TableError("A view is mixed with no picture, expected the number of one.")
        if records.share.min() < 0 or records.share.max() > 1:
            raise TableError(
                f"Shares are {records.share.min():g} to {records.share.max():g}, expected 0 to 1."
            )
        if (~alone & ((records.partner < 0) | (records.partner >= num))).any():
            raise TableError(f"A partner is picture {records.partner.max()}, expected 0 to {num - 1}.")

    def _view_params(self, numbers: Numbers, pictures: Int[np.ndarray, " n"]) -> Params:
        return view_params(self._views.variation, numbers, pictures, self._headers, self._size_px)

    @property
    def _size_px(self) -> int:
        return self._views.preprocess.size_px
