"""Networks as they are after training: fused, with statistics that fit their weights."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from regraft.deploy.export import TARGETS, Artifact, export
from regraft.nn.reparam import fuse
from regraft.vision.models import create_model

METADATA = {
    "labels": '["cat", "dog \\"rex\\"", "Žluťoučký kůň"]',
    "preprocessing": '{"size_px": 32, "mean": [0.5, 0.5, 0.5]}',
    "note": "two\nlines\tand <angles> & 'quotes'",
    "empty": "",
}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained_like(name: str, size_px: int, *, num_classes: int = 10) -> nn.Module:
    """A network in training form with random norms, and with the batch statistics of random pictures.

    Fresh statistics (mean 0, variance 1) would let activations grow with every sum of branches, and the
    first layer scales of FastViT (1e-5) would hide whole branches from any comparison.
    """
    generator = torch.Generator().manual_seed(0)
    model = create_model(name, num_classes=num_classes)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(part.bias, 0, 0.2, generator=generator)
            part.momentum = None
    for parameter in model.parameters():
        if parameter.ndim == 3:
            nn.init.uniform_(parameter, 0.1, 1, generator=generator)
        elif parameter.ndim in (2, 4):
            nn.init.kaiming_normal_(parameter, generator=generator)
    with torch.no_grad():
        model(torch.randn(8, 3, size_px, size_px, generator=generator))
    return model.eval()


@pytest.fixture(scope="session")
def mobileone() -> nn.Module:
    return fuse(trained_like("mobileone_mini", 32))


@pytest.fixture(scope="session")
def fastvit() -> nn.Module:
    return fuse(trained_like("fastvit_mini", 32))


@pytest.fixture(scope="session")
def mobileone_s0() -> nn.Module:
    return fuse(trained_like("mobileone_s0", 64, num_classes=1000))


@pytest.fixture(scope="session")
def exported(
    mobileone: nn.Module, fastvit: nn.Module, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Artifact]:
    """Artifacts by target and network, each exported once, the first time that a test asks for it."""
    models = {"mobileone": mobileone, "fastvit": fastvit}
    samples = list(torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)).split(2))

    @cache
    def export_once(target: str, network: str) -> Artifact:
        return export(
            models[network],
            tmp_path_factory.mktemp(target) / f"{network}{TARGETS[target].suffix}",
            example=torch.zeros(1, 3, 32, 32),
            target=target,
            metadata=METADATA,
            inputs=samples,
        )

    return export_once


@pytest.fixture
def toy() -> nn.Module:
    torch.manual_seed(0)
    return Toy().eval()


class Toy(nn.Module):
    """The smallest thing worth exporting."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().mean((2, 3)))
