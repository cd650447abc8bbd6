"""Core ML packages. They are written anywhere and run on macOS only."""

import sys
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor, nn

from regraft.deploy.program import trace
from regraft.deploy.signature import check_input
from regraft.errors import MissingExtra, RegraftError

MANIFEST = "Manifest.json"
"""The file in every package that lists the others."""
TOOL_KEYS = "com.github.apple.coremltools."


def write(
    model: nn.Module,
    example: Tensor,
    path: Path,
    metadata: Mapping[str, str],
    dynamic_axes: Collection[int],
    *,
    precision: Literal["float16", "float32"],
) -> None:
    """Write `model` as an ML program package, on any machine.

    Args:
        precision: What the package computes in. The Neural Engine knows only float16; float32 stays on
            the CPU and GPU. Inputs and outputs are float32 either way.

    Raises:
        MissingExtra: coremltools is not installed.
        ShapeError: The model cannot have all `dynamic_axes` open.
    """
    tools = _tools("exporting to Core ML")
    program = trace(model, example, dynamic_axes).run_decompositions({})
    with warnings.catch_warnings():
        # coremltools uses deprecated functions, and forgets a temporary folder, in its own code.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "Implicitly cleaning up", ResourceWarning)
        package = tools.convert(
            program,
            convert_to="mlprogram",
            compute_precision=tools.precision(precision),
            skip_model_load=not can_run(),
        )
    package.user_defined_metadata.update(metadata)
    package.save(str(path))


def can_run() -> bool:
    """Whether this machine can run Core ML models."""
    return sys.platform == "darwin"


def load(path: Path) -> Callable[[Tensor], Tensor]:
    """Return a function that runs the package, on whichever unit Core ML chooses.

    Raises:
        MissingExtra: coremltools is not installed.
        RegraftError: This is not macOS.
    """
    tools = _tools("running Core ML models")
    if not can_run():
        raise RegraftError(
            f"Core ML models run on macOS; this is {sys.platform}.", hint="Run the ONNX export instead."
        )
    package = tools.models.MLModel(str(path))
    description = package.get_spec().description
    (source,), (answer,) = description.input, description.output

    def run(x: Tensor) -> Tensor:
        check_input(x, list(source.type.multiArrayType.shape))
        return torch.from_numpy(package.predict({source.name: x.numpy(force=True)})[answer.name])

    return run


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata that `write` put into the package, on any machine.

    Raises:
        MissingExtra: coremltools is not installed.
    """
    spec = _tools("reading Core ML models").utils.load_spec(str(path))
    entries = spec.description.metadata.userDefined
    return {name: text for name, text in entries.items() if not name.startswith(TOOL_KEYS)}


def _tools(purpose: str) -> ModuleType:
    try:
        # It imports executorch if there is one, which uses deprecated functions in its own code.
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            import coremltools
    except ImportError as error:
        raise MissingExtra.of(purpose, "coreml") from error
    return coremltools
