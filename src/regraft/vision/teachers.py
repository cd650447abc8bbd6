"""Trained classifiers as teachers: anything that tells how likely each class is, for a batch of views."""

import hashlib
import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from regraft.errors import RecipeError, ShapeError
from regraft.nn.device import best_device
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

    A module takes its pictures on the device of its weights, a function on the CPU. Sent to another process,
    a module settles on the best device there.

    Args:
        classifier: Maps normalised pictures `(b c h w)` to logits `(b m)`.
        preprocess: Of its pictures. Views of another size are resized to its own, and their colours changed
            to its own; nothing more is cut from them.
        fingerprint: Names what decides its logits.
        labels: Class names in the order of the answers; empty if they are not known.
        columns: The logits that answers are made of, in their order; `None` is all of them.
        num_logits: How many logits it must answer with; `None` takes any number.
    """

    def __init__(
        self,
        classifier: Callable[[Tensor], Tensor],
        preprocess: Preprocess,
        fingerprint: str,
        *,
        labels: Sequence[str] = (),
        columns: Sequence[int] | None = None,
        num_logits: int | None = None,
    ) -> None:
        self.classifier = classifier
        self.preprocess = preprocess
        self.labels = tuple(labels)
        self.columns = None if columns is None else tuple(columns)
        self.num_logits = num_logits
        self.fingerprint = fingerprint if columns is None else f"{fingerprint}{list(columns)}"

    @torch.inference_mode()
    def __call__(self, pixels: UInt8[Tensor, "b c s s"]) -> Float[Tensor, "b n"]:
        """Logarithms of the softmax over the chosen logits, in float32.

        Raises:
            ShapeError: The classifier answers with something else than a row of logits a picture.
        """
        device = _device_of(self.classifier)
        logits = self.classifier(as_seen(pixels.to(device), self.preprocess))
        self._check(logits, len(pixels))
        logits = logits.float()
        return (logits if self.columns is None else logits[:, self.columns]).log_softmax(1)

    def _check(self, logits: object, num_pictures: int) -> None:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else ()
        fits = len(shape) == 2 and shape[0] == num_pictures and self.num_logits in (None, shape[1])
        if not fits:
            found = f"the shape {shape}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            expected = "any number of classes" if self.num_logits is None else f"{self.num_logits} classes"
            raise ShapeError(
                f"The teacher answers {num_pictures} pictures with {found}, expected a tensor with a row for "
                f"each and {expected}.",
                hint="Its labels must be as many as its logits; without labels, the folder's classes.",
            )

    def __getstate__(self) -> dict[str, object]:
        state = dict(self.__dict__)
        if isinstance(self.classifier, nn.Module):
            state["classifier"] = deepcopy(self.classifier).cpu()
        return state

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        if isinstance(self.classifier, nn.Module):
            self.classifier.to(best_device())


def judge_of(model: nn.Module, preprocess: Preprocess, labels: Sequence[str] = ()) -> Judge:
    """A network in PyTorch as a teacher, where it is. It is frozen and put in eval mode."""
    model.eval().requires_grad_(False)
    return Judge(
        model,
        preprocess,
        fingerprint(model, preprocess.describe()),
        labels=labels,
        num_logits=len(labels) or None,
    )


def _device_of(classifier: Callable[[Tensor], Tensor]) -> torch.device:
    weights = classifier.state_dict().values() if isinstance(classifier, nn.Module) else ()
    return next((weight.device for weight in weights), torch.device("cpu"))


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
        """Logarithms of the mean probabilities, on the first teacher's device.

        Raises:
            ShapeError: The teachers know different numbers of classes.
        """
        answers = [teacher(pixels) for teacher in self.teachers]
        widths = [answer.shape[1] for answer in answers]
        if len(set(widths)) > 1:
            raise ShapeError(f"The teachers know {widths} classes, expected the same number.")
        together = torch.stack([answer.to(answers[0].device) for answer in answers])
        return together.logsumexp(0) - math.log(len(answers))


def as_seen(pixels: UInt8[Tensor, "b c s s"], preprocess: Preprocess) -> Float[Tensor, "b c h w"]:
    """Views as a network expects them: its size, its colours, normalised."""
    size_px, channels = preprocess.size_px, preprocess.channels
    if pixels.shape[-1] != size_px:
        mode = MODES[preprocess.interpolation]
        pixels = F.resize(pixels, [size_px, size_px], interpolation=mode, antialias=True)
    if channels == 1 and pixels.shape[1] == 3:
        pixels = F.rgb_to_grayscale(pixels)
    return preprocess.normalise(pixels.expand(-1, channels, -1, -1) if channels == 3 else pixels)


def fingerprint_of_files(files: Sequence[Path], preprocess: Preprocess) -> str:
    """Names a model of another format by the bytes of its files and its preprocessing."""
    digest = hashlib.blake2b(repr(sorted(preprocess.describe().items())).encode(), digest_size=16)
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
