import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# The scripts that are killed and the tests that kill them train the same toys.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The networks here are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
