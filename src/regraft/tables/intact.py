"""Reading files that must be as they were written."""

import json
from pathlib import Path
from typing import Any

from regraft.errors import TableError
from regraft.tables.fingerprint import checksum


def read_bytes(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        TableError: They cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise damaged(path, f"it cannot be read ({error.strerror})") from error


def read_checked(path: Path, expected: str) -> bytes:
    """The bytes of a file, if they have the checksum `expected`.

    Raises:
        TableError: They have another, or cannot be read.
    """
    data = read_bytes(path)
    if checksum(data) != expected:
        raise damaged(path, f"its checksum is {checksum(data)}, expected {expected}")
    return data


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        TableError: There is none.
    """
    try:
        fields = json.loads(read_bytes(path))
    except ValueError as error:
        raise damaged(path, f"it is no JSON ({error})") from error
    if not isinstance(fields, dict):
        raise damaged(path, f"it holds {fields!r:.60}, expected a JSON object")
    return fields


def damaged(path: Path, reason: str) -> TableError:
    """The error for a file of a table that is not as it was written."""
    return TableError(
        f"{path} is damaged: {reason}.", hint="Restore it from a copy, or record the table again elsewhere."
    )
