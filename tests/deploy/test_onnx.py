from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from regraft.deploy.export import TARGETS, Artifact, export
from regraft.deploy.onnx import load, write
from regraft.deploy.parity import compare
from regraft.errors import WeightsError


@pytest.fixture
def fastvit_file(exported: Callable[[str, str], Artifact]) -> Path:
    return exported("onnx", "fastvit").path


def operations(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def names_of_open_axes(value: onnx.ValueInfoProto) -> list[str | int]:
    return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]


def test_mobileone_s0_is_one_file_of_convolutions(mobileone_s0: nn.Module, tmp_path: Path):
    path = tmp_path / "s0.onnx"
    artifact = export(mobileone_s0, path, example=torch.zeros(1, 3, 96, 96), metadata={"labels": "[]"})
    # 43 convolutions, each with its ReLU, a mean over the picture and the classifier: nothing else.
    assert operations(path) == {"Conv": 43, "Relu": 43, "ReduceMean": 1, "Gemm": 1}
    assert list(tmp_path.iterdir()) == [path]
    num_parameters = sum(parameter.numel() for parameter in mobileone_s0.parameters())
    assert 4 * num_parameters < artifact.size_bytes < 4 * num_parameters + 100_000
    # Float32 sums of up to 1024 terms through 43 layers without a skip: measured 5e-7 to 9e-7.
    assert artifact.parity is not None
    assert artifact.parity.worst_relative < 1e-5


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (5, 3, 28, 28), (2, 3, 64, 40), (1, 3, 8, 8)])
def test_attention_takes_any_batch_and_size(shape: tuple[int, ...], fastvit: nn.Module, fastvit_file: Path):
    # The last leaves attention a single token, the size that tracing likes to make a constant.
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert compare(fastvit, load(fastvit_file), x, tolerance=1e-5).passed


def test_nothing_linear_is_left_unfolded(fastvit: nn.Module, fastvit_file: Path):
    found = operations(fastvit_file)
    assert "BatchNormalization" not in found
    num_gelus = sum(isinstance(part, nn.GELU) for part in fastvit.modules())
    assert found["Gelu"] == num_gelus > 0, "one operation each, not its five-part definition"
    # One multiplies height by width, one is the gate of squeeze-and-excite; none scales the attention.
    assert found["Mul"] == 2


def test_open_sizes_have_names(fastvit_file: Path):
    graph = onnx.load(fastvit_file).graph
    assert names_of_open_axes(graph.input[0]) == ["batch", 3, "height", "width"]
    assert names_of_open_axes(graph.output[0]) == ["batch", 10]


def test_names_follow_into_outputs_with_a_size(tmp_path: Path):
    path = tmp_path / "dense.onnx"
    write(nn.Conv2d(3, 4, 3, stride=2, padding=1).eval(), torch.zeros(1, 3, 8, 8), path, {}, (0, 2, 3))
    batch, _, height, width = names_of_open_axes(onnx.load(path).graph.output[0])
    assert (batch, "height" in str(height), "width" in str(width)) == ("batch", True, True)
    sound = tmp_path / "sound.onnx"
    write(nn.Conv1d(3, 4, 3).eval(), torch.zeros(1, 3, 8), sound, {}, (0, 2))
    assert names_of_open_axes(onnx.load(sound).graph.input[0]) == ["axis_0", 3, "axis_2"]


def test_all_sizes_can_be_fixed(toy: nn.Module, tmp_path: Path):
    path = tmp_path / "toy.onnx"
    assert export(toy, path, example=torch.zeros(2, 3, 16, 16), metadata={}, dynamic_axes=()).verified
    assert names_of_open_axes(onnx.load(path).graph.input[0]) == [2, 3, 16, 16]


def test_refuses_more_than_a_file_can_hold(tmp_path: Path):
    with torch.device("meta"):
        model = nn.Linear(2**15, 2**14 + 1).eval()
    with pytest.raises(WeightsError, match=r"take 2\.00 GiB"):
        write(model, torch.zeros(1, 2**15), tmp_path / "large.onnx", {}, ())


def test_the_default_target_is_onnx(toy: nn.Module, tmp_path: Path):
    artifact = export(toy, tmp_path / "toy.onnx", example=torch.zeros(1, 3, 16, 16), metadata={})
    assert artifact.target == "onnx"
    assert next(iter(TARGETS)) == "onnx"
