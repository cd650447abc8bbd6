"""FastViT (arXiv 2303.14189): token mixing by convolutions that fold away, attention at the end."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from regraft.nn.reparam import BranchedConv, Reparameterizable, fill, fuse, identity_kernel, norm_gain_bias
from regraft.vision.backbone import Backbone, SqueezeExcite
from regraft.vision.dilation import Step, plan_dilation

HEAD_WIDTH = 32
"""Channels of one attention head."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The numbers that make one member of the family."""

    depths: tuple[int, ...]
    """Blocks in each stage."""
    widths: tuple[int, ...]
    """Channels of each stage."""
    expansion: int = 4
    """Hidden channels of the feed-forward part, per channel."""
    attention: bool = False
    """Whether the last stage mixes by attention, after a convolutional position encoding."""
    layer_scale: float = 1e-5
    """First value of the per-channel scale on every residual branch."""
    stem_strides: tuple[int, int] = (2, 2)


VARIANTS = {
    "fastvit_t8": Variant(depths=(2, 2, 4, 2), widths=(48, 96, 192, 384), expansion=3),
    "fastvit_t12": Variant(depths=(2, 2, 6, 2), widths=(64, 128, 256, 512), expansion=3),
    "fastvit_s12": Variant(depths=(2, 2, 6, 2), widths=(64, 128, 256, 512)),
    "fastvit_sa12": Variant(depths=(2, 2, 6, 2), widths=(64, 128, 256, 512), attention=True),
    "fastvit_sa24": Variant(depths=(4, 4, 12, 4), widths=(64, 128, 256, 512), attention=True),
    "fastvit_sa36": Variant(
        depths=(6, 6, 18, 6), widths=(64, 128, 256, 512), attention=True, layer_scale=1e-6
    ),
    "fastvit_ma36": Variant(
        depths=(6, 6, 18, 6), widths=(76, 152, 304, 608), attention=True, layer_scale=1e-6
    ),
    # Ours, for pictures of 28 to 64 pixels: the stem halves the resolution once instead of twice, and
    # three stages end at stride 8, so that attention sees 4 x 4 tokens of a 32-pixel picture, not one.
    "fastvit_mini": Variant(
        depths=(2, 2, 2), widths=(48, 96, 192), expansion=3, attention=True, stem_strides=(1, 2)
    ),
}


def fastvit(
    variant: Variant,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    output_stride: int | None = None,
    drop_path: float = 0.0,
) -> Backbone:
    """Build a FastViT in its training form.

    Args:
        output_stride: Input pixels per cell of the last feature map. Smaller than the network's own,
            the last stages trade their stride for dilation; `None` keeps every stride.
        drop_path: Chance that the last block's residual branches are left out of a sample; it rises
            linearly from 0 at the first block.

    Raises:
        ArchitectureError: An impossible `output_stride`.
    """
    stem_stride = prod(variant.stem_strides)
    steps = plan_dilation(stem_stride, [1] + [2] * (len(variant.widths) - 1), output_stride)
    num_blocks = sum(variant.depths)
    drops = iter([drop_path * block / (num_blocks - 1) for block in range(num_blocks)])
    stages = [_stage(variant, index, step, drops) for index, step in enumerate(steps)]
    model = Backbone(
        _stem(in_channels, variant.widths[0], variant.stem_strides),
        stages,
        _neck(variant.widths[-1], steps[-1].dilation),
        num_features=2 * variant.widths[-1],
        num_classes=num_classes,
        feature_channels=variant.widths,
        feature_strides=[stem_stride * prod(s.stride for s in steps[: i + 1]) for i in range(len(steps))],
        in_channels=in_channels,
    )
    _initialise(model)
    return model


def _stem(in_channels: int, width: int, strides: tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(
        _activated(BranchedConv(in_channels, width, (3, 1), stride=strides[0])),
        _activated(BranchedConv(width, width, (3, 1), stride=strides[1], groups=width)),
        _activated(BranchedConv(width, width, (1,), skip=True)),
    )


def _activated(conv: BranchedConv) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=conv, act=nn.GELU()))


def _stage(variant: Variant, index: int, step: Step, drops: Iterator[float]) -> nn.Sequential:
    width = variant.widths[index]
    attends = variant.attention and index == len(variant.widths) - 1
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if index:
        parts["embed"] = _patch_embed(variant.widths[index - 1], width, step)
    if attends:
        parts["position"] = ResidualConv(width, 7, dilation=step.dilation)
    make = _attention_block if attends else _mixer_block
    parts["blocks"] = nn.Sequential(
        *(make(width, variant, step.dilation, next(drops)) for _ in range(variant.depths[index]))
    )
    return nn.Sequential(parts)


