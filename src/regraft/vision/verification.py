"""Asking the teacher again about some of what a table says it said."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from regraft.errors import RecipeError
from regraft.tables.table import Table
from regraft.vision.blocks import ANSWERS, Blocks, ViewBlocks
from regraft.vision.data import identity
from regraft.vision.recorded import stored_parameters
from regraft.vision.reinforce import check_teacher, describe_views
from regraft.vision.teachers import Teacher
from regraft.vision.views import Views


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What a second asking found."""

    num_rows: int
    """Views that the teacher was asked about again."""
    same_teacher: bool
    """Whether the teacher has the fingerprint of the one that was recorded."""
    share_equal: float
    """Share of them whose record came out the same to the bit."""
    mean_kl: float
    """Mean divergence from what the teacher says now to what is stored, in nats."""
    worst_kl: float
    mean_kl_of_storing: float
    """The same to what would be stored of it now: what the top classes and 8 bits lose by themselves."""

    @property
    def excess(self) -> float:
        """What is lost beyond the storing, in nats: 0 if views and teacher are those that were recorded."""
        return self.mean_kl - self.mean_kl_of_storing


def verify(
    table: Table,
    views: Views,
    teacher: Teacher,
    *,
    share: float = 0.001,
    seed: int = 0,
    watch: Callable[[int, int], None] = lambda num_done, num_total: None,
) -> Verification:
    """Make a random share of a table anew, at least one block of it, and compare.

    Whole blocks are made, as when they were recorded, because what a network answers depends in its last bits
    on the batch.

    Raises:
        TableError: The table is of other pictures or views.
        RecipeError: `share` is no share.
    """
    if not 0 < share <= 1:
        raise RecipeError(f"share is {share:g}, expected a share in (0, 1].")
    check_teacher(teacher, views.samples)
    table.require({"views": describe_views(views), "pictures": identity(views.samples)})
    blocks = Blocks(ViewBlocks(views, table.num_draws), teacher, table.columns)
    num_blocks = len(blocks.seen)
    num_chosen = max(1, round(share * num_blocks))
    chosen = np.random.default_rng(seed).choice(num_blocks, num_chosen, replace=False)
    losses: list[np.ndarray] = []
    for num_done, number in enumerate(chosen.tolist(), start=1):
        losses.append(_compared(table, blocks, number))
        watch(num_done, num_chosen)
    equal, stored, anew = np.concatenate(losses, axis=1)
    return Verification(
        num_rows=len(equal),
        same_teacher=table.origin["teacher"] == teacher.fingerprint,
        share_equal=float(equal.mean()),
        mean_kl=float(stored.mean()),
        worst_kl=float(stored.max()),
        mean_kl_of_storing=float(anew.mean()),
    )


def _compared(table: Table, blocks: Blocks, number: int) -> Float[np.ndarray, "3 n"]:
    """Of each view of a block: whether its record is equal, and the divergence to it and to a fresh one."""
    indices, draws = blocks.seen.rows(number)
    views = blocks.seen.views
    ranks = table.ranks_of([views.samples.ids[index] for index in indices])
    params = stored_parameters(table, ranks, draws, views.sample(indices, draws))
    told = blocks.ask(blocks.seen.show(number, params))
    stored, anew = table.read(ANSWERS, ranks, draws), blocks.column.encode(told)
    both = [_divergence(told, blocks.column.decode(records).dense()) for records in (stored, anew)]
    return np.stack([(stored == anew).astype(np.float64), *both])


def _divergence(log_p: Float[np.ndarray, "n c"], q: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " n"]:
    """Divergence from each teacher's answer to a stored one, which says at least 2^-24 of every class."""
    p = np.exp(log_p.astype(np.float64))
    ratio = np.where(p > 0, log_p, 0) - np.log(np.maximum(q, 2.0**-24))  # 0 log 0 is 0
    return (p * ratio).sum(axis=1)
