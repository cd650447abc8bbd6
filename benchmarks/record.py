"""How a measurement is written down: one JSON line, with what it was made on."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from subprocess import check_output

from regraft.deploy.latency import device_name

FOLDER = Path(__file__).parent


def environment(*packages: str) -> dict[str, object]:
    """The device, the versions of Regraft and some packages, the commit and the time."""
    commit = check_output(["git", "rev-parse", "--short", "HEAD"], text=True, cwd=FOLDER).strip()
    return {
        "device": device_name(),
        "versions": {package: version(package) for package in ("regraft", *packages)},
        "commit": commit,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def append(results: Path, lines: Iterable[Mapping[str, object]]) -> None:
    """Add lines to a file of results."""
    results.parent.mkdir(exist_ok=True)
    with results.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
