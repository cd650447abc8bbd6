"""How a view of a picture is drawn: a part of it, changes of the square, and a blend with another picture."""

from dataclasses import dataclass, field

import numpy as np

from regraft.augment.compose import Compose
from regraft.augment.protocol import Params
from regraft.augment.streams import Streams
from regraft.vision.crops import RandomResizedCrop
from regraft.vision.mixing import Mix


@dataclass(frozen=True)
class Variation:
    """The random part of every view; without any, a view is the picture itself.

    Args:
        crop: The part that is seen; `None` leaves that to the preprocessing.
        steps: What happens to the square.
        mix: What it is blended with; `None` is nothing. The partner is another picture of the whole set, in a
            view of its own.
    """

    crop: RandomResizedCrop | None = None
    steps: Compose = field(default_factory=Compose)
    mix: Mix | None = None

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Layout of the parameters of a view."""
        view = [("steps", self.steps.dtype)]
        if self.crop is not None:
            view.append(("crop", self.crop.dtype))
        if self.mix is None:
            return np.dtype(view)
        return np.dtype([*view, ("mix", self.mix.dtype), ("partner", np.dtype(view))])

    def sample(self, streams: Streams, num_pictures: int) -> Params:
        """Draw the parameters of one view of each picture.

        Args:
            streams: A row of random numbers a view.
            num_pictures: Pictures that a partner is drawn from.
        """
        params = np.zeros(len(streams), self.dtype)
        self._sample_view(streams, params)
        if self.mix is not None:
            params["mix"] = self.mix.sample(streams.child("mix"), num_pictures)
            self._sample_view(streams.child("partner"), params["partner"])
        return params

    def _sample_view(self, streams: Streams, params: Params) -> None:
        params["steps"] = self.steps.sample(streams.child("steps"))
        if self.crop is not None:
            params["crop"] = self.crop.sample(streams.child("crop"))
