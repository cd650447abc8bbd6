"""MobileOne (arXiv 2206.04040): pairs of depthwise and pointwise blocks, no residual at inference."""

from collections import OrderedDict
from dataclasses import dataclass
from math import prod

from torch import nn

from regraft.nn.reparam import BranchedConv
from regraft.vision.backbone import Backbone, SqueezeExcite
from regraft.vision.dilation import Step, plan_dilation


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The numbers that make one member of the family."""

    stem: int
    """Channels of the stem."""
    widths: tuple[int, ...]
    """Channels of each stage."""
    depths: tuple[int, ...] = (2, 8, 10, 1)
    """Depthwise-pointwise pairs in each stage."""
    copies: int = 1
    """Full-width branches in each block of the stages; the stem always has one."""
    gated: tuple[int, ...] = (0, 0, 0, 0)
    """How many of each stage's last pairs carry squeeze-and-excite."""
    stem_stride: int = 2


VARIANTS = {
    "mobileone_s0": Variant(stem=48, widths=(48, 128, 256, 1024), copies=4),
    "mobileone_s1": Variant(stem=64, widths=(96, 192, 512, 1280)),
    "mobileone_s2": Variant(stem=64, widths=(96, 256, 640, 2048)),
    "mobileone_s3": Variant(stem=64, widths=(128, 320, 768, 2048)),
    "mobileone_s4": Variant(stem=64, widths=(192, 448, 896, 2048), gated=(0, 0, 5, 1)),
    # Ours, for pictures of 28 to 64 pixels: the stem keeps the resolution, and three stages end at
    # stride 8, so that 32 pixels leave a 4 x 4 map where a stride of 32 would leave a single cell.
    "mobileone_mini": Variant(
        stem=32, widths=(64, 128, 256), depths=(2, 4, 2), gated=(0, 0, 0), stem_stride=1
    ),
}


def mobileone(
    variant: Variant, *, num_classes: int = 1000, in_channels: int = 3, output_stride: int | None = None
) -> Backbone:
    """Build a MobileOne in its training form.

    Args:
        output_stride: Input pixels per cell of the last feature map. Smaller than the network's own,
            the last stages trade their stride for dilation; `None` keeps every stride.

    Raises:
        ArchitectureError: An impossible `output_stride`.
    """
    steps = plan_dilation(variant.stem_stride, [2] * len(variant.widths), output_stride)
    inputs = (variant.stem, *variant.widths[:-1])
    stages = [
        _stage(width_in, width, depth, gated, step, variant.copies)
        for width_in, width, depth, gated, step in zip(
            inputs, variant.widths, variant.depths, variant.gated, steps, strict=True
        )
    ]
    return Backbone(
        block(BranchedConv(in_channels, variant.stem, (3, 1), stride=variant.stem_stride)),
        stages,
        nn.Identity(),
        num_features=variant.widths[-1],
        num_classes=num_classes,
        feature_channels=variant.widths,
        feature_strides=[
            variant.stem_stride * prod(step.stride for step in steps[: i + 1]) for i in range(len(steps))
        ],
        in_channels=in_channels,
    )


def _stage(width_in: int, width: int, depth: int, gated: int, step: Step, copies: int) -> nn.Sequential:
    pairs = [
        _pair(
            width if i else width_in,
            width,
            # The first depthwise block strides; it keeps its lack of a skip when dilation replaces that.
            stride=1 if i else step.stride,
            dilation=step.dilation if i else step.entry_dilation,
            skip=i > 0,
            copies=copies,
            gated=i >= depth - gated,
        )
        for i in range(depth)
    ]
    return nn.Sequential(*pairs)


def _pair(
    width_in: int, width: int, *, stride: int, dilation: int, skip: bool, copies: int, gated: bool
) -> nn.Sequential:
    depthwise = BranchedConv(
        width_in, width_in, (3,) * copies + (1,), stride=stride, groups=width_in, dilation=dilation, skip=skip
    )
    pointwise = BranchedConv(width_in, width, (1,) * copies, skip=width_in == width)
    return nn.Sequential(
        OrderedDict(depthwise=block(depthwise, gated=gated), pointwise=block(pointwise, gated=gated))
    )


def block(conv: BranchedConv, *, gated: bool = False) -> nn.Sequential:
    """A branched convolution, an optional squeeze-and-excite, and ReLU."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
    if gated:
        parts["gate"] = SqueezeExcite(conv.out_channels)
    # In place: measured, a second buffer cost up to a sixth of the fused network's time.
    parts["act"] = nn.ReLU(inplace=True)
    return nn.Sequential(parts)
