"""Trained classifiers as teachers: anything that tells how likely each class is, for a batch of views."""

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from regraft.errors import RecipeError
from regraft.nn.encoder import fingerprint
from regraft.vision.crops import MODES
from regraft.vision.preprocess import Preprocess


@runtime_checkable
class Teacher(Protocol):
    """Someone who knows how likely each class is."""

    @property
    def fingerprint(self) -> str:
        """Names what decides the answers."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the answers; empty if they are not known."""
        ...

    def __call__(self, pixels: UInt8[Tensor, "b c s s"]) -> Float[Tensor, "b n"]:
        """Logarithms of the probabilities of each class, on the teacher's device."""
        ...


@final
class Judge:
    """A classifier of any kind as a teacher.

    Args:
        classifier: Maps normalised pictures `(b c h w)` to logits `(b m)`.
        preprocess: Of its pictures. Views of another size are resized to its own, and their colours changed
            to its own; nothing more is cut from them.
        fingerprint: Names what decides its logits.
        labels: Class names in the order of the answers; empty if they are not known.
        columns: The logits that answers are made of, in their order; `None` is all of them.
        device: Where the classifier takes its pictures.
    """

    def __init__(
        self,
        classifier: Callable[[Tensor], Tensor],
        preprocess: Preprocess,
        fingerprint: str,
        *,
        labels: Sequence[str] = (),
        columns: Sequence[int] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.classifier = classifier
        self.preprocess = preprocess
        self.labels = tuple(labels)
        self.columns = None if columns is None else tuple(columns)
        self.fingerprint = fingerprint if columns is None else f"{fingerprint}{list(columns)}"
        self.device = device

    @torch.inference_mode()
    def __call__(self, pixels: UInt8[Tensor, "b c s s"]) -> Float[Tensor, "b n"]:
        """Logarithms of the softmax over the chosen logits, in float32."""
        logits = self.classifier(as_seen(pixels, self.preprocess).to(self.device)).float()
        return (logits if self.columns is None else logits[:, self.columns]).log_softmax(1)


def judge_of(model: nn.Module, preprocess: Preprocess, labels: Sequence[str] = ()) -> Judge:
    """A network in PyTorch as a teacher, where it is. It is frozen and put in eval mode."""
    model.eval().requires_grad_(False)
    device = next(iter(model.state_dict().values())).device
    return Judge(model, preprocess, fingerprint(model, preprocess.describe()), labels=labels, device=device)


@final
class Ensemble:
    """Several teachers as one: the mean of their probabilities.

    Raises:
        RecipeError: There are none, or they tell different classes apart.
    """

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        if not teachers:
            raise RecipeError("There is no teacher, expected at least one.")
        named = {teacher.labels for teacher in teachers if teacher.labels}
        if len(named) > 1:
            raise RecipeError("The teachers have different classes, or in another order; expected the same.")
        self.teachers = tuple(teachers)
        self.labels = named.pop() if named else ()
        members = "".join(teacher.fingerprint for teacher in teachers)
        self.fingerprint = hashlib.blake2b(members.encode(), digest_size=16).hexdigest()

    def __call__(self, pixels: UInt8[Tensor, "b c s s"]) -> Float[Tensor, "b n"]:
        """Logarithms of the mean probabilities."""
        answers = torch.stack([teacher(pixels).cpu() for teacher in self.teachers])
        return answers.logsumexp(0) - math.log(len(self.teachers))


def as_seen(pixels: UInt8[Tensor, "b c s s"], preprocess: Preprocess) -> Float[Tensor, "b c h w"]:
    """Views as a network expects them: its size, its colours, normalised."""
    size_px, channels = preprocess.size_px, preprocess.channels
    if pixels.shape[-1] != size_px:
        mode = MODES[preprocess.interpolation]
        pixels = F.resize(pixels, [size_px, size_px], interpolation=mode, antialias=True)
    if channels == 1 and pixels.shape[1] == 3:
        pixels = F.rgb_to_grayscale(pixels)
    return preprocess.normalise(pixels.expand(-1, channels, -1, -1) if channels == 3 else pixels)


def fingerprint_of_file(path: Path, preprocess: Preprocess) -> str:
    """Names a model of another format by its bytes and its preprocessing."""
    digest = hashlib.blake2b(repr(sorted(preprocess.describe().items())).encode(), digest_size=16)
    digest.update(path.read_bytes())
    return digest.hexdigest()
