"""Reading tensors by name from a file that someone else wrote, without running anything in it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from regraft.errors import WeightsError

SAFE_COPY = (
    "Ask its author for a .safetensors file, or, where you trust it, load it with torch.load and save "
    "the state dict alone."
)


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """The tensors of a file, and what had to be unwrapped to get at them."""

    path: Path
    entries: dict[str, Tensor]
    unwrapped: tuple[str, ...] = ()
    """Notes such as "under 'state_dict'"."""


def read_weights(path: Path) -> WeightFile:
    """Read a `.safetensors` file, or a `.pth`, `.pt` or `.pth.tar` one that `torch.save` wrote.

    A state dict may lie under the key `state_dict`, and its names may all begin with `module.`, as
    training scripts leave them; both are taken off and noted.

    Raises:
        WeightsError: Not a file, damaged, not a state dict, or it holds code, which is never run.
    """
    _check_opens(path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    unwrapped: list[str] = []
    if isinstance(content, dict) and "state_dict" in content:
        content = content["state_dict"]
        unwrapped.append("under 'state_dict'")
    entries = _checked(content, path)
    if all(key.startswith("module.") for key in entries):
        entries = {key.removeprefix("module."): tensor for key, tensor in entries.items()}
        unwrapped.append("names without 'module.'")
    return WeightFile(path=path, entries=entries, unwrapped=tuple(unwrapped))


def _check_opens(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be opened: {error.strerror}.", hint="Give the path of a downloaded weight file."
        ) from error


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is not a whole safetensors file: {error}.", hint="Download it again."
        ) from error


def _read_pickle(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle fails in any way: KeyError, EOFError, struct.error, ...
        if code := re.search(r"GLOBAL (\w[\w.]*)", str(error)):
            raise WeightsError(
                f"{path} asks to load {code[1]}, which is code and was not run; expected tensors only.",
                hint=SAFE_COPY,
            ) from error
        raise WeightsError(
            f"{path} is damaged or was not written by torch.save ({type(error).__name__}).",
            hint="Download it again; a safetensors file must be called .safetensors.",
        ) from error


def _checked(content: object, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, dict) or not content:
        found = "an empty dict" if content == {} else f"a {type(content).__name__}"
        raise WeightsError(
            f"{path} holds {found}; expected tensors by name.", hint="Save model.state_dict()."
        )
    entries = cast(dict[object, object], content)
    odd = [repr(key) for key, value in entries.items() if not _is_entry(key, value)]
    if odd:
        raise WeightsError(
            f"{path} has entries that are not tensors by name: {', '.join(odd[:8])}; expected a state dict, "
            "alone or under 'state_dict'.",
            hint="If one of them is the state dict, save that one alone.",
        )
    return cast(dict[str, Tensor], entries)


def _is_entry(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)
