"""ONNX files, run by ONNX Runtime."""

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from regraft.deploy.program import trace
from regraft.deploy.signature import check_input
from regraft.errors import WeightsError

if TYPE_CHECKING:
    from onnx import GraphProto

AXIS_NAMES = ("batch", "channels", "height", "width")
MAX_BYTES = 2**31 - 1
"""A protobuf message, and so an ONNX file with its weights inside, cannot be larger."""


def write(
    model: nn.Module, example: Tensor, path: Path, metadata: Mapping[str, str], dynamic_axes: Collection[int]
) -> None:
    """Write `model` as one ONNX file, its weights and metadata inside.

    Raises:
        ShapeError: The model cannot have all `dynamic_axes` open.
        WeightsError: The model is larger than an ONNX file can be.
    """
    import onnx

    _check_size(model)
    program = torch.onnx.export(
        trace(model, example, dynamic_axes),
        dynamo=True,
        verbose=False,
        input_names=["input"],
        output_names=["output"],
    )
    assert program is not None  # None only from the exporter before dynamo.
    proto = program.model_proto
    _forget_origin(proto.graph)
    _name_axes(proto.graph)
    onnx.helper.set_model_props(proto, dict(metadata))
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def load(path: Path) -> Callable[[Tensor], Tensor]:
    """Return a function that runs the file in ONNX Runtime on the CPU, with as many threads as torch has.

    Raises:
        WeightsError: ONNX Runtime cannot run the file, or it has more than one input or output.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no other parent
        raise WeightsError(f"ONNX Runtime cannot run {path}: {error}") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if (len(inputs), len(outputs)) != (1, 1):
        raise WeightsError(
            f"{path} has {len(inputs)} inputs and {len(outputs)} outputs, expected one of each."
        )
    signature = inputs[0]
    sizes = [size if isinstance(size, int) else None for size in signature.shape]

    def run(x: Tensor) -> Tensor:
        check_input(x, sizes)
        (output,) = session.run(None, {signature.name: x.numpy(force=True)})
        return torch.from_numpy(output)

    return run


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata that `write` put into the file."""
    import onnx

    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def weight_files(path: Path) -> list[Path]:
    """Files beside an ONNX file that hold weights which are not in it, sorted; `write` makes none.

    Where a file lies is said by its initializers (ONNX specification, "External Tensor Data").
    """
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    named = {
        entry.value
        for tensor in graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [path.parent / name for name in sorted(named)]


def _check_size(model: nn.Module) -> None:
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if num_bytes > MAX_BYTES:
        raise WeightsError(
            f"The weights take {num_bytes / 2**30:.2f} GiB; one ONNX file holds less than 2 GiB.",
            hint="Export to ExecuTorch instead.",
        )


def _forget_origin(graph: "GraphProto") -> None:
    """Remove the exporter's notes: they name files of the machine that exported, line by line."""
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.metadata_props[:]
    del graph.value_info[:]


def _name_axes(graph: "GraphProto") -> None:
    """Call the open sizes batch, height and width instead of s77, s53 and s0."""
    sizes = graph.input[0].type.tensor_type.shape.dim
    words = AXIS_NAMES if len(sizes) == len(AXIS_NAMES) else [f"axis_{axis}" for axis in range(len(sizes))]
    names = {size.dim_param: word for size, word in zip(sizes, words, strict=True) if size.dim_param}
    for value in (*graph.input, *graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), size.dim_param)
