"""Pictures that could not be read in the course of a run, remembered across kills."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import final

from regraft.errors import RunError
from regraft.vision.images import BadImage


@final
class LeftOut:
    """Pictures that could not be read, though an inspection may have passed them; iterating gives their ids.

    Args:
        path: A file of JSON lines that keeps them through kills and that several processes may share: each
            picture is written down when it is first met, and what is there already counts as met. `None`
            keeps them in memory.

    Raises:
        RunError: The file holds something else.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._met: dict[str, BadImage] = {} if path is None else _read(path)

    def add(self, bad: Mapping[str, BadImage]) -> None:
        """Remember what is wrong with pictures, by sample id; those met before are passed over."""
        if bad.keys() <= self._met.keys():
            return
        known = self.files
        new = {sample_id: error for sample_id, error in bad.items() if sample_id not in known}
        if self._path is not None and new:
            _append(self._path, new)
        self._met |= new

    @property
    def files(self) -> Mapping[str, BadImage]:
        """What was wrong with each, by sample id, also as other processes have found so far."""
        if self._path is not None:
            self._met = _read(self._path) | self._met
        return dict(self._met)

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __str__(self) -> str:
        files = self.files
        if not files:
            return "every picture could be read"
        lines = [f"{len(files):,} pictures turned bad and were left out of their batches:"]
        lines += [f"  {sample_id}: {error}" for sample_id, error in files.items()]
        return "\n".join(lines)


def _append(path: Path, bad: Mapping[str, BadImage]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = b"".join(_line(sample_id, error) for sample_id, error in bad.items())
    # Unbuffered and appending, so that the lines reach the system at once, between those of others.
    with path.open("a+b", buffering=0) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            # A kill may have torn the last line; what follows must not be glued to it.
            lines = lines if file.read(1) == b"\n" else b"\n" + lines
        file.write(lines)


def _line(sample_id: str, error: BadImage) -> bytes:
    written = {"id": sample_id, "name": error.name, "defect": error.defect, "detail": error.detail}
    return (json.dumps(written) + "\n").encode()


def _read(path: Path) -> dict[str, BadImage]:
    if not path.exists():
        return {}
    found: dict[str, BadImage] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            values = json.loads(line)
        except ValueError:
            # Torn by a kill, or empty. Its picture is met again when it is next wanted.
            continue
        try:
            found[values["id"]] = BadImage(values["name"], values["defect"], values["detail"])
        except (KeyError, TypeError) as error:
            raise RunError(
                f"Line {number} of {path} is not about a picture: {line[:60]!r}.",
                hint="Restore the file, or remove it.",
            ) from error
    return found
