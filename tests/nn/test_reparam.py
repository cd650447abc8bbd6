"""The fuse contract: same function, nothing left to fold, the original untouched."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from regraft.errors import ArchitectureError, TrainModeError
from regraft.nn.reparam import BranchedConv, Reparameterizable, fuse, is_fused
from regraft.vision.backbone import Backbone
from regraft.vision.fastvit import Attention, ConvFFN, NormedAttention, RepMixer, ResidualConv, ScaledResidual
from regraft.vision.models import create_model, list_models

# Folding is algebra, so float64 must agree to rounding; 1e-10 leaves room for sums over a few thousand terms.
ALGEBRA = 1e-10
# A whole float32 net accumulates rounding over some fifty layers.
WHOLE_NET = 1e-4


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give norms and scales values that make every branch matter, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
            part.weight.data.uniform_(0.5, 1.5, generator=generator)
            part.bias.data.normal_(0, 0.2, generator=generator)
    for name, parameter in model.named_parameters():
        if name.endswith("scale"):
            parameter.data.uniform_(0.1, 0.5, generator=generator)
    return model.eval()


def conv(*args: object, **options: object) -> Callable[[], nn.Module]:
    return lambda: BranchedConv(*args, **options)  # type: ignore[arg-type]


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "depthwise, four copies, skip": conv(8, 8, (3, 3, 3, 3, 1), groups=8, skip=True),
    "depthwise, strided": conv(8, 8, (3, 1), groups=8, stride=2),
    "pointwise, skip": conv(8, 8, (1, 1), skip=True),
    "pointwise, widening": conv(8, 16, (1,)),
    "dense stem": conv(8, 6, (3, 1), stride=2),
    "two outputs a group": conv(8, 16, (3, 1), groups=8),
    "large kernel": conv(8, 16, (7, 3), groups=8, stride=2),
    "large kernel, dilated": conv(8, 16, (7, 3), groups=8, dilation=2),
    "dilated, skip": conv(8, 8, (3, 1), groups=8, dilation=4, skip=True),
    "grouped, skip": conv(8, 8, (3, 1), groups=2, skip=True),
    "skip alone": conv(8, 8, (), groups=8, skip=True),
    "skip alone, dense": conv(8, 8, (), skip=True),
    "mixer": lambda: RepMixer(8),
    "mixer, dilated": lambda: RepMixer(8, dilation=2),
    "position": lambda: ResidualConv(8, 7),
    "position, dilated": lambda: ResidualConv(8, 7, dilation=2),
    "feed-forward": lambda: ScaledResidual(ConvFFN(8, 3), 8, layer_scale=0.3, drop_path=0.5),
    "attention": lambda: nn.Sequential(
        nn.Conv2d(8, 64, 1), ScaledResidual(NormedAttention(64), 64, layer_scale=0.3, drop_path=0.5)
    ),
}


@pytest.fixture(params=BLOCKS, name="block")
def _block(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return randomise(BLOCKS[request.param]()).double()


def gap(first: nn.Module, second: nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad():
        want, got = first(x), second(x)
    assert want.shape == got.shape
    return ((want - got).abs().max() / want.abs().max()).item()


def picture(dtype: torch.dtype = torch.float64, size: int = 11) -> torch.Tensor:
    return torch.randn(2, 8, size, size, dtype=dtype, generator=torch.Generator().manual_seed(1))


def test_block_computes_the_same(block: nn.Module) -> None:
    before = copy.deepcopy(block.state_dict())
    fused = fuse(block)
    assert gap(block, fused, picture()) < ALGEBRA
    assert all(torch.equal(before[name], value) for name, value in block.state_dict().items())


def test_nothing_is_left_to_fold(block: nn.Module) -> None:
    fused = fuse(block)
    assert is_fused(fused)
    assert not is_fused(block)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fused.modules())
    assert not any(name.endswith("scale") for name, _ in fused.named_parameters())


def test_block_notices_one_changed_weight(block: nn.Module) -> None:
    fused = fuse(block)
    weight = max(fused.parameters(), key=torch.Tensor.numel)
    weight.data.view(-1)[weight.numel() // 2] += 1e-3
    assert gap(block, fused, picture()) > ALGEBRA


def test_fusing_twice_changes_nothing(block: nn.Module) -> None:
    once = fuse(block)
    twice = fuse(once)
    assert twice is not once
    assert torch.equal(once(picture()), twice(picture()))


def test_train_mode_is_refused(block: nn.Module) -> None:
    with pytest.raises(TrainModeError, match=r"training mode.\n  hint: Call model.eval\(\)"):
        fuse(block.train())


def test_one_part_in_train_mode_is_named() -> None:
    tree = nn.Sequential(conv(8, 8)(), nn.Sequential(conv(8, 8)())).eval()
    tree[1][0].norms.train()
    with pytest.raises(TrainModeError, match=r"1\.0\.norms"):
        fuse(tree)


def test_frozen_stays_frozen(block: nn.Module) -> None:
    assert all(parameter.requires_grad for parameter in fuse(block).parameters())
    assert not any(parameter.requires_grad for parameter in fuse(block.requires_grad_(False)).parameters())


def test_half_frozen_stays_half_frozen() -> None:
    tree = nn.Sequential(conv(8, 8)(), conv(8, 8)()).eval()
    tree[0].requires_grad_(False)
    assert [part.weight.requires_grad for part in fuse(tree)] == [False, True]


def test_inside_someone_elses_model() -> None:
    class Theirs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.ModuleDict({"ours": conv(8, 8, (3, 1), skip=True)(), "theirs": nn.BatchNorm2d(8)})

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner["theirs"](self.inner["ours"](x))

    model = randomise(Theirs()).double()
    fused = fuse(model)
    assert type(fused) is Theirs
    assert type(fused.inner["ours"]) is nn.Conv2d
    assert type(fused.inner["theirs"]) is nn.BatchNorm2d
    assert gap(model, fused, picture()) < ALGEBRA


def test_a_shared_part_stays_shared() -> None:
    part = conv(8, 8, skip=True)()
    model = randomise(nn.Sequential(part, nn.Sequential(part), part)).double()
    fused = fuse(model)
    assert fused[0] is fused[2] is fused[1][0]
    assert gap(model, fused, picture()) < ALGEBRA


def test_one_dimension() -> None:
    block = randomise(BranchedConv(8, 8, (5, 3, 1), dilation=2, skip=True, ndim=1)).double()
    fused = fuse(block)
    assert type(fused) is nn.Conv1d
    assert gap(block, fused, torch.randn(2, 8, 31, dtype=torch.float64)) < ALGEBRA


def test_tiny_variance_survives_float32() -> None:
    block = randomise(BranchedConv(8, 8, (3, 1), groups=8, skip=True))
    for norm in [*block.norms, block.skip]:
        norm.running_var[::2] = 1e-6
    # Gains of several hundred beside gains of one: still rounding, since folding is done in float64.
    assert gap(block, fuse(block), picture(torch.float32)) < 1e-5


def test_half_precision_keeps_its_type() -> None:
    fused = fuse(randomise(BranchedConv(8, 8, skip=True)).bfloat16())
    assert fused.weight.dtype is torch.bfloat16


def test_attention_scale_is_gone() -> None:
    fused = fuse(randomise(NormedAttention(64)))
    assert isinstance(fused, Attention)
    assert fused.scale == 1.0


@pytest.mark.parametrize("name", list_models())
def test_whole_network(name: str) -> None:
    torch.manual_seed(0)
    model = randomise(create_model(name, num_classes=10))
    fused = fuse(model)
    assert isinstance(fused, Backbone)
    assert is_fused(fused)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fused.modules())
    assert not any(name.endswith("scale") for name, _ in fused.named_parameters())
    x = torch.randn(2, 3, 64, 64)
    assert gap(model, fused, x) < WHOLE_NET
    next(iter(fused.parameters())).data.mul_(2)
    assert gap(model, fused, x) > WHOLE_NET


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((8, 8, (2,)), {}, "even widths"),
        ((8, 8, ()), {}, "no branch"),
        ((8, 16), {"skip": True}, "8 to 16 channels"),
        ((8, 8), {"skip": True, "stride": 2}, "stride 2"),
    ],
)
def test_impossible_branches(arguments: tuple[object, ...], options: dict[str, object], message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        conv(*arguments, **options)()


def test_only_batch_norm_folds() -> None:
    block = conv(8, 8)()
    block.norms[0] = nn.GroupNorm(2, 8)
    with pytest.raises(ArchitectureError, match="GroupNorm"):
        fuse(block.eval())


def test_fused_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Reparameterizable()
