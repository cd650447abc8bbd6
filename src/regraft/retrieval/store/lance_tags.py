"""Versions of a gallery on LanceDB that are kept: the one before each space was opened."""

from pathlib import Path

from lancedb.table import Table

from regraft.errors import StoreError
from regraft.retrieval.store.lance_slots import Slot


def has_tags(table: Table) -> bool:
    """Whether any version is kept."""
    return bool(table.tags.list())


def set_tag(table: Table, slot: Slot) -> None:
    """Keep the present version as the one before a slot was opened."""
    remove_tag(table, slot)  # of an opening that was killed before it was done
    table.tags.create(_name(slot), table.version)


def remove_tag(table: Table, slot: Slot) -> None:
    """Keep the version before a slot was opened no longer."""
    if _name(slot) in table.tags.list():
        table.tags.delete(_name(slot))


def restore_tag(table: Table, slot: Slot, path: Path) -> None:
    """Make the version before a slot was opened the latest one.

    Raises:
        StoreError: It is not kept.
    """
    if _name(slot) not in table.tags.list():
        raise StoreError(
            f"{path} does not keep the state before {slot.layout.space!r} was opened; "
            "it is kept until that space or the one before is closed."
        )
    table.checkout(_name(slot))
    table.restore()
    remove_tag(table, slot)


def _name(slot: Slot) -> str:
    return f"before-{slot.vector}"
