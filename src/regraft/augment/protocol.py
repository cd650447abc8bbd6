"""What an augmentation is: parameters that are drawn, and what they do.

The two are apart, so that what was drawn can be kept, sent, and done again. Parameters are a NumPy array with
named fields, one row a sample, whose layout is the augmentation's `dtype`.
"""

from dataclasses import fields, is_dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from regraft.augment.streams import Streams
from regraft.errors import ShapeError

Params = Shaped[np.ndarray, " n"]
"""One row of named fields a sample."""


@runtime_checkable
class Augmentation(Protocol):
    """A random change of samples.

    An augmentation is a frozen dataclass whose fields are all that decides it, so that it can be written down
    (`description`) and compared.
    """

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Layout of one row of parameters: little-endian fields of fixed width, without gaps."""
        ...

    def sample(self, streams: Streams) -> Params:
        """Draw parameters, a row for each of the samples that `streams` is for."""
        ...

    def apply(self, x: Tensor, params: Params) -> Tensor:
        """Do to each sample of `x` what its row says. Nothing is drawn, and `x` is left as it is."""
        ...


def description(thing: object) -> Any:
    """An augmentation, or any tree of frozen dataclasses, as JSON values: types and fields by name."""
    if is_dataclass(thing) and not isinstance(thing, type):
        entries = {field.name: description(getattr(thing, field.name)) for field in fields(thing)}
        return {"name": type(thing).__name__, **entries}
    if isinstance(thing, tuple | list):
        return [description(entry) for entry in thing]
    return thing


def check_params(params: Params, dtype: np.dtype[np.void], num_samples: int) -> None:
    """Refuse parameters of another augmentation, or for another number of samples.

    Raises:
        ShapeError: They do not fit.
    """
    if params.dtype != dtype or params.shape != (num_samples,):
        raise ShapeError(
            f"The parameters are {params.shape} of {params.dtype}; expected ({num_samples},) of {dtype}.",
            hint="Parameters belong to the augmentation that drew them.",
        )
