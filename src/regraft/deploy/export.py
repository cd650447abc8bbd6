"""Export of a fused model to the file of another runtime, proven before it is written."""

import math
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from regraft.deploy import coreml, executorch, onnx, openvino
from regraft.deploy.parity import Function, Parity, compare, random_inputs
from regraft.errors import ParityError, RecipeError, ShapeError, TrainModeError
from regraft.nn.reparam import is_fused, refuse_train_mode

NUM_RANDOM_BATCHES = 4
"""Random batches of the example's size that every artifact is proven on, beside real samples."""


Write = Callable[[nn.Module, Tensor, Path, Mapping[str, str], Collection[int]], None]
"""Write the model, traced on an example input, to a path, with metadata, leaving the size of some axes of
the input open."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A runtime to export to."""

    suffix: str
    """How the artifact's name ends."""
    write: Write
    """Writes the artifact."""
    load: Callable[[Path], Function]
    """Loads it into its own runtime."""
    read_metadata: Callable[[Path], dict[str, str]]
    """Reads back what `write` was given."""
    resizable: bool = False
    """Whether an artifact can take other sizes than the example's."""
    companions: tuple[str, ...] = ()
    """Endings of further files that belong to the artifact."""
    tolerance: float = 1e-4
    """Largest relative difference that passes, see `compare`."""
    can_run: Callable[[], bool] = lambda: True
    """Whether this machine has the runtime at all."""


