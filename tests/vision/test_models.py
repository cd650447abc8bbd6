"""Sizes to the digit, feature taps, dilation, and every network's common contract."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from regraft.errors import ArchitectureError
from regraft.nn.reparam import fuse
from regraft.vision import fastvit
from regraft.vision.backbone import Backbone
from regraft.vision.models import create_model, list_models

# Train parameters, parameters with branches merged, and multiply-adds of that net, as measured on the
# reference implementations: millions, to the digit given there. Input 224 for MobileOne, 256 for FastViT.
TABLE = {
    "mobileone_s0": (5.2933, 2.0785, 275.1),
    "mobileone_s1": (4.8252, 4.7648, 825.1),
    "mobileone_s2": (7.8846, 7.8082, 1298.4),
    "mobileone_s3": (10.1706, 10.0783, 1895.8),
    "mobileone_s4": (14.9512, 14.8384, 2979.3),
    "fastvit_t8": (4.0262, 3.9960, 685.2),
    "fastvit_t12": (7.5537, 7.5088, 1390.9),
    "fastvit_s12": (9.4736, 9.4287, 1793.6),
    "fastvit_sa12": (11.5810, 11.5453, 1937.2),
    "fastvit_sa24": (21.5542, 21.5013, 3762.1),
    "fastvit_sa36": (31.5275, 31.4573, 5586.9),
    "fastvit_ma36": (44.0680, 43.9846, 7814.9),
}
TRAIN_MULTIPLY_ADDS = {
    "mobileone_s0": 1051.9,
    "mobileone_s1": 830.1,
    "mobileone_s2": 1304.0,
    "mobileone_s3": 1902.1,
    "mobileone_s4": 2986.8,
}


def on_meta(name: str) -> Backbone:
    with torch.device("meta"):
        return create_model(name).eval()


def millions(model: nn.Module) -> float:
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def multiply_adds(model: nn.Module, size_px: int) -> float:
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, size_px, size_px, device="meta"))
    return counter.get_total_flops() / 2e6


def removed_by_complete_folding(name: str) -> float:
    """What the reference's fused FastViT still carries and ours does not, in millions.

    Per block of width c. Mixer block: the feed-forward's norm (2c) becomes a bias (c), and its layer
    scale (c) goes: 2c less. Attention block: the norm before it (2c) becomes the bias of qkv (3c), two
    layer scales (2c) go, and the feed-forward's norm again leaves c: 2c less.
    """
    variant = fastvit.VARIANTS.get(name)
    if variant is None:
        return 0.0
    return sum(2 * depth * width for depth, width in zip(variant.depths, variant.widths, strict=True)) / 1e6


@pytest.mark.parametrize("name", TABLE)
def test_sizes(name: str) -> None:
    train, merged, cost = TABLE[name]
    size_px = 224 if name.startswith("mobileone") else 256
    model = on_meta(name)
    fused = fuse(model)
    assert round(millions(model), 4) == train
    # The table's figure has four digits of its own, so the difference is checked to half of the last one.
    assert millions(fused) == pytest.approx(merged - removed_by_complete_folding(name), abs=0.5e-4)
    assert round(multiply_adds(fused, size_px), 1) == cost


@pytest.mark.parametrize("name", TRAIN_MULTIPLY_ADDS)
def test_training_cost(name: str) -> None:
    assert round(multiply_adds(on_meta(name), 224), 1) == TRAIN_MULTIPLY_ADDS[name]


@pytest.mark.parametrize("name", TABLE)
def test_feature_taps(name: str) -> None:
    model = on_meta(name)
    maps = model.features(torch.empty(1, 3, 128, 128, device="meta"))
    assert model.feature_strides == (4, 8, 16, 32)
    assert [128 // part.shape[-1] for part in maps] == [4, 8, 16, 32]
    assert tuple(part.shape[1] for part in maps) == model.feature_channels


def test_last_tap_comes_after_attention() -> None:
    model = create_model("fastvit_sa12", num_classes=2)
    model.features(torch.randn(2, 3, 64, 64))[-1].square().sum().backward()
    unreached = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None and not name.startswith(("neck", "head"))
    ]
    assert not unreached


@pytest.mark.parametrize("name", ["mobileone_s1", "fastvit_t8"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilation_keeps_the_function(name: str, output_stride: int) -> None:
    """With the same weights, the dilated map sampled every few cells is the strided one."""
    torch.manual_seed(0)
    strided = create_model(name, num_classes=2).eval().double()
    dilated = create_model(name, num_classes=2, output_stride=output_stride).eval().double()
    dilated.load_state_dict(strided.state_dict())
    x = torch.randn(1, 3, 96, 96, dtype=torch.float64)
    with torch.no_grad():
        pairs = zip(strided.features(x), dilated.features(x), fuse(dilated).features(x), strict=True)
        for want, got, fused in pairs:
            step = got.shape[-1] // want.shape[-1]
            torch.testing.assert_close(got[..., ::step, ::step], want, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(fused, got, rtol=1e-10, atol=1e-10)
    assert dilated.feature_strides == tuple(min(stride, output_stride) for stride in (4, 8, 16, 32))


@pytest.mark.parametrize("name", TABLE)
def test_dilation_reaches_every_branch(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, output_stride=8)
    spatial = [
        part
        for part in [*model.stages[-1].modules(), *model.neck.modules()]
        if isinstance(part, nn.Conv2d) and part.kernel_size[0] > 1
    ]
    assert spatial
    assert all(conv.dilation[0] > 1 for conv in spatial)


@pytest.mark.parametrize("name", list_models())
def test_common_contract(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=7, in_channels=5)
    x = torch.randn(2, 5, 64, 48)
    logits = model(x)
    assert logits.shape == (2, 7)
    assert model.embed(x).shape == (2, model.num_features)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with torch.device("meta"):
        assert create_model(name, num_classes=0)(torch.empty(1, 3, 64, 64)).shape == (1, model.num_features)


@pytest.mark.parametrize("name", ["mobileone_mini", "fastvit_mini"])
@pytest.mark.parametrize("size_px", [28, 32, 64])
def test_small_image_networks_keep_a_map(name: str, size_px: int) -> None:
    last = on_meta(name).features(torch.empty(1, 3, size_px, size_px, device="meta"))[-1]
    assert last.shape[-1] == -(-size_px // 8)


def test_drop_path_rises_linearly_and_only_in_training() -> None:
    model = create_model("fastvit_sa12", drop_path=0.3)
    chances = [part.drop_path.p for part in model.modules() if isinstance(part, fastvit.ScaledResidual)]
    assert chances[0] == 0
    assert chances[-1] == pytest.approx(0.3)
    assert chances == sorted(chances)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), model(x))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fastvit_t9", {}, "Did you mean 'fastvit_t8'"),
        ("mobileone_s0", {"drop_path": 0.1}, "no residual branch"),
        ("fastvit_t8", {"drop_path": 1.5}, "drop_path is 1.5"),
        ("fastvit_t8", {"output_stride": 12}, r"output_stride is 12; expected one of \[4, 8, 16, 32\]"),
        ("fastvit_t8", {"num_classes": -1}, "num_classes is -1"),
        ("mobileone_s0", {"in_channels": 0}, "in_channels 0"),
    ],
)
def test_bad_options(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        create_model(name, **options)  # type: ignore[arg-type]
