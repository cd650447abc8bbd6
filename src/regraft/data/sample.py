"""Names for samples that do not depend on the order they come in.

A sample from a file is named by its path below the root. A sample without a file is named by its
content. Labels, splits, stored teacher answers and augmentation seeds hang on these names, so adding
or reordering samples must not rename any.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

_COPY_NUMBER = re.compile(r"#[0-9]+$")


def content_id(data: bytes) -> str:
    """Name a sample by its content: 128 bits of BLAKE2b as 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def path_id(path: Path, root: Path) -> str:
    """Name a sample by its path below `root`, with forward slashes on every system.

    Raises:
        ValueError: `path` does not lie below `root`.
    """
    return path.relative_to(root).as_posix()


def number_copies(ids: Iterable[str]) -> tuple[str, ...]:
    """Tell identical samples apart: the second `a` becomes `a#2`, the third `a#3`.

    Which copy gets which number depends on their order. That is harmless where equal names mean equal
    samples, as they do for content ids.
    """
    taken: set[str] = set()
    copies: dict[str, int] = {}
    numbered: list[str] = []
    for name in ids:
        unique = name
        while unique in taken:
            copies[name] = copies.get(name, 1) + 1
            unique = f"{name}#{copies[name]}"
        taken.add(unique)
        numbered.append(unique)
    return tuple(numbered)


def without_copy_number(sample_id: str) -> str:
    """The name all copies of a sample share, so that a split keeps copies together."""
    return _COPY_NUMBER.sub("", sample_id)
