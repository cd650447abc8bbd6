"""What an upgrade will bring and cost, told before anything is written."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64

from regraft.recipes.encoders import PictureEncoder, read_again
from regraft.retrieval.bootstrap import Interval, interval_of_mean
from regraft.retrieval.curve import backfilling_curve, recommended_stop
from regraft.retrieval.fitting import Candidate, Ladder
from regraft.retrieval.metrics import Evaluation
from regraft.retrieval.order import ranking
from regraft.retrieval.store.protocol import Records
from regraft.retrieval.transform import Transformation

NUM_STEPS = 20
"""The curve is told at every twentieth of the way."""
SHOWN = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Shares that a summary shows."""
TOLERANCE = 0.005
"""What all further backfilling may still gain where stopping is recommended: half a point."""
FEW_QUERIES = 30
"""Fewer held-out pairs than these say little."""
PROBED_ROWS = 4096
BYTES_A_NUMBER = 4


@dataclass(frozen=True)
class Point:
    """The quality to expect at one share of backfilled rows."""

    share: float
    mean: float
    low: float
    """Lower end of the 95 % interval over queries."""
    high: float

    @classmethod
    def of(cls, share: float, interval: Interval) -> "Point":
        """A point of an interval."""
        return cls(share, interval.mean, interval.low, interval.high)


@dataclass(frozen=True)
class Forecast:
    """The backfilling curve of held-out pairs that search one another."""

    measure: str
    """`mean_average_precision`, by labels; or `agreement@10`, which is imitation of the new model."""
    num_queries: int
    """Held-out pairs: on so few hangs all that is told here."""
    before: Point
    """The gallery as it is, searched by the old model."""
    points: tuple[Point, ...]
    """From nothing backfilled to everything."""
    stop: float
    """The share after which no further backfilling gains more than `TOLERANCE`."""

    @property
    def is_imitation(self) -> bool:
        """Whether the new model's own answers count as right, for want of labels."""
        return self.measure != "mean_average_precision"

    @property
    def is_rough(self) -> bool:
        """Whether so few pairs were held out that what is told here says little."""
        return self.num_queries < FEW_QUERIES

    @property
    def name(self) -> str:
        """The measure in words."""
        return f"{self.measure}, imitation of the new model" if self.is_imitation else "mAP"

    @property
    def switch(self) -> float | None:
        """The smallest share from which on the new gallery is as good as the old one but for `TOLERANCE`.

        Until then the old model had better answer. `None` if the new gallery never gets there.
        """
        good = [point.mean >= self.before.mean - TOLERANCE for point in self.points]
        if not good[-1]:
            return None
        bad = [place for place, is_good in enumerate(good) if not is_good]
        return self.points[bad[-1] + 1].share if bad else 0.0

    def at(self, share: float) -> Point:
        """The point nearest to a share."""
        return min(self.points, key=lambda point: abs(point.share - share))

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Forecast":
        """The forecast that `dataclasses.asdict` wrote."""
        read: dict[str, Any] = {
            "points": tuple(Point(**point) for point in fields["points"]),
            "before": Point(**fields["before"]),
        }
        return cls(**dict(fields) | read)


@dataclass(frozen=True)
class Cost:
    """What an upgrade takes, measured on this machine on a few items."""

    num_rows: int
    transform_bytes: int
    """Of the new vectors, as they are written."""
    transform_s: float
    """Computing all new vectors; reading and writing the gallery come on top."""
    encode_s: float | None
    """Reading and encoding one item with the new model; `None` if no source could be read."""
    num_encoded: int
    """Items that are encoded already, as pairs, and not paid for again."""

    def backfill_s(self, share: float) -> float | None:
        """Seconds to encode a share of the gallery on this machine; `None` if unknown."""
        wanted = max(0.0, share * self.num_rows - self.num_encoded)
        return None if self.encode_s is None else wanted * self.encode_s


@dataclass(frozen=True)
class Pace:
    """How fast, and how long, the vectors of a model are."""

    encode_s: float | None
    """Seconds an item; `None` if no source could be read."""
    length: float | None
    """Mean length of the vectors before they are made one long; `None` if none could be made."""


def forecast(ladder: Ladder, chosen: Candidate) -> Forecast:
    """Judge one transformation at every twentieth of the way, on the pairs that none was fitted on."""
    judge, transformation = ladder.judge, chosen.transformation
    assert transformation is not None, "a transformation that applies was chosen"
    pairs = judge.pairs
    made = transformation.transform(pairs.old, pairs.side if transformation.side_dimension else None)
    assert made.log_variance is not None, "every transformation of the ladder knows its error"
    num = len(pairs)
    curve = backfilling_curve(
        pairs.new,
        made.vectors,
        pairs.new,
        ranking(made.log_variance),
        judge.relevance,
        ks=judge.ks,
        stops=[round(num * step / NUM_STEPS) for step in range(NUM_STEPS + 1)],
    )
    by_labels = pairs.labels is not None
    values = [_values(evaluation, by_labels=by_labels) for evaluation in curve.evaluations]
    shares = np.arange(NUM_STEPS + 1) / NUM_STEPS
    return Forecast(
        measure=judge.measure,
        num_queries=len(values[0]),
        before=Point.of(0.0, interval_of_mean(_values(ladder.before, by_labels=by_labels))),
        points=tuple(
            Point.of(float(share), interval_of_mean(value))
            for share, value in zip(shares, values, strict=True)
        ),
        stop=recommended_stop(shares, np.array([value.mean() for value in values]), TOLERANCE),
    )


def measure_pace(encoder: PictureEncoder, rows: Records) -> Pace:
    """Read and encode some rows' pictures, and see how long that takes and how long the vectors are."""
    read_again(rows.ids[:1], rows.sources[:1], encoder.preprocess)  # the first read opens libraries
    started_s = time.perf_counter()
    pictures = read_again(rows.ids, rows.sources, encoder.preprocess).pictures
    if not pictures:
        return Pace(None, None)
    encoder(pictures)
    encode_s = (time.perf_counter() - started_s) / len(pictures)
    with torch.inference_mode():
        pixels = torch.stack([picture.seen_by(encoder.preprocess) for picture in pictures])
        length = float(encoder.encoder.model(pixels).float().norm(dim=1).mean())
    return Pace(encode_s, length)


def transform_seconds(
    transformation: Transformation,
    old: Float32[np.ndarray, "n d"],
    side: Float32[np.ndarray, "n s"] | None,
    num_rows: int,
) -> float:
    """Seconds that computing so many rows will take, by the pace of a few."""
    repeats = -(-min(PROBED_ROWS, num_rows) // len(old))
    probed = np.tile(old, (repeats, 1))
    sides = None if side is None else np.tile(side, (repeats, 1))
    started_s = time.perf_counter()
    transformation.transform(probed, sides)
    return (time.perf_counter() - started_s) / len(probed) * num_rows


def shown_points(points: Sequence[Point]) -> list[Point]:
    """The points that a summary shows."""
    return [min(points, key=lambda point: abs(point.share - share)) for share in SHOWN]


def _values(evaluation: Evaluation, *, by_labels: bool) -> Float64[np.ndarray, " q"]:
    """One figure a query."""
    return evaluation.average_precision if by_labels else evaluation.found[0] / evaluation.num_relevant
