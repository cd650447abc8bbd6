"""Parameters survive as bytes, and strangers are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.augment import codec
from regraft.augment.compose import Compose
from regraft.augment.protocol import description
from regraft.augment.streams import Streams, keys_of
from regraft.errors import ShapeError
from regraft.vision.crops import Flip, PadCrop, RandomResizedCrop
from regraft.vision.erasing import RandomErase
from regraft.vision.jitter import ColourJitter
from regraft.vision.mixing import Mix
from regraft.vision.rand_augment import RandAugment
from regraft.vision.variation import Variation

EVERYTHING = Variation(
    RandomResizedCrop(),
    Compose((PadCrop(), Flip(), ColourJitter(0.4, 0.4, 0.4, 0.1), RandAugment(3), RandomErase())),
    Mix(0.2, 1.0),
)


@given(st.lists(st.text(), max_size=20), st.integers())
def test_a_round_trip_is_exact(ids: list[str], seed: int) -> None:
    params = EVERYTHING.sample(Streams.of(seed, keys_of(ids), np.arange(len(ids))), 5)
    rows = codec.encode(params)
    assert rows.shape == (len(ids), EVERYTHING.dtype.itemsize)
    again = codec.decode(rows, EVERYTHING.dtype)
    assert again.dtype == params.dtype
    assert again.tobytes() == params.tobytes()


def test_nothing_drawn_takes_no_bytes() -> None:
    params = Compose().sample(Streams(np.zeros(3, np.uint64)))
    rows = codec.encode(params)
    assert rows.shape == (3, 0)
    assert codec.decode(rows, Compose().dtype).shape == (3,)


def test_other_layouts_are_refused() -> None:
    with pytest.raises(ShapeError, match="expected rows of 4"):
        codec.decode(np.zeros((2, 5), np.uint8), PadCrop().dtype)
    for dtype in (np.dtype([("a", ">f4")]), np.dtype([("a", "u1"), ("b", "<f4")], align=True)):
        with pytest.raises(ShapeError, match="gaps or big-endian"):
            codec.encode(np.zeros(2, dtype))


def test_a_description_holds_everything_that_decides() -> None:
    told = description(EVERYTHING)
    assert told["steps"]["steps"][3] == {
        "name": "RandAugment", "num_operations": 3, "strength": 9, "interpolation": "bilinear",
    }  # fmt: skip
    assert description(Variation()) != told
