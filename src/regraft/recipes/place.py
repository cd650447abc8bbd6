"""Where a gallery's rows are, and where the files that belong to it are."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import final

from regraft.errors import StoreError
from regraft.retrieval.ledger import Ledger
from regraft.retrieval.ledger_entries import ENDED
from regraft.retrieval.store.lance import LanceStore
from regraft.retrieval.store.open import OPENERS, open_gallery
from regraft.retrieval.store.protocol import Layout, VectorStore

LEASE_WAIT_S = 600.0
"""How long to wait for another writer: an upgrade and an `add` take turns, batch by batch."""
PLAN, LEDGER = "plan.json", "ledger.sqlite"
"""Files in the folder of an upgrade."""


@final
@dataclass(frozen=True)
class Place:
    """A gallery and the folder of its files.

        encoders/<space>.safetensors   the model file whose vectors the rows hold in that space
        upgrade/                       the plan of an upgrade, its transformation and its ledger

    A gallery in a folder keeps them beside its rows. One on a server keeps them in a workspace.
    """

    uri: str
    """What `open_gallery` takes. It may hold a password, so it is never written down."""
    folder: Path

    @property
    def name(self) -> str:
        """The gallery as it may be shown."""
        scheme, separator, rest = self.uri.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}" if separator else self.uri

    @property
    def upgrade(self) -> Path:
        """The folder of the upgrade that was planned last."""
        return self.folder / "upgrade"

    def encoder(self, space: str) -> Path:
        """The model file of a space."""
        return self.folder / "encoders" / f"{space}.safetensors"

    def open(self) -> VectorStore:
        """Open the rows.

        Raises:
            StoreError: They cannot be opened, or are damaged.
        """
        if "://" in self.uri:
            return open_gallery(self.uri)
        store = LanceStore(self.uri, lease_wait_s=LEASE_WAIT_S)
        assert store.layout is None or store.spaces, "read now, so that damage is found before any work"
        return store

    def served(self, store: VectorStore) -> Layout:
        """The space that the gallery answers in.

        Raises:
            StoreError: Nothing was ever put.
        """
        if store.layout is None:
            raise StoreError(
                f"{self.name} holds no gallery yet.",
                hint="regraft gallery add GALLERY IMAGES --model MODEL fills one.",
            )
        return store.layout

    @property
    def elsewhere(self) -> str | None:
        """The gallery's name where its rows are not in the folder; `None` where they are."""
        return None if Path(self.uri) == self.folder else self.name

    def upgrade_space(self) -> str | None:
        """The space that the upgrade leads to which is planned or under way; `None` if none is."""
        path, ledger_path = self.upgrade / PLAN, self.upgrade / LEDGER
        if not path.is_file():
            return None
        if Ledger.exists(ledger_path):
            with Ledger(ledger_path) as ledger:
                if ledger.phase in ENDED:
                    return None
        return json.loads(path.read_bytes())["new"]["space"]


def place_of(gallery: Place | Path | str, workspace: Path | None = None) -> Place:
    """Find the rows and the files of a gallery.

    Args:
        gallery: A folder, or a URI that `open_gallery` knows.
        workspace: The folder of its files; `None` takes the gallery's own.

    Raises:
        StoreError: The scheme is unknown, the gallery would be gone with the process, or it is not one in
            LanceDB and no workspace is given.
    """
    if isinstance(gallery, Place):
        return gallery
    scheme, separator, rest = str(gallery).partition("://")
    if separator and scheme != "lance":
        if scheme not in OPENERS:
            open_gallery(str(gallery))  # says which schemes there are
        if scheme == "memory":
            raise StoreError(
                "memory:// does not outlive the process; expected a place that keeps its rows.",
                hint="Name a folder.",
            )
        if workspace is None:
            raise StoreError(
                f"{_without_password(scheme, rest)} has no folder for model files; expected one beside it.",
                hint="--workspace FOLDER, the same each time.",
            )
        return Place(str(gallery), workspace)
    folder = Path(rest if separator else gallery)
    return Place(str(folder), folder if workspace is None else workspace)


def _without_password(scheme: str, rest: str) -> str:
    account, separator, server = rest.rpartition("@")
    return f"{scheme}://{account.partition(':')[0]}{separator}{server}"
