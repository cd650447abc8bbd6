"""The journal of a table: what was written together, and how to tell that it is still the same.

A block counts from the moment its line is on the disk. The line comes after the records, so a process
that is killed leaves at most records without a line or half a line, and neither counts.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from regraft.tables.fingerprint import fingerprint_of, json_text
from regraft.tables.intact import damaged


@final
@dataclass(frozen=True)
class Block:
    """Some rows that were appended together."""

    num_rows: int
    checksums: Mapping[str, str]
    """Of each column's bytes."""

    def line(self) -> bytes:
        """The line of the journal, which carries a checksum of its own."""
        fields = asdict(self)
        return json_text({"block": fields, "checksum": fingerprint_of(fields)}) + b"\n"


def blocks_in(journal: bytes, path: Path) -> tuple[list[Block], int]:
    """The blocks that a journal tells of, and the length in bytes of what it tells.

    A last line that was never finished is left out.

    Raises:
        TableError: Another line is not as it was written; it names `path`.
    """
    # What follows the last line break is empty, or the beginning of a line.
    *lines, rest = journal.split(b"\n")
    blocks = [_parse(line) for line in lines]
    if blocks and blocks[-1] is None and not rest:
        blocks.pop()  # The file had grown, but not all bytes of the line had arrived.
    if None in blocks:
        raise damaged(path, f"line {blocks.index(None) + 1} is not as it was written")
    whole = [block for block in blocks if block is not None]
    return whole, sum(len(line) + 1 for line in lines[: len(whole)])


def _parse(line: bytes) -> Block | None:
    """The block that a line tells of; `None` if it is not as it was written."""
    try:
        entry = json.loads(line)
        intact = entry["checksum"] == fingerprint_of(entry["block"])
        return Block(**entry["block"]) if intact else None
    except (ValueError, KeyError, TypeError):
        return None