def _patch_embed(width_in: int, width: int, step: Step) -> nn.Sequential:
    large = BranchedConv(
        width_in, width, (7, 3), stride=step.stride, groups=width_in, dilation=step.entry_dilation
    )
    # No activation after the large kernel: the released weights were trained without one.
    return nn.Sequential(
        OrderedDict(large=large, mix=_activated(BranchedConv(width, width, (1,), skip=True)))
    )


def _mixer_block(width: int, variant: Variant, dilation: int, drop: float) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            mix=RepMixer(width, dilation=dilation, layer_scale=variant.layer_scale),
            ffn=_scaled(ConvFFN(width, variant.expansion, dilation=dilation), width, variant, drop),
        )
    )


def _attention_block(width: int, variant: Variant, dilation: int, drop: float) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            mix=_scaled(NormedAttention(width), width, variant, drop),
            ffn=_scaled(ConvFFN(width, variant.expansion, dilation=dilation), width, variant, drop),
        )
    )


def _scaled(branch: "Branch", width: int, variant: Variant, drop: float) -> "ScaledResidual":
    return ScaledResidual(branch, width, layer_scale=variant.layer_scale, drop_path=drop)


def _neck(width: int, dilation: int) -> nn.Sequential:
    expand = BranchedConv(width, 2 * width, (3, 1), groups=width, dilation=dilation)
    return nn.Sequential(OrderedDict(conv=expand, gate=SqueezeExcite(2 * width), act=nn.GELU()))


def _initialise(model: nn.Module) -> None:
    """Truncated normal for linear layers and the feed-forward convolutions; torch's defaults elsewhere."""
    for part in model.modules():
        if isinstance(part, nn.Linear):
            _truncate(part)
        if isinstance(part, ConvFFN):
            for conv in part.modules():
                if isinstance(conv, nn.Conv2d):
                    _truncate(conv)


