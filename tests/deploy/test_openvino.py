import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import openvino
import pytest
import torch
from torch import nn

from regraft.deploy.export import Artifact
from regraft.deploy.openvino import bfloat16_units, load, write
from regraft.deploy.parity import compare, random_inputs
from regraft.errors import RegraftError

HAS_BFLOAT16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture
def fastvit_file(exported: Callable[[str, str], Artifact]) -> Path:
    return exported("openvino", "fastvit").path


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (5, 3, 28, 28), (2, 3, 64, 40)])
def test_attention_takes_any_batch_and_size(shape: tuple[int, ...], fastvit: nn.Module, fastvit_file: Path):
    # 1e-4 as for every float32 runtime; measured 3e-7 to 5e-7.
    assert compare(fastvit, load(fastvit_file), random_inputs(shape, 1)).passed


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this CPU has no bfloat16 units")
def test_bfloat16_is_near_and_not_the_same(fastvit: nn.Module, fastvit_file: Path):
    # Eight bits of mantissa are 4e-3 for each number; a dozen layers with skips were measured at 1e-2.
    inputs = list(random_inputs((4, 3, 32, 32), 2))
    runner = load(fastvit_file, precision="bfloat16")
    assert compare(fastvit, runner, inputs, tolerance=1e-1, min_agreement=0.7).passed
    assert not compare(fastvit, runner, inputs).passed, "it must really run in bfloat16"


@pytest.mark.skipif(HAS_BFLOAT16, reason="this CPU has bfloat16 units")
def test_bfloat16_is_refused_where_it_would_be_float32(fastvit_file: Path):
    with pytest.raises(RegraftError, match="cannot compute in bfloat16"):
        load(fastvit_file, precision="bfloat16")


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs Linux")
def test_names_the_bfloat16_units():
    flags = Path("/proc/cpuinfo").read_text()
    assert all(unit in flags for unit in bfloat16_units())
    assert bool(bfloat16_units()) == HAS_BFLOAT16


def test_weights_stay_float32(fastvit: nn.Module, fastvit_file: Path):
    num_parameters = sum(parameter.numel() for parameter in fastvit.parameters())
    # A little below four bytes each: OpenVINO stores equal constants once.
    assert fastvit_file.with_suffix(".bin").stat().st_size > 3.9 * num_parameters


def test_leaves_a_neighbouring_onnx_file_alone(toy: nn.Module, tmp_path: Path):
    neighbour = tmp_path / "toy.onnx"
    neighbour.write_bytes(b"mine")
    write(toy, torch.zeros(1, 3, 16, 16), tmp_path / "toy.xml", {}, (0,))
    assert neighbour.read_bytes() == b"mine"


def test_nothing_is_reported_over_the_network() -> None:
    script = (
        "import sys\nfrom regraft.deploy.openvino import _core\n_core('testing')\n"
        "assert 'openvino.tools.ovc' in sys.modules\n"
        "print([name for name, module in sys.modules.items() if 'openvino_telemetry' in name and module])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
