"""What every image network here looks like from outside."""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Backbone(nn.Module):
    """A stem, stages that halve the resolution, a neck, and a linear classifier.

    Args:
        stages: Modules run one after another; the output of each is a feature map.
        neck: What follows the last stage before pooling.
        num_features: Channels after the neck, the length of an embedding.
        num_classes: Width of the classifier; 0 leaves it out, and `forward` returns embeddings.
        feature_channels: Channels of each stage's output.
        feature_strides: Input pixels per cell of each stage's output.
        in_channels: Channels of the pictures it takes.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        neck: nn.Module,
        *,
        num_features: int,
        num_classes: int,
        feature_channels: Sequence[int],
        feature_strides: Sequence[int],
        in_channels: int,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.neck = neck
        self.head = nn.Linear(num_features, num_classes) if num_classes else nn.Identity()
        self.num_features = num_features
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.feature_channels = tuple(feature_channels)
        self.feature_strides = tuple(feature_strides)

    def features(self, x: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Feature maps after each whole stage, its attention included, finest first."""
        maps: list[Tensor] = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def embed(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Pooled features before the classifier."""
        return self.neck(self.features(x)[-1]).mean((2, 3))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n"]:
        """Class logits, or embeddings if the network was made with `num_classes=0`."""
        return self.head(self.embed(x))


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from all channels' means (arXiv 1709.01507)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // reduction, 1)
        self.expand = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return `x` times its gates, which lie in (0, 1)."""
        # Not avg_pool2d with the size as a number: that would pin an exported graph to one resolution.
        means = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.expand(torch.relu(self.reduce(means))))


def embedder(model: Backbone) -> Backbone:
    """Return a copy of `model` without its classifier: its `forward` gives embeddings."""
    headless = copy.deepcopy(model)
    headless.head = nn.Identity()
    headless.num_classes = 0
    return headless
