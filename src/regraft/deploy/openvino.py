"""OpenVINO models: an .xml file with the graph and a .bin file with the weights."""

import json
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn

from regraft.deploy import onnx
from regraft.deploy.signature import check_input
from regraft.errors import MissingExtra, RegraftError
from regraft.machine import processor_flags

if TYPE_CHECKING:
    from openvino import Core

METADATA_KEY = "regraft"
HINTS = {"float32": "f32", "bfloat16": "bf16"}
BFLOAT16_UNITS = ("amx_bf16", "avx512_bf16")


def write(
    model: nn.Module, example: Tensor, path: Path, metadata: Mapping[str, str], dynamic_axes: Collection[int]
) -> None:
    """Write `model` as `path` and, beside it, a .bin file with float32 weights.

    Goes through an ONNX file that is removed again.

    Raises:
        MissingExtra: openvino is not installed.
        ShapeError: The model cannot have all `dynamic_axes` open.
    """
    core = _core("exporting to OpenVINO")
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "model.onnx"
        onnx.write(model, example, draft, {}, dynamic_axes)
        graph = core.read_model(draft)
        # One JSON text, because line breaks do not survive in an XML attribute.
        graph.set_rt_info(json.dumps(dict(metadata)), METADATA_KEY)
        openvino.save_model(graph, path, compress_to_fp16=False)


def load(path: Path, *, precision: Literal["float32", "bfloat16"] = "float32") -> Callable[[Tensor], Tensor]:
    """Return a function that runs the model on the CPU, with as many threads as torch has.

    Args:
        precision: What convolutions and matrix products compute in. bfloat16 keeps eight bits of each
            number's mantissa, so it is another function, a few per cent away in its logits.

    Raises:
        MissingExtra: openvino is not installed.
        RegraftError: bfloat16 on a CPU that has no units for it, where OpenVINO would quietly use
            float32.
    """
    core = _core("running OpenVINO models")
    if precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise RegraftError(
            "This CPU cannot compute in bfloat16; expected AMX or AVX-512 BF16 units.",
            hint="Load the model with precision='float32'.",
        )
    settings = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    sizes = [size.get_length() if size.is_static else None for size in compiled.input(0).partial_shape]

    def run(x: Tensor) -> Tensor:
        check_input(x, sizes)
        # A copy, because OpenVINO writes its next answer into the same memory.
        return torch.tensor(compiled([x.numpy(force=True)])[0])

    return run


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata that `write` put into the .xml file.

    Raises:
        MissingExtra: openvino is not installed.
    """
    graph = _core("reading OpenVINO models").read_model(path)
    return json.loads(graph.get_rt_info(METADATA_KEY).astype(str))


def bfloat16_units() -> tuple[str, ...]:
    """Which of "amx_bf16" (matrix tiles) and "avx512_bf16" (vectors) this Linux machine's CPU has.

    AMX is where bfloat16 is several times faster than float32; vectors alone gain less.
    """
    flags = processor_flags()
    return tuple(unit for unit in BFLOAT16_UNITS if unit in flags)


def _core(purpose: str) -> "Core":
    # On import, OpenVINO reports its use to its makers over the network. Where its reporting package
    # cannot be imported it falls back to its own stub, and None is how Python spells that.
    sys.modules.setdefault("openvino_telemetry", cast(ModuleType, None))
    try:
        import openvino
    except ImportError as error:
        raise MissingExtra.of(purpose, "openvino") from error
    return openvino.Core()
