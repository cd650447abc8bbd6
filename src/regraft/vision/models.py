"""Every network by name."""

from collections.abc import Callable
from functools import partial

from regraft.errors import ArchitectureError, nearest
from regraft.vision import fastvit, mobileone
from regraft.vision.backbone import Backbone

MODELS: dict[str, Callable[..., Backbone]] = {
    **{name: partial(mobileone.mobileone, variant) for name, variant in mobileone.VARIANTS.items()},
    **{name: partial(fastvit.fastvit, variant) for name, variant in fastvit.VARIANTS.items()},
}


def list_models() -> list[str]:
    """Names that `create_model` knows."""
    return sorted(MODELS)


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    output_stride: int | None = None,
    drop_path: float = 0.0,
) -> Backbone:
    """Build a network in its training form, with fresh weights.

    Args:
        num_classes: Width of the classifier; 0 makes `forward` return embeddings.
        in_channels: Channels of the pictures it takes.
        output_stride: Input pixels per cell of the last feature map: 4, 8, 16 or 32; 2, 4 or 8 for the
            small networks. Less than the network's own trades stride for dilation; `None` keeps it.
        drop_path: Stochastic depth of the last block, in [0, 1). Only networks with residual
            branches have it, the FastViT family.

    Raises:
        ArchitectureError: An unknown name, or an option this network does not have.
    """
    if name not in MODELS:
        hint = f"{nearest(name, MODELS)}regraft.list_models() lists them all."
        raise ArchitectureError(f"No model named {name!r}.", hint=hint)
    if num_classes < 0 or in_channels < 1:
        raise ArchitectureError(
            f"num_classes is {num_classes} and in_channels {in_channels}; expected at least 0 and 1."
        )
    if not 0 <= drop_path < 1:
        raise ArchitectureError(f"drop_path is {drop_path}; expected a chance in [0, 1).")
    build = MODELS[name]
    if name in fastvit.VARIANTS:
        build = partial(build, drop_path=drop_path)
    elif drop_path:
        raise ArchitectureError(
            f"{name} has no residual branch to drop; drop_path must be 0, not {drop_path}."
        )
    return build(num_classes=num_classes, in_channels=in_channels, output_stride=output_stride)
