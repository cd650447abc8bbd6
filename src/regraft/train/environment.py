"""What a run ran on: versions, commit, device."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from lightning_fabric import Fabric

from regraft.machine import processor_name

PACKAGES = ("regraft", "lightning-fabric", "safetensors", "numpy")


def describe_environment(fabric: Fabric) -> dict[str, object]:
    """Everything that may change a result although the recipe is the same."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        "commit": _commit(),
        "platform": platform.platform(),
        "device": _device_name(fabric.device),
        "num_threads": torch.get_num_threads(),
        "num_processes": fabric.world_size,
        "precision": fabric.strategy.precision.precision,
    }


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in PACKAGES}
    # PyTorch's own word names its build for a device, which the package's version does not.
    return packages | {"torch": str(torch.__version__), "python": platform.python_version()}


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}: {processor_name()}"


def _commit() -> str | None:
    """Commit of the source this package is run from, marked if it was changed; `None` if it is installed."""
    here = Path(__file__)
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    return _git(here.parent, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=directory, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # No git, or no repository.
        return None
    return done.stdout.strip()
