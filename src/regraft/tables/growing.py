"""Files that grow at an end that is known elsewhere."""

import os
from pathlib import Path
from typing import final

from regraft.errors import PlaceError
from regraft.tables.intact import damaged


@final
class GrowingFile:
    """A file of which the first `size` bytes count. What came after them is dropped.

    Raises:
        TableError: It has fewer bytes.
        PlaceError: It cannot be written.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        try:
            self._file = path.open("r+b", buffering=0)
        except FileNotFoundError as error:
            raise damaged(path, "it is not there") from error
        except OSError as error:
            raise self._refused(error) from error
        found = self._file.seek(0, os.SEEK_END)
        if found < size:
            self._file.close()
            raise damaged(path, f"it has {found} bytes, expected at least {size}")
        self._file.truncate(size)

    def put(self, size: int, data: bytes | memoryview) -> None:
        """Write `data` after the first `size` bytes, instead of what an attempt may have left there.

        When this returns, it is on the disk.

        Raises:
            PlaceError: It cannot be written.
        """
        left = memoryview(data)
        try:
            self._file.truncate(size)
            self._file.seek(size)
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._refused(error) from error

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _refused(self, error: OSError) -> PlaceError:
        return PlaceError(
            f"{self._path} cannot be written: {error.strerror}.",
            hint="Make room or mend the permissions, and record again; nothing acknowledged is lost.",
        )
