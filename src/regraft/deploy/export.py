"""Export of a fused model to the file of another runtime, proven before it is written."""

import math
import tempfile
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from regraft.deploy import coreml, executorch, onnx, openvino
from regraft.deploy.parity import Function, Parity, check_limits, compare, random_inputs
from regraft.errors import ParityError, PlaceError, RecipeError, ShapeError, TrainModeError
from regraft.files import check_folder_place, check_place, put, remove
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
    manifest: str | None = None
    """A file that is in every artifact, where those are folders; `None` where they are files."""
    tolerance: float = 1e-4
    """Largest relative difference that passes, see `compare`."""
    min_agreement: float = 0.99
    """Smallest share of equal decisions that passes, see `compare`."""
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
        manifest=coreml.MANIFEST,
        # Measured in torch's float16: 1 to 2e-3 for FastViT, 1.6e-2 for MobileOne S0.
        tolerance=5e-2,
        # Random pictures leave the first classes so near each other that differences as large as these
        # swap some: of twenty decisions, four may be others. Float32 swaps none.
        min_agreement=0.8,
        can_run=coreml.can_run,
    ),
    "coreml-float32": Target(
        suffix=".mlpackage",
        write=partial(coreml.write, precision="float32"),
        load=coreml.load,
        read_metadata=coreml.read_metadata,
        manifest=coreml.MANIFEST,
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
    are tried too. No reader ever sees half of an artifact, or parts of two, and a failure leaves an older
    one as it was.

    A process killed on the way leaves the hidden folder. Where the artifact is one file, `path` holds the
    older or the new one, whole. Several files or a folder cannot be replaced in one step: killed in the
    instant between, there is nothing at `path`, and the older artifact is in the hidden folder, under
    `older`.

    Args:
        model: A module in eval mode, float32, on the CPU, without branches: see `regraft.fuse`.
        path: Where to write it; the ending must be the target's.
        example: An input `(b ...)` of the usual size; its values do not matter.
        target: A name in `TARGETS`.
        metadata: Texts stored inside the artifact, such as its preprocessing and labels as JSON.
        inputs: Batches of real samples to prove it on, beside random ones.
        tolerance: Largest relative difference that passes; `None` takes the target's own. The share of
            equal decisions that passes is the target's.
        dynamic_axes: Axes of the input that keep any size. `None` means all but the channels where the
            target can, and none where it cannot.

    Raises:
        ParityError: The artifact's answers, or its metadata, differ from the model's. Nothing is written.
        PlaceError: Nothing can be put at `path`, or something of another kind is there.
        TrainModeError: The model is in training mode or still has branches to fuse.
        ShapeError: The model cannot take the example, or the target or the model cannot have those axes
            open.
        RecipeError: An unknown target, a path with another ending, a tolerance out of range, or a model
            not float32 on the CPU.
        MissingExtra: The target's packages are not installed.
    """
    path, backend = Path(path), _find(target)
    _check_suffix(path, backend, target)
    _check_places(path, backend)
    limit = backend.tolerance if tolerance is None else tolerance
    check_limits(limit, backend.min_agreement)
    _check_model(model)
    axes = _open_axes(example, backend, target, dynamic_axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        draft = Path(folder) / path.name
        backend.write(model, example, draft, metadata, axes)
        _check_metadata(backend.read_metadata(draft), metadata)
        parity = None
        if backend.can_run():
            proofs = _proof_inputs(example, axes, inputs)
            parity = _prove(model, backend.load(draft), proofs, limit, backend.min_agreement)
        size_bytes = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        _check_places(path, backend)  # Again, because a proof takes minutes in which others may write.
        _publish(draft, path, backend)
    return Artifact(path=path, target=target, parity=parity, size_bytes=size_bytes, metadata=dict(metadata))


def _find(target: str) -> Target:
    if target not in TARGETS:
        raise RecipeError(f"No export target {target!r}.", hint=f"Choose one of {', '.join(TARGETS)}.")
    return TARGETS[target]


def _check_suffix(path: Path, backend: Target, target: str) -> None:
    if path.suffix != backend.suffix:
        raise RecipeError(
            f"{path.name} ends in {path.suffix!r}; an artifact for {target} ends in {backend.suffix!r}.",
            hint=f"Call it {path.with_suffix(backend.suffix).name}.",
        )


def _check_places(path: Path, backend: Target) -> None:
    for suffix in backend.companions:
        check_place(path.with_suffix(suffix))
    if backend.manifest is None:
        check_place(path)
        return
    check_folder_place(path)
    if path.is_dir() and any(path.iterdir()) and not (path / backend.manifest).is_file():
        raise PlaceError(
            f"{path} is a folder of something else, without a {backend.manifest}; expected an older artifact "
            "to replace, or a free name."
        )


def _check_model(model: nn.Module) -> None:
    refuse_train_mode(model, "export")
    if not is_fused(model):
        raise TrainModeError(
            f"{type(model).__name__} still has its training branches, which only cost time at inference.",
            hint="Fuse it first: `regraft fuse MODEL --out FUSED`, or regraft.fuse(model.eval()).",
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


def _prove(
    model: nn.Module, runner: Function, inputs: Iterable[Tensor], tolerance: float, min_agreement: float
) -> Parity:
    parity = compare(model, runner, inputs, tolerance=tolerance, min_agreement=min_agreement)
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


def _publish(draft: Path, path: Path, backend: Target) -> None:
    """Move an artifact into place, so that `path` never names a part of one or a mix of two.

    One file replaces another in one step. Where an artifact is several files or a folder, the older one
    is taken away first; `path`, without which the rest is not found, goes first and its successor comes
    last.
    """
    if backend.manifest is None and not backend.companions:
        put(draft, path)
        return
    suffixes = (backend.suffix, *backend.companions)
    with _taken_away([path.with_suffix(suffix) for suffix in suffixes], draft.with_name("older")):
        for suffix in reversed(suffixes):
            put(draft.with_suffix(suffix), path.with_suffix(suffix))


@contextmanager
def _taken_away(places: list[Path], attic: Path) -> Generator[None, None, None]:
    """Move what is at `places` into the folder `attic`, and back, in place of anything new, on failure."""
    attic.mkdir()
    free: list[Path] = []
    try:
        for place in places:
            if place.exists():
                place.replace(attic / place.name)
            free.append(place)
        yield
    except BaseException:  # Also an interrupt: the older artifact would go with the hidden folder.
        for place in reversed(places):
            older = attic / place.name
            if older.exists() or place in free:
                remove(place)
            if older.exists():
                older.replace(place)
        raise
