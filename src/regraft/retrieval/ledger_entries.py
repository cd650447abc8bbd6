"""What a ledger tells: plans, batches, costs, progress."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float32

from regraft.retrieval.store.protocol import Layout

Phase = Literal[
    "planned", "transforming", "ready", "backfilling", "rolling_back", "rolled_back", "finishing", "finished"
]
"""`ready`: every row has a vector in the new space; the old one is served. `backfilling`: the new one is."""

ENDED: tuple[Phase, ...] = ("finished", "rolled_back")

Stage = Literal["transform", "backfill", "return"]
"""What is done in batches. `return`: items added since the switch get the vector that a rollback needs."""

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an upgrade replaces by what. Fixed when its ledger is made."""

    old_space: str
    """The space that was served."""
    new: Layout
    """The space that is to be."""
    side_space: str | None = None
    """The space of the side-information that the transformation reads beside the old vectors."""
    facts: Mapping[str, Json] = field(default_factory=dict[str, Json])
    """Whatever else is worth remembering."""


@dataclass(frozen=True)
class Batch:
    """Items that are computed together, always in this composition and order."""

    number: int
    """Batches of all stages are numbered in the order of their laying out."""
    stage: Stage
    ids: list[str]
    taken_before: bool
    """An earlier run died while it worked on it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Done:
    """What came of a batch."""

    rows: int = 0
    """Rows that got a vector."""
    bytes: int = 0
    """Of those vectors, as float32."""
    compute_s: float = 0.0
    """Seconds of the model or the transformation."""
    store_s: float = 0.0
    """Seconds of reading and writing the gallery."""
    uncertainty: Float32[np.ndarray, " n"] | None = None
    """Log-variance of each item of the batch; NaN for those that were not computed."""
    gone: Mapping[str, str] = field(default_factory=dict[str, str])
    """Ids that could not be encoded, and why."""


@dataclass(frozen=True)
class Progress:
    """How far a stage is, over every run that worked on it."""

    stage: Stage
    items_done: int
    items_total: int
    """Of the batches laid out so far."""
    batches_done: int
    batches_total: int
    rows_written: int
    bytes_written: int
    compute_s: float
    store_s: float
    eta_s: float | None
    """Seconds to the end of the batches at the last run's pace; `None` before its first batch."""


@dataclass(frozen=True)
class Worker:
    """The process that works on an upgrade now."""

    process: int
    host: str
    since: str
    """When it began, UTC, ISO 8601."""
    seen: str
    """When it last began or ended a batch."""


@dataclass(frozen=True)
class Metric:
    """A measurement, and how far the backfill was."""

    name: str
    value: float
    items_done: int
    at: str
    """UTC, ISO 8601."""


@dataclass(frozen=True)
class Status:
    """An upgrade, as anyone can see it while it runs."""

    phase: Phase
    paused: bool
    worker: Worker | None
    progress: Mapping[Stage, Progress]
    """Stages that have begun."""
    num_gone: int
    metrics: list[Metric]
