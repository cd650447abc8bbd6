"""Versions of a gallery on LanceDB that are kept for a while: the one before each space was opened."""

from pathlib import Path

from lancedb.table import Table

from regraft.errors import StoreError
from regraft.retrieval.store.lance_slots import Slot, Slots

BEFORE = "before-"


def set_tag(table: Table, slot: Slot) -> None:
    """Keep the present version as the one before a slot was opened."""
    _remove(table, _name(slot))  # of an opening that was killed before it was done
    table.tags.create(_name(slot), table.version)


def remove_idle_tags(table: Table, slots: Slots) -> None:
    """Keep no version longer than there are two spaces that could be served: then there is no way back."""
    if sum(not slot.layout.packed for slot in slots.opened) < 2:
        remove_tags(table)


def remove_tags(table: Table) -> None:
    """Keep no version: LanceDB deletes none that was replaced since one that is kept."""
    for name in table.tags.list():
        if name.startswith(BEFORE):
            table.tags.delete(name)


def restore_tag(table: Table, slot: Slot, path: Path) -> None:
    """Make the version before a slot was opened the latest one.

    Args:
        table: A handle for this call alone, for it looks away from the latest version meanwhile.
        slot: What was opened then.
        path: The gallery's folder, for errors.

    Raises:
        StoreError: It is not kept.
    """
    if _name(slot) not in table.tags.list():
        raise StoreError(
            f"{path} does not keep the state before {slot.layout.space!r} was opened; it is kept until the "
            "gallery is tidied, or that space or the one before is closed, and never for a packed space.",
            hint="serve() of the space before brings back its answers, with the rows there are now.",
        )
    table.restore(_name(slot))
    _remove(table, _name(slot))


def _remove(table: Table, name: str) -> None:
    if name in table.tags.list():
        table.tags.delete(name)


def _name(slot: Slot) -> str:
    return f"{BEFORE}{slot.vector}"
