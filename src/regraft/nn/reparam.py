"""Networks that train with many branches and deploy with one convolution."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regraft.errors import ArchitectureError, TrainModeError

Conv = nn.Conv1d | nn.Conv2d
CONV = {1: nn.Conv1d, 2: nn.Conv2d}
Layer = TypeVar("Layer", bound=nn.Conv1d | nn.Conv2d | nn.Linear)
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}


class Reparameterizable(nn.Module, ABC):
    """A module that knows a cheaper module computing the same function in eval mode."""

    @abstractmethod
    def fused(self) -> nn.Module:
        """Return the equivalent inference module. `self` is left untouched."""


class BranchedConv(Reparameterizable):
    """Sum of parallel conv-norm branches that collapses to one convolution.

    Every branch is linear once its batch statistics are fixed, so the sum of the branches is
    itself a convolution. Training keeps the branches; `fused` adds them up (MobileOne,
    arXiv 2206.04040, section 3.2). The same class is a MobileOne block, FastViT's large-kernel
    patch embedding and any conv-norm pair: only `kernels` and `skip` differ.

    Args:
        kernels: Width of each conv branch, odd, in samples (1-D) or pixels (2-D). `(3, 3, 1)` is
            two full branches and a pointwise one; `()` leaves the skip alone.
        dilation: Spacing of the taps, the same in every branch.
        skip: Whether a norm-only branch carries the input. Needs equal channels and stride 1.
        ndim: 1 for audio `(b c t)`, 2 for images `(b c h w)`.

    Raises:
        ArchitectureError: An even kernel, no branch at all, or a skip that cannot be added.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernels: Sequence[int] = (3, 1),
        *,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        skip: bool = False,
        ndim: int = 2,
    ) -> None:
        super().__init__()
        _check_branches(in_channels, out_channels, kernels, stride, skip)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.stride, self.groups, self.dilation, self.ndim = stride, groups, dilation, ndim
        self.convs = nn.ModuleList(self._conv(kernel, bias=False) for kernel in kernels)
        self.norms = nn.ModuleList(NORM[ndim](out_channels) for _ in kernels)
        self.skip = NORM[ndim](out_channels) if skip else None

    def forward(self, x: Float[Tensor, "b c_in *space"]) -> Float[Tensor, "b c_out *space_out"]:
        """Sum the branches. Each norm uses batch statistics in training, running ones in eval."""
        branches = [norm(conv(x)) for conv, norm in zip(self.convs, self.norms, strict=True)]
        if self.skip is not None:
            branches.append(self.skip(x))
        return reduce(torch.add, branches)

    def fused(self) -> nn.Module:
        """Return the one convolution, with bias, that equals the sum of the branches."""
        weights, biases = zip(*(fold(kernel, norm) for kernel, norm in self._linear_branches()), strict=True)
        conv = self._conv(self.kernel, bias=True)
        sources = tuple(self.parameters())
        return fill(conv, reduce(torch.add, weights), reduce(torch.add, biases), sources=sources)

    @property
    def kernel(self) -> int:
        """Width of the widest branch."""
        return max((conv.kernel_size[0] for conv in self._convs()), default=1)

    def _convs(self) -> Iterator[Conv]:
        return (cast(Conv, conv) for conv in self.convs)

    def _conv(self, kernel: int, *, bias: bool) -> Conv:
        return CONV[self.ndim](
            self.in_channels,
            self.out_channels,
            kernel,
            stride=self.stride,
            padding=self.dilation * (kernel // 2),
            dilation=self.dilation,
            groups=self.groups,
            bias=bias,
        )

    def _linear_branches(self) -> Iterator[tuple[Tensor, nn.Module]]:
        for conv, norm in zip(self._convs(), self.norms, strict=True):
            yield self._widen(conv.weight), norm
        if self.skip is not None:
            yield self._identity(self.skip.weight), self.skip

    def _widen(self, weight: Tensor) -> Tensor:
        """Zero-pad a narrow kernel to full width; the centre tap stays in the centre."""
        margin = (self.kernel - weight.shape[-1]) // 2
        return nn.functional.pad(weight, [margin] * 2 * self.ndim)

    def _identity(self, like: Tensor) -> Tensor:
        return identity_kernel(self.in_channels, self.groups, (self.kernel,) * self.ndim, like)


def _check_branches(
    in_channels: int, out_channels: int, kernels: Sequence[int], stride: int, skip: bool
) -> None:
    if even := [kernel for kernel in kernels if kernel % 2 == 0]:
        raise ArchitectureError(
            f"kernels has even widths {even}; a branch needs an odd width to have a centre."
        )
    if not kernels and not skip:
        raise ArchitectureError("A BranchedConv has no branch: kernels is empty and skip is False.")
    if skip and (in_channels != out_channels or stride != 1):
        raise ArchitectureError(
            f"skip=True needs equal channels and stride 1, not {in_channels} to {out_channels} channels "
            f"at stride {stride}."
        )


def identity_kernel(
    channels: int, groups: int, size: tuple[int, ...], like: Tensor
) -> Float[Tensor, "c_out c_in *k"]:
    """The kernel that copies its input: one tap per channel, in the centre.

    Args:
        size: Width of the kernel along each axis, odd.
        like: Gives dtype and device.
    """
    weight = like.new_zeros(channels, channels // groups, *size)
    channel = torch.arange(channels, device=like.device)
    centre = tuple(width // 2 for width in size)
    weight[(channel, channel % (channels // groups), *centre)] = 1
    return weight


def norm_gain_bias(norm: nn.Module) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    """The per-channel gain and bias that an eval-mode batch norm applies, in float64."""
    if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.SyncBatchNorm):
        raise ArchitectureError(f"Cannot fold {type(norm).__name__}; only batch norms have fixed statistics.")
    if norm.running_mean is None or norm.running_var is None:
        raise ArchitectureError("Cannot fold a batch norm without running statistics.")
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return gain.detach(), (norm.bias.double() - norm.running_mean.double() * gain).detach()


def fold(
    weight: Float[Tensor, "c_out *c_in_k"], norm: nn.Module
) -> tuple[Float[Tensor, "c_out *c_in_k"], Float[Tensor, " c_out"]]:
    """Fold a batch norm's running statistics into the bias-free layer before it.

    Returns:
        Weight and bias in float64; they are rounded when they are stored (see `fill`).

    Raises:
        ArchitectureError: `norm` is not a batch norm with running statistics.
    """
    gain, bias = norm_gain_bias(norm)
    return weight.detach().double() * gain.view(-1, *[1] * (weight.ndim - 1)), bias


def fill(layer: Layer, weight: Tensor, bias: Tensor, *, sources: Sequence[Tensor]) -> Layer:
    """Store `weight` and `bias`, computed from the parameters `sources`, in `layer`.

    The layer takes the sources' dtype and device, and is trainable if any of them is.
    """
    layer.to(device=sources[0].device, dtype=sources[0].dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        cast(nn.Parameter, layer.bias).copy_(bias)
    return layer.requires_grad_(any(source.requires_grad for source in sources)).eval()


def is_fused(model: nn.Module) -> bool:
    """Whether no part of `model` could still be fused."""
    return not any(isinstance(part, Reparameterizable) for part in model.modules())


def fuse(model: nn.Module) -> nn.Module:
    """Return a copy of `model` with every reparameterizable part replaced by its fused form.

    Works from the leaves up, on any module tree: parts of Regraft inside someone else's model are
    found too. A part used in two places stays shared. `model` is untouched; fusing what is already
    fused returns an equal copy. Parameters that were frozen stay frozen.

    Raises:
        TrainModeError: `model`, or any part of it, is in training mode. Batch statistics are not
            fixed there, so the fused function would silently differ.
    """
    refuse_train_mode(model, "fuse")
    tree = copy.deepcopy(model)
    fused: dict[nn.Module, nn.Module] = {}
    for name, part in reversed(list(tree.named_modules(remove_duplicate=False))):
        if isinstance(part, Reparameterizable):
            if part not in fused:
                fused[part] = part.fused().eval()
            if not name:
                return fused[part]
            tree.set_submodule(name, fused[part])
    return tree


def refuse_train_mode(model: nn.Module, verb: str) -> None:
    """Raise `TrainModeError` if any part of `model` is in training mode."""
    for name, part in model.named_modules():
        if part.training:
            raise TrainModeError(
                f"Cannot {verb} {type(model).__name__}: {name or 'it'} is in training mode.",
                hint="Call model.eval() first.",
            )
