"""Backfilling: the new model encodes what until then has a transformed vector, the most uncertain first."""

from regraft.errors import RunError
from regraft.retrieval.backfill_order import BySigma, Order
from regraft.retrieval.batches import UNLIMITED, Budget, Ending, Watch, parts, unwatched, work_off
from regraft.retrieval.encoding import Encode, Executor, here
from regraft.retrieval.encoding_rows import encoding_rows
from regraft.retrieval.ledger import Ledger
from regraft.retrieval.store.protocol import Records, VectorStore
from regraft.retrieval.upgrade import check_phase, check_serves

BATCH_ITEMS = 64


def backfill_rows(
    store: VectorStore,
    ledger: Ledger,
    encode: Encode,
    *,
    order: Order | None = None,
    budget: Budget = UNLIMITED,
    batch_items: int = BATCH_ITEMS,
    executor: Executor = here,
    watch: Watch = unwatched,
) -> Ending:
    """Replace transformed vectors of the new space by native ones, in the batches that the ledger has fixed.

    Before the switch as well as after it: where transformed vectors alone would be worse than the old ones,
    some are replaced while the old model still answers.

    Killed at any instant and called again, it goes on: of a batch that was in flight, what the gallery has is
    not encoded again. Items that cannot be encoded stay transformed and are listed in the ledger with the
    reason. Each later call that gets through all the others tries them once more.

    Args:
        encode: The new model.
        order: `None` for the order in which the backfill was begun, at first by uncertainty.
        budget: What may be done in this call.
        batch_items: Items in a batch, where batches are laid out. A network's last bits depend on it.
        executor: Where the model runs.

    Raises:
        Interrupted: After SIGTERM or Ctrl-C, when the batch in flight is done.
        RunError: The rows were not transformed yet, the upgrade has ended, another process works on it, or it
            was begun in another order.
    """
    new = ledger.plan.new.space

    def native(records: Records) -> set[str]:
        return {name for name, origin in zip(records.ids, records.origins, strict=True) if origin == "native"}

    def left() -> list[str]:
        waiting = set(transformed(store, new))
        ledger.found(set(ledger.gone()) - waiting)
        return sorted(waiting.difference(ledger.gone(run=ledger.run)))

    with ledger.working():
        check_phase(ledger, "backfilled", "ready", "backfilling")
        check_serves(store, new if ledger.phase == "backfilling" else ledger.plan.old_space)
        _lay_out(store, ledger, order, batch_items)
        encoding = encoding_rows(store, encode, executor, look_space=new, fill_space=new, have=native)
        return work_off(
            ledger, "backfill", left, encoding, batch_items=batch_items, budget=budget, watch=watch
        )


def transformed(store: VectorStore, space: str) -> list[str]:
    """The ids of the rows whose vector in a space is not yet, or will never be, its own model's."""
    return [name for batch in store.scan(space=space, origin="transformed") for name in batch.ids]


def _lay_out(store: VectorStore, ledger: Ledger, order: Order | None, batch_items: int) -> None:
    begun = ledger.order
    if begun is None:
        chosen = BySigma() if order is None else order
        uncertainty = {
            name: float(value)
            for ids, values in ledger.uncertainties()
            for name, value in zip(ids, values, strict=True)
            if value == value  # not NaN: of a row that was not transformed
        }
        arranged = chosen.arrange(transformed(store, ledger.plan.new.space), uncertainty)
        ledger.lay_out("backfill", parts(arranged, batch_items), order=chosen.name)
    elif order is not None and order.name != begun:
        raise RunError(
            f"The backfill was begun in the order {begun!r}; it was to go on in the order {order.name!r}.",
            hint="Leave the order out, or roll the upgrade back and begin another.",
        )
