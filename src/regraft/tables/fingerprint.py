"""Short names for what things hold: the same bytes, the same name."""

import json
from hashlib import blake2b

from regraft.errors import TableError


def checksum(data: bytes | memoryview) -> str:
    """128 bits of BLAKE2b over bytes, as 32 hexadecimal digits."""
    return blake2b(data, digest_size=16).hexdigest()


def fingerprint_of(value: object) -> str:
    """The checksum of a JSON value, whatever the order of its keys.

    Raises:
        TableError: See `json_text`.
    """
    return checksum(json_text(value))


def json_text(value: object) -> bytes:
    """The one way to write a JSON value: keys sorted, no spaces, ASCII.

    Raises:
        TableError: It holds NaN, infinity, or something that JSON has no word for.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (TypeError, ValueError) as error:
        raise TableError(
            f"A description of a table cannot be written as JSON: {error}.",
            hint="Use numbers, text, lists and mappings.",
        ) from error
