"""Finding the LanceDB table of a gallery in its folder."""

from datetime import timedelta
from pathlib import Path

import lancedb
from lancedb.table import Table

from regraft.errors import StoreError

TABLE = "gallery"


def connected(path: Path) -> lancedb.DBConnection:
    """The database in a folder; its tables look for the commits of other processes at every read."""
    return lancedb.connect(path, read_consistency_interval=timedelta(0))


def open_table(path: Path) -> Table | None:
    """The table of a gallery, or `None` if nothing was ever put.

    Raises:
        StoreError: There are rows, and no commit that says which.
    """
    folder = path / f"{TABLE}.lance"
    # In this order, for another process may be making the gallery: it commits before it writes data.
    has_data = _has_any(folder / "data", ".lance")
    if _has_any(folder / "_versions", ".manifest"):
        return connected(path).open_table(TABLE)
    if has_data:
        raise StoreError(
            f"Gallery {path} is damaged: {folder / 'data'} holds rows, but no commit says which; "
            f"expected manifests in {folder / '_versions'}.",
            hint="Restore the folder from a copy, or fill another gallery.",
        )
    return None


def _has_any(folder: Path, suffix: str) -> bool:
    return folder.is_dir() and any(path.suffix == suffix for path in folder.iterdir())
