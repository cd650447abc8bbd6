import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from regraft.deploy.coreml import load
from regraft.deploy.export import Artifact, export
from regraft.deploy.parity import compare, random_inputs
from regraft.errors import RegraftError

FLOAT32 = 65568
"""Core ML's own number for an array of float32 (ArrayFeatureType.ArrayDataType)."""


@pytest.fixture
def package(exported: Callable[[str, str], Artifact]) -> Path:
    return exported("coreml", "fastvit").path


def test_the_graph_is_folded_and_takes_float32(fastvit: nn.Module, package: Path):
    # Imported after `package`, which imports it without its warnings.
    import coremltools

    spec = coremltools.utils.load_spec(str(package))
    (source,), (answer,) = spec.description.input, spec.description.output
    assert list(source.type.multiArrayType.shape) == [1, 3, 32, 32]
    assert list(answer.type.multiArrayType.shape) == [1, 10]
    assert source.type.multiArrayType.dataType == answer.type.multiArrayType.dataType == FLOAT32
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    found = Counter(operation.type for operation in block.operations)
    assert found["conv"] == sum(isinstance(part, nn.Conv2d) for part in fastvit.modules())
    assert found["gelu"] == sum(isinstance(part, nn.GELU) for part in fastvit.modules())
    assert "batch_norm" not in found


def test_weights_take_half_the_bytes(fastvit: nn.Module, package: Path):
    num_parameters = sum(parameter.numel() for parameter in fastvit.parameters())
    (weights,) = package.rglob("weight.bin")
    assert 2 * num_parameters <= weights.stat().st_size < 2.2 * num_parameters


def test_float32_keeps_all_the_bytes(toy: nn.Module, tmp_path: Path):
    sizes = [
        export(
            toy,
            tmp_path / f"{target}.mlpackage",
            example=torch.zeros(1, 3, 16, 16),
            target=target,
            metadata={},
        )
        .path.joinpath("Data", "com.apple.CoreML", "weights", "weight.bin")
        .stat()
        .st_size
        for target in ("coreml", "coreml-float32")
    ]
    assert sizes[0] < sizes[1]


@pytest.mark.skipif(sys.platform == "darwin", reason="runs here")
def test_running_it_elsewhere_is_refused(package: Path):
    with pytest.raises(RegraftError, match="Core ML models run on macOS; this is"):
        load(package)


@pytest.mark.coreml
@pytest.mark.skipif(sys.platform != "darwin", reason="Core ML models run on macOS")
def test_answers_like_the_model(fastvit: nn.Module, package: Path):
    # float16: 1e-3 to 2e-3 for FastViT when torch computes in it; the negative control is float32's limit.
    inputs = list(random_inputs((1, 3, 32, 32), 8))
    assert compare(fastvit, load(package), inputs, tolerance=5e-2, min_agreement=0.8).passed
    assert not compare(fastvit, load(package), inputs, tolerance=1e-6).passed