TARGETS: dict[str, Target] = {
    "onnx": Target(
        suffix=".onnx", write=onnx.write, load=onnx.load, read_metadata=onnx.read_metadata, resizable=True
    ),
    "openvino": Target(
        suffix=".xml",
        write=openvino.write,
        load=openvino.load,
        read_metadata=openvino.read_metadata,
        resizable=True,
        companions=(".bin",),
    ),
    "executorch": Target(
        suffix=".pte", write=executorch.write, load=executorch.load, read_metadata=executorch.read_metadata
    ),
    "coreml": Target(
        suffix=".mlpackage",
        write=partial(coreml.write, precision="float16"),
        load=coreml.load,
        read_metadata=coreml.read_metadata,
        # Measured in torch's float16: 1 to 2e-3 for FastViT, 1.6e-2 for MobileOne S0.
        tolerance=5e-2,
        can_run=coreml.can_run,
    ),
    "coreml-float32": Target(
        suffix=".mlpackage",
        write=partial(coreml.write, precision="float32"),
        load=coreml.load,
        read_metadata=coreml.read_metadata,
        can_run=coreml.can_run,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """An exported model on disk."""

    path: Path
    """The file, or for Core ML the package folder."""
    target: str
    """A name in `TARGETS`."""
    parity: Parity | None
    """The proof that it computes what the model computes; `None` where it cannot run here."""
    size_bytes: int
    """Size of all its files."""
    metadata: Mapping[str, str]
    """What the artifact says about itself."""

    @property
    def verified(self) -> bool:
        """Whether the artifact was run and gave the model's answers."""
        return self.parity is not None

    def __str__(self) -> str:
        proof = self.parity or "exported, not verified: it cannot run on this machine"
        return f"{self.path} ({self.size_bytes / 1e6:.1f} MB): {proof}"


def export(
    model: nn.Module,
    path: Path | str,
    *,
    example: Tensor,
    target: str = "onnx",
    metadata: Mapping[str, str],
    inputs: Iterable[Tensor] = (),
    tolerance: float | None = None,
    dynamic_axes: Collection[int] | None = None,
) -> Artifact:
    """Export a fused model, prove that the artifact gives the same answers, and only then put it at `path`.

    The artifact is written to a hidden folder beside `path`, loaded into its own runtime, and compared
    with `model` on random inputs and on `inputs`. Where sizes are open, another batch and picture size
    are tried too. An older artifact at `path` is replaced by a rename, so no reader ever sees half of
    one; a process killed on the way leaves at most the hidden folder.

    Args:
        model: A module in eval mode, float32, on the CPU, without branches: see `regraft.fuse`.
        path: Where to write it; the ending must be the target's.
        example: An input `(b ...)` of the usual size; its values do not matter.
        target: A name in `TARGETS`.
        metadata: Texts stored inside the artifact, such as its preprocessing and labels as JSON.
        inputs: Batches of real samples to prove it on, beside random ones.
        tolerance: Largest relative difference that passes; `None` takes the target's own.
        dynamic_axes: Axes of the input that keep any size. `None` means all but the channels where the
            target can, and none where it cannot.

    Raises:
        ParityError: The artifact's answers, or its metadata, differ from the model's. Nothing is written.
        TrainModeError: The model is in training mode or still has branches to fuse.
        ShapeError: The target or the model cannot have those axes open.
        RecipeError: An unknown target, a path with another ending, or a model not float32 on the CPU.
        MissingExtra: The target's packages are not installed.
    """
    path, backend = Path(path), _find(target)
    _check_path(path, backend, target)
    _check_model(model)
    axes = _open_axes(example, backend, target, dynamic_axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        draft = Path(folder) / path.name
        backend.write(model, example, draft, metadata, axes)
        _check_metadata(backend.read_metadata(draft), metadata)
        parity = None
        if backend.can_run():
            limit = backend.tolerance if tolerance is None else tolerance
            parity = _prove(model, backend.load(draft), _proof_inputs(example, axes, inputs), limit)
        size_bytes = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        _publish(draft, path, backend.companions)
    return Artifact(path=path, target=target, parity=parity, size_bytes=size_bytes, metadata=dict(metadata))


def _find(target: str) -> Target:
    if target not in TARGETS:
        raise RecipeError(f"No export target {target!r}.", hint=f"Choose one of {', '.join(TARGETS)}.")
    return TARGETS[target]


def _check_path(path: Path, backend: Target, target: str) -> None:
    if path.suffix != backend.suffix:
        raise RecipeError(
            f"{path.name} ends in {path.suffix!r}; an artifact for {target} ends in {backend.suffix!r}.",
            hint=f"Call it {path.with_suffix(backend.suffix).name}.",
        )


def _check_model(model: nn.Module) -> None:
    refuse_train_mode(model, "export")
    if not is_fused(model):
        raise TrainModeError(
            f"{type(model).__name__} still has its training branches, which only cost time at inference.",
            hint="Export regraft.fuse(model).",
        )
    for name, tensor in model.named_parameters():
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise RecipeError(
                f"{name} is {tensor.dtype} on {tensor.device}; expected torch.float32 on the CPU.",
                hint="Export model.float().cpu().",
            )


def _open_axes(
    example: Tensor, backend: Target, target: str, dynamic_axes: Collection[int] | None
) -> list[int]:
    if dynamic_axes is None:
        return [axis for axis in range(example.ndim) if axis != 1] if backend.resizable else []
    axes = sorted(set(dynamic_axes))
    if axes and not backend.resizable:
        raise ShapeError(
            f"Artifacts for {target} have one fixed input size; axes {axes} cannot stay open.",
            hint="Export one artifact for each size, or use target='onnx'.",
        )
    if not all(0 <= axis < example.ndim for axis in axes):
        raise ShapeError(f"dynamic_axes are {axes}; the example has axes 0 to {example.ndim - 1}.")
    return axes


def _check_metadata(found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    if dict(found) != dict(wanted):
        names = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        raise ParityError(f"The artifact's metadata did not survive the export: {', '.join(names)}.")


def _prove(model: nn.Module, runner: Function, inputs: Iterable[Tensor], tolerance: float) -> Parity:
    parity = compare(model, runner, inputs, tolerance=tolerance)
    if not parity.passed:
        raise ParityError(f"The exported artifact is not the model. {parity}")
    return parity


def _proof_inputs(example: Tensor, axes: list[int], inputs: Iterable[Tensor]) -> Iterator[Tensor]:
    yield from random_inputs(example.shape, NUM_RANDOM_BATCHES)
    if axes:
        yield from random_inputs(_another_size(example, axes), 1)
    for batch in inputs:
        # A fixed artifact takes only batches of the example's length.
        yield from [batch] if 0 in axes else batch.split(len(example))


def _another_size(example: Tensor, axes: list[int]) -> list[int]:
    """A size that differs from the example's on every open axis, and between height and width."""
    return [
        math.ceil(size * (1.25 + 0.25 * axis)) + 1 if axis in axes else size
        for axis, size in enumerate(example.shape)
    ]


def _publish(draft: Path, path: Path, companions: tuple[str, ...]) -> None:
    """Move an artifact into place, so that `path` never names a part of one or a mix of two.

    One file replaces another in one step. Where an artifact is several files or a folder, the old one
    is taken away first, and `path`, without which the rest is not found, comes last.
    """
    if path.exists() and (companions or (draft.is_dir() and path.is_dir())):
        path.replace(draft.with_name("replaced"))
    for suffix in companions:
        draft.with_suffix(suffix).replace(path.with_suffix(suffix))
    draft.replace(path)
