"""ExecuTorch programs for phones and small boards, computing in XNNPACK."""

import json
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from regraft.deploy.program import trace
from regraft.deploy.signature import check_input
from regraft.errors import MissingExtra, RegraftError

if TYPE_CHECKING:
    from executorch.runtime import Method

METADATA_METHOD = "metadata"


def write(
    model: nn.Module, example: Tensor, path: Path, metadata: Mapping[str, str], dynamic_axes: Collection[int]
) -> None:
    """Write `model` as one .pte file whose method `metadata` returns the metadata as JSON text.

    Raises:
        MissingExtra: executorch is not installed.
        ShapeError: The model cannot have all `dynamic_axes` open.
    """
    try:
        # Here and below: executorch uses deprecated functions in its own code, which is not ours to mend.
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower
    except ImportError as error:
        raise MissingExtra.of("exporting to ExecuTorch", "executorch") from error
    graph = trace(model, example, dynamic_axes)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        program = to_edge_transform_and_lower(
            graph,
            partitioner=[XnnpackPartitioner()],
            constant_methods={METADATA_METHOD: json.dumps(dict(metadata))},
        ).to_executorch()
    path.write_bytes(program.buffer)


def load(path: Path) -> Callable[[Tensor], Tensor]:
    """Return a function that runs the program in ExecuTorch's own runtime.

    The runtime has one pool of threads for the whole process and chooses their number itself.

    Raises:
        MissingExtra: executorch is not installed.
        RegraftError: The file is not a program that `write` made.
    """
    method = _method(path, "forward")
    sizes = method.metadata.input_tensor_meta(0).sizes()

    def run(x: Tensor) -> Tensor:
        check_input(x, sizes)
        # A copy, because the program writes its next answer into the same memory.
        return method.execute([x.cpu().contiguous()])[0].clone()

    return run


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata that `write` put into the file.

    Raises:
        MissingExtra: executorch is not installed.
        RegraftError: The file is not a program that `write` made.
    """
    (text,) = _method(path, METADATA_METHOD).execute([])
    return json.loads(text)


def _method(path: Path, name: str) -> "Method":
    try:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            from executorch.runtime import Runtime
    except ImportError as error:
        raise MissingExtra.of("running ExecuTorch programs", "executorch") from error
    program = Runtime.get().load_program(path)
    method = program.load_method(name) if name in program.method_names else None
    if method is None:
        raise RegraftError(f"{path} has no method {name!r}; expected a program exported by Regraft.")
    return method
