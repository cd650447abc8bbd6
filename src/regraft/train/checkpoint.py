"""Checkpoints: directories of safetensors and JSON that are whole or not there.

    checkpoints/step-00000120/
        model.safetensors  average.safetensors  optimizer.safetensors  state.json

A checkpoint is written beside its place, forced to the disk and renamed. `state.json` holds the step,
the digests of the other files and the optimizer's numbers. Nothing is pickled, so reading a
checkpoint runs no code. There is no random state in it: each step derives its own from the seed.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from regraft.errors import RunError
from regraft.files import put
from regraft.train.optimizer import Numbers, numbers_of, restore_optimizer, tensors_of

FORMAT = 1
NUM_KEPT = 2
NAME = re.compile(r"step-(\d{8,})")
PARTIAL = ".partial"
STATE = "state.json"


@dataclass(frozen=True)
class Trained:
    """What training changes, and a checkpoint therefore holds."""

    model: nn.Module
    optimizer: Optimizer
    average: AveragedModel | None

    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """All tensors, by file and name. A tied tensor appears under each of its names."""
        files: dict[str, Mapping[str, Tensor]] = {"model": self.model.state_dict()}
        if self.average is not None:
            files["average"] = self.average.state_dict()
        return files | {"optimizer": tensors_of(self.optimizer)}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of `state.json`."""

    step: int
    digests: dict[str, str]
    """BLAKE2 of each safetensors file, by its stem."""
    optimizer: Numbers
    format: int = FORMAT


def save(directory: Path, step: int, trained: Trained) -> None:
    """Write the checkpoint of `step` into `directory`, and remove all but the newest `NUM_KEPT`."""
    place = directory / f"step-{step:08d}"
    if place.exists():  # Restored from here, and no step was made since.
        return
    partial = directory / (place.name + PARTIAL)
    partial.mkdir(parents=True)
    digests = {
        name: _write(partial / f"{name}.safetensors", _serialized(tensors))
        for name, tensors in trained.tensors().items()
    }
    manifest = Manifest(step=step, digests=digests, optimizer=numbers_of(trained.optimizer))
    _write(partial / STATE, json.dumps(asdict(manifest), indent=1).encode())
    put(partial, place)
    for old in _found(directory)[:-NUM_KEPT]:
        # Renamed first, so that a kill in between leaves no checkpoint that looks whole.
        shutil.rmtree(old.rename(directory / (old.name + PARTIAL)))


def restore(directory: Path, trained: Trained) -> int:
    """Load the newest checkpoint of `directory` into `trained`; return its step, 0 if there is none.

    Tensors are copied into the memory that is there, so that its layout (channels last) and the
    order of later sums stay what they were.

    Raises:
        RunError: If the newest checkpoint is damaged or belongs to another model or optimizer. An older
            one is never taken silently.
    """
    found = _found(directory)
    if not found:
        return 0
    newest = found[-1]
    spare = f"continue from {found[-2].name}" if len(found) > 1 else "start again"
    manifest, files = _read(newest, hint=f"Remove {newest} to {spare}.")
    expected = trained.tensors().keys()
    if files.keys() != expected:
        raise RunError(f"{newest} holds {', '.join(files)}, but this run has {', '.join(expected)}.")
    try:
        trained.model.load_state_dict(files["model"])
        if trained.average is not None:
            trained.average.load_state_dict(files["average"])
        restore_optimizer(trained.optimizer, files["optimizer"], manifest.optimizer)
    except (RuntimeError, ValueError) as error:  # What torch raises for names and shapes that differ.
        raise RunError(
            f"{newest} does not fit this model and optimizer: {error}",
            hint="Continue with what it was made with, or use another run directory.",
        ) from error
    return manifest.step


def remove_partial(directory: Path) -> None:
    """Remove what a killed process left half-written or half-removed."""
    for partial in directory.glob(f"*{PARTIAL}"):
        shutil.rmtree(partial)


def _found(directory: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    steps = {int(match[1]): path for path in directory.glob("step-*") if (match := NAME.fullmatch(path.name))}
    return [steps[step] for step in sorted(steps)]


def _read(place: Path, *, hint: str) -> tuple[Manifest, dict[str, dict[str, Tensor]]]:
    try:
        values = json.loads((place / STATE).read_bytes())
        manifest = Manifest(**values | {"optimizer": Numbers(**values["optimizer"])})
        contents = {name: (place / f"{name}.safetensors").read_bytes() for name in manifest.digests}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"The checkpoint {place} is damaged: {error}.", hint=hint) from error
    if manifest.format != FORMAT:
        raise RunError(f"{place} has checkpoint format {manifest.format}, expected {FORMAT}.", hint=hint)
    for name, content in contents.items():
        if _digest(content) != manifest.digests[name]:
            raise RunError(
                f"The checkpoint {place} is damaged: {name}.safetensors is not what was written.", hint=hint
            )
    try:
        return manifest, {name: safetensors.torch.load(content) for name, content in contents.items()}
    except SafetensorError as error:
        raise RunError(f"The checkpoint {place} is damaged: {error}.", hint=hint) from error


def _serialized(tensors: Mapping[str, Tensor]) -> bytes:
    # Copies, because tied tensors share memory, which the format has no word for.
    return safetensors.torch.save(
        {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
    )


def _write(path: Path, content: bytes) -> str:
    """Write `content`, return its digest."""
    path.write_bytes(content)
    return _digest(content)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
