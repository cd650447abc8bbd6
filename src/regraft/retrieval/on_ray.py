"""Encoding on a Ray cluster, for galleries that outgrow one machine."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import final

from regraft.data.on_ray import Cluster
from regraft.retrieval.encoding import Encode, Finished, Job, timed


@final
@dataclass(frozen=True)
class OnRay:
    """An `Executor` on a cluster, each of whose workers holds the encoder.

    Only the process that calls it touches the gallery and the ledger.
    """

    cluster: Cluster = field(default_factory=Cluster)

    def __call__(self, encode: Encode, jobs: Iterator[Job]) -> Iterator[Finished]:
        """Encode jobs, up to a thousand ahead of the one whose result is taken.

        Raises:
            MissingExtra: Ray is not installed.
        """
        return self.cluster.map(partial(timed, encode), jobs)
