"""Asking a teacher on a Ray cluster, for tables that outgrow one machine."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import final

from regraft.data.on_ray import Cluster
from regraft.vision.blocks import Blocks, Records


@final
@dataclass(frozen=True)
class OnRay:
    """An `Executor` on a cluster, each of whose workers holds the teacher and makes views.

    Only the process that calls it writes the table.
    """

    cluster: Cluster = field(default_factory=Cluster)

    def __call__(self, blocks: Blocks, numbers: range) -> Iterator[Records]:
        """Make blocks, up to a thousand ahead of the one that is taken.

        Raises:
            MissingExtra: Ray is not installed.
        """
        return self.cluster.map(blocks, iter(numbers))
