"""The index of a space's vectors in LanceDB: built, kept up to date, and built anew when it is outgrown."""

# pyarrow has no type information, so its tables are unknown to pyright wherever they are passed.
# pyright: reportUnknownParameterType=false

from lancedb.index import IvfFlat
from lancedb.table import Table

from regraft.retrieval.store.lance_slots import TAKEN_IN_MARK, Slot
from regraft.retrieval.store.lance_snapshot import Snapshot


def build(table: Table, slot: Slot, num_partitions: int | None = None) -> None:
    """Build the index of a slot's vectors, in the place of one that is there. Some must be there."""
    table.create_index(slot.vector, config=IvfFlat(distance_type="cosine", num_partitions=num_partitions))
    _mark(table, slot, 0)


def bring_up(table: Table, now: Snapshot, slot: Slot) -> None:
    """Where a gallery has an index, of whichever slot, have one of this slot that fits its vectors.

    New rows enter the lists that an index has, which were laid out for the rows it was built of: so it is
    built anew once half of the rows are others. Fewer that are still outside are left to `Table.optimize`.
    """
    num_vectors = now.count(now.chosen(slot, None, None))
    if num_vectors == 0 or not any(now.index_name(each) for each in now.slots.opened):
        return
    num_inside = now.num_indexed(slot) or 0
    num_outside = now.count(None) - num_inside
    taken_in = slot.taken_in + num_outside
    if num_inside == 0 or 2 * taken_in >= num_vectors:
        build(table, slot)
    elif num_outside:
        # Before they enter: were the process killed in between, they would count twice, which does no harm.
        _mark(table, slot, taken_in)


def _mark(table: Table, slot: Slot, num_rows: int) -> None:
    table.update_field_metadata({"path": slot.vector, "metadata": {TAKEN_IN_MARK: str(num_rows)}})