def _truncate(layer: nn.Linear | nn.Conv2d) -> None:
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class RepMixer(Reparameterizable):
    """Depthwise token mixing whose skip vanishes: `x + scale * (mixer(x) - norm(x))`.

    The paper's equation 3 writes `DWConv(BN(x)) + x`. The released weights use this parallel form,
    and it is the only one that folds exactly: a norm before a zero-padded convolution does not.
    """

    def __init__(self, width: int, *, dilation: int = 1, layer_scale: float = 1e-5) -> None:
        super().__init__()
        self.mixer = BranchedConv(width, width, (3, 1), groups=width, dilation=dilation, skip=True)
        self.norm = BranchedConv(width, width, (), groups=width, skip=True)
        self.scale = nn.Parameter(torch.full((width, 1, 1), layer_scale))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Mix each channel with its neighbours in space."""
        return x + self.scale * (self.mixer(x) - self.norm(x))

    def fused(self) -> nn.Module:
        """Return one depthwise 3x3 convolution."""
        mixer, norm = (cast(nn.Conv2d, fuse(part)) for part in (self.mixer, self.norm))
        margin = (mixer.kernel_size[0] - 1) // 2
        scale = self.scale.detach().double()[..., None]
        difference = mixer.weight.double() - nn.functional.pad(norm.weight.double(), [margin] * 4)
        weight = identity_kernel(mixer.in_channels, mixer.groups, (3, 3), difference) + scale * difference
        bias = scale.flatten() * (_bias(mixer) - _bias(norm))
        return fill(mixer, weight, bias, sources=tuple(self.parameters()))


def _bias(layer: nn.Conv2d | nn.Linear) -> Float[Tensor, " c"]:
    return cast(Tensor, layer.bias).detach().double()


class ResidualConv(Reparameterizable):
    """A depthwise convolution added to its input: FastViT's conditional position encoding."""

    def __init__(self, width: int, kernel: int, *, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            width, width, kernel, padding=dilation * (kernel // 2), dilation=dilation, groups=width
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return `x` plus what surrounds it."""
        return x + self.conv(x)

    def fused(self) -> nn.Module:
        """Return the convolution whose centre tap carries the skip."""
        conv = nn.Conv2d(
            self.conv.in_channels,
            self.conv.out_channels,
            cast(tuple[int, int], self.conv.kernel_size),
            padding=cast(tuple[int, int], self.conv.padding),
            dilation=cast(tuple[int, int], self.conv.dilation),
            groups=self.conv.groups,
        )
        weight = self.conv.weight.detach().double()
        skip = identity_kernel(conv.in_channels, conv.groups, (weight.shape[-2], weight.shape[-1]), weight)
        return fill(conv, weight + skip, _bias(self.conv), sources=tuple(self.parameters()))


class Branch(nn.Module, ABC):
    """The inside of a residual connection; a scale on its output folds into its last layer."""

    @property
    @abstractmethod
    def last(self) -> nn.Conv2d | nn.Linear:
        """The layer that makes the output, with bias."""


class ConvFFN(Branch):
    """A depthwise 7x7 convolution with norm, then two pointwise ones around a GELU."""

    def __init__(self, width: int, expansion: int, *, dilation: int = 1) -> None:
        super().__init__()
        self.conv = BranchedConv(width, width, (7,), groups=width, dilation=dilation)
        self.expand = nn.Conv2d(width, expansion * width, 1)
        self.act = nn.GELU()
        self.reduce = nn.Conv2d(expansion * width, width, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Mix in space, then across channels."""
        return self.reduce(self.act(self.expand(self.conv(x))))

    @property
    def last(self) -> nn.Conv2d:
        """The pointwise convolution back to `width` channels."""
        return self.reduce


class Attention(Branch):
    """Multi-head self-attention over the cells of a feature map, of any size.

    Args:
        scale: Factor on the dot products; 1 when it is already in the query's weights.
        bias: Whether queries, keys and values have a bias.
    """

    def __init__(self, width: int, *, scale: float, bias: bool) -> None:
        super().__init__()
        self.scale = scale
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.project = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Let every cell attend to every other."""
        width, height, breadth = x.shape[1:]
        tokens = x.flatten(2).transpose(1, 2)
        qkv = self.qkv(tokens).unflatten(2, (3, width // HEAD_WIDTH, HEAD_WIDTH))
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, scale=self.scale)
        tokens = self.project(mixed.transpose(1, 2).flatten(2))
        return tokens.transpose(1, 2).unflatten(2, (height, breadth))

    @property
    def last(self) -> nn.Linear:
        """The projection of the mixed values."""
        return self.project


class NormedAttention(Branch, Reparameterizable):
    """Batch norm, then attention with scaled dot products."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.attention = Attention(width, scale=HEAD_WIDTH**-0.5, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Attend over the normalised map."""
        return self.attention(self.norm(x))

    @property
    def last(self) -> nn.Linear:
        """The projection of the mixed values."""
        return self.attention.project

    def fused(self) -> nn.Module:
        """Return attention whose qkv layer has absorbed the norm before it and the scale after it.

        `W (gain x + shift) = (W gain) x + W shift`, exact because nothing is padded in between.
        """
        gain, shift = norm_gain_bias(self.norm)
        weight = self.attention.qkv.weight.detach().double()
        rows = torch.ones_like(weight[:, :1])
        rows[: len(rows) // 3] = self.attention.scale
        fused = Attention(len(gain), scale=1.0, bias=True)
        sources = (self.attention.qkv.weight, self.norm.weight)
        fill(fused.qkv, rows * weight * gain, rows.flatten() * (weight @ shift), sources=sources)
        fill(fused.project, self.last.weight, _bias(self.last), sources=tuple(self.last.parameters()))
        return fused


class ScaledResidual(Reparameterizable):
    """`x + scale * branch(x)`, the branch left out at random while training (stochastic depth)."""

    def __init__(self, branch: Branch, width: int, *, layer_scale: float, drop_path: float) -> None:
        super().__init__()
        self.branch = branch
        self.scale = nn.Parameter(torch.full((width, 1, 1), layer_scale))
        self.drop_path = StochasticDepth(drop_path, mode="row")

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add the scaled branch to `x`."""
        return x + self.drop_path(self.scale * self.branch(x))

    def fused(self) -> nn.Module:
        """Return a plain residual whose branch ends in the scaled layer."""
        branch = cast(Branch, fuse(self.branch))
        last = branch.last
        scale = self.scale.detach().double().flatten()
        weight = last.weight.detach().double()
        scaled = scale.view(-1, *[1] * (weight.ndim - 1)) * weight
        fill(last, scaled, scale * _bias(last), sources=(*last.parameters(), self.scale))
        return Residual(branch)


class Residual(nn.Module):
    """`x + branch(x)`."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add the branch to `x`."""
        return x + self.branch(x)
