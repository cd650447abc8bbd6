"""Rows of a gallery that a plan was made from, and what the new model made of them."""

import json
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float32

from regraft.errors import RunError
from regraft.recipes.place import Place
from regraft.retrieval.store.protocol import Records

KNOWN = "known.npz"
"""The file's name in the folder of an upgrade."""


@dataclass(frozen=True, eq=False)
class Known:
    """Rows that need not be encoded again, as long as they are what they were."""

    rows: Records
    """As they were then, in the old space."""
    new: Float32[np.ndarray, "n d"]
    """Their vectors in the new space."""


def write_known(path: Path, known: Known) -> None:
    """Write the file."""
    rows = known.rows
    columns = {"ids": rows.ids, "spaces": rows.spaces, "origins": rows.origins, "sources": rows.sources}
    np.savez(path, old=rows.vectors, new=known.new, columns=np.array(json.dumps(columns)))


def read_known(place: Place) -> Known | None:
    """What the plan of a gallery's upgrade left; `None` if it was made from no row of the gallery.

    Raises:
        RunError: The file is damaged.
    """
    path = place.upgrade / KNOWN
    if not path.is_file():
        return None
    try:
        # Opened here, for numpy leaves a damaged file open.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            rows = Records(vectors=file["old"], **json.loads(str(file["columns"])))
            return Known(rows, file["new"])
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise RunError(
            f"{path} is damaged: {error}.", hint="Remove it: the rows it has are then encoded again."
        ) from error
