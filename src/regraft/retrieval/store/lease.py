"""The right to write in a folder, held by one writer at a time."""

import os
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from regraft.errors import StoreError


class WriterLease:
    """A lock that says who holds it, and that the operating system frees when its holder dies.

    The same thread may take it again while it holds it; other threads and processes wait.

    Args:
        folder: What is written in; made when the lease is first taken.
        wait_s: Seconds to wait for another writer to finish.
    """

    def __init__(self, folder: Path, *, wait_s: float) -> None:
        self.folder = folder
        self.wait_s = wait_s
        self._lock = FileLock(folder / "writer.lock")
        self._holder = folder / "writer.txt"

    @contextmanager
    def held(self) -> Generator[None]:
        """Keep every other writer out until the block ends.

        Raises:
            StoreError: Another writer kept the lease longer than `wait_s`, or the folder cannot be written.
        """
        self._take()
        try:
            self._sign()
            yield
        finally:
            self._lock.release()

    def _take(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=self.wait_s)
        except Timeout:
            raise StoreError(
                f"{self.folder} is being written by {self._holder_name()}; waited {self.wait_s:g} s for it.",
                hint="A gallery takes one writer at a time. Let that one finish, or stop it.",
            ) from None
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be written: {error}.") from error

    def _sign(self) -> None:
        """Say who holds it, for those who wait."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        program = Path(sys.argv[0]).name or "python"
        name = f"process {os.getpid()} ({program}) on {socket.gethostname()} since {now}"
        try:
            self._holder.write_text(name, encoding="utf-8")
        except OSError as error:
            raise StoreError(
                f"{self._holder} cannot be written: {error}.", hint="Is there room on the disk?"
            ) from error

    def _holder_name(self) -> str:
        try:
            name = self._holder.read_text(encoding="utf-8")
        except OSError:
            name = ""
        return name or "another process"  # which has the lock, and has not signed yet
