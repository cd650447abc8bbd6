from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from regraft.deploy.executorch import load, read_metadata
from regraft.deploy.export import Artifact
from regraft.errors import RegraftError

# executorch uses deprecated functions in its own code, here called without ours.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_convolutions_run_in_xnnpack(exported: Callable[[str, str], Artifact]):
    content = exported("executorch", "mobileone").path.read_bytes()
    assert b"XnnpackBackend" in content
    assert b"aten::convolution" not in content


def test_a_program_of_someone_else_is_named(toy: nn.Module, tmp_path: Path):
    from executorch.exir import to_edge_transform_and_lower

    path = tmp_path / "other.pte"
    program = torch.export.export(toy, (torch.zeros(1, 3, 16, 16),))
    path.write_bytes(to_edge_transform_and_lower(program).to_executorch().buffer)
    assert load(path)(torch.zeros(1, 3, 16, 16)).shape == (1, 4)
    with pytest.raises(RegraftError, match=r"other\.pte has no method 'metadata'"):
        read_metadata(path)
