"""A frozen model that turns samples into comparable vectors."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

Sample = TypeVar("Sample")
Sample_contra = TypeVar("Sample_contra", contravariant=True)


@runtime_checkable
class Preprocessing(Protocol[Sample_contra]):
    """What happens to a sample before the model sees it, in a form that can be written down."""

    def __call__(self, sample: Sample_contra) -> Tensor:
        """Turn one sample into the model's input, without a batch axis."""
        ...

    def describe(self) -> Mapping[str, object]:
        """Everything that decides the result, as JSON values."""
        ...


class Encoder(Generic[Sample]):
    """A frozen model, its preprocessing, and the fingerprint that names the space of its vectors.

    Two encoders of the same fingerprint make vectors that may be compared. Fusing changes a vector by
    rounding only, but it changes the layers and so the fingerprint: choose one form of a model for a
    gallery and keep to it.

    Args:
        model: Maps `(b ...)` to `(b d)`. Frozen and put in eval mode.
        preprocess: Applied to each sample.
        batch_size: Samples encoded at once.
    """

    def __init__(self, model: nn.Module, preprocess: Preprocessing[Sample], *, batch_size: int = 64) -> None:
        self.model = model.eval().requires_grad_(False)
        self.preprocess = preprocess
        self.batch_size = batch_size
        self.fingerprint = fingerprint(model, preprocess.describe())

    def __call__(self, samples: Sequence[Sample]) -> Float[np.ndarray, "n d"]:
        """Embed samples as float32 vectors of length one."""
        batches = [
            self._embed(samples[start : start + self.batch_size])
            for start in range(0, len(samples), self.batch_size)
        ]
        return torch.cat(batches).numpy() if batches else np.empty((0, 0), np.float32)

    @torch.inference_mode()
    def _embed(self, samples: Sequence[Sample]) -> Float[Tensor, "n d"]:
        device = next(self.model.parameters()).device
        inputs = torch.stack([self.preprocess(sample) for sample in samples]).to(device)
        return nn.functional.normalize(self.model(inputs).float(), dim=1).cpu()


DECISIVE = (
    "approximate", "dilation", "dim", "end_dim", "eps", "groups", "kernel_size", "negative_slope",
    "num_heads", "output_size", "padding", "padding_mode", "scale", "start_dim", "stride",
)  # fmt: skip
"""Attributes of layers that change what the same weights compute. A fixed list, because a new release of
torch may give its layers further attributes, and a gallery's space must not change with that."""


def fingerprint(model: nn.Module, description: Mapping[str, object]) -> str:
    """Hash what decides a model's vectors: 32 hex digits.

    That is its layers by name and type with their `DECISIVE` attributes, its weights and buffers, and the
    description of its preprocessing. Two modules of one type that differ only in other attributes of
    their own are not told apart.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(description, sort_keys=True).encode())
    for name, part in model.named_modules():
        decisive = [(key, vars(part)[key]) for key in DECISIVE if key in vars(part)]
        settings = [(key, value) for key, value in decisive if isinstance(value, int | float | str | tuple)]
        digest.update(f"{name}|{type(part).__name__}|{settings}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{values.dtype}|{tuple(values.shape)}".encode())
        digest.update(values.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
