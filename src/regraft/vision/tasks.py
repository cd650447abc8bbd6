"""What a network for pictures is trained to do."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from regraft.errors import RecipeError, SampleError
from regraft.train.task import Batch
from regraft.vision.metrics import num_correct
from regraft.vision.preprocess import Preprocess
from regraft.vision.soft_targets import SoftTargets, sparse_kl
from regraft.vision.teachers import Teacher

HeldOut = Callable[[], Iterable[Batch]]
"""Makes a pass over samples that are never trained on."""


class Classify:
    """Tell classes apart.

    Requirements:
        `model` maps `image` `(b c h w)` to logits `(b n)`. A batch has `label`: class indices `(b)`, or
        probabilities `(b n)` where samples were mixed.

    Args:
        held_out: Makes a pass over samples that are never trained on.
        label_smoothing: Share of the target spread evenly over all classes (arXiv 1512.00567, section 7).
    """

    def __init__(self, model: nn.Module, held_out: HeldOut, *, label_smoothing: float = 0.0) -> None:
        self.model = model
        self._held_out = held_out
        self._label_smoothing = label_smoothing

    def loss(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Cross-entropy of the batch, in nats."""
        logits = self.model(batch["image"])
        loss = nn.functional.cross_entropy(logits, batch["label"], label_smoothing=self._label_smoothing)
        return {"cross_entropy": loss}

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """As `judge` does."""
        return judge(model, self._held_out)


class Imitate:
    """Answer as a teacher did, whose answers are stored with the data (arXiv 2303.08983, section 3).

    Requirements:
        As `Classify`, and a batch has the targets of `vision.recorded.Recorded`.

    Args:
        held_out: Makes a pass over samples that are never trained on.
        label_weight: Share of the loss that the label has, in [0, 1]; the paper gives it none.
        hard: Whether only the teacher's first choice counts, as if it were a label (DeiT, arXiv 2012.12877,
            and FastViT, which gives label and teacher a half each).
        label_smoothing: Of the label, as in `Classify`.
    """

    def __init__(
        self,
        model: nn.Module,
        held_out: HeldOut,
        *,
        label_weight: float = 0.0,
        hard: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        if not 0 <= label_weight <= 1:
            raise RecipeError(f"label_weight is {label_weight:g}, expected a share in [0, 1].")
        self.model = model
        self._held_out = held_out
        self._label_weight = label_weight
        self._label_smoothing = label_smoothing
        self._imitation = first_choice if hard else sparse_kl

    def loss(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Divergence from the teacher's answers, and the cross-entropy where the label counts, in nats."""
        logits = self.model(batch["image"])
        terms = {"imitation": (1 - self._label_weight) * self._imitation(logits, SoftTargets.of_batch(batch))}
        if self._label_weight:
            loss = nn.functional.cross_entropy(logits, batch["label"], label_smoothing=self._label_smoothing)
            terms["cross_entropy"] = self._label_weight * loss
        return terms

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """As `judge` does."""
        return judge(model, self._held_out)


class Distil:
    """Answer as a teacher does who is asked in every step: what a table saves, for comparison.

    Requirements:
        As `Classify`.

    Args:
        held_out: Makes a pass over samples that are never trained on.
        teacher: Sees what the network sees.
        preprocess: How the network's pictures were normalised.
    """

    def __init__(self, model: nn.Module, held_out: HeldOut, teacher: Teacher, preprocess: Preprocess) -> None:
        self.model = model
        self._held_out = held_out
        self._teacher = teacher
        self._preprocess = preprocess

    def loss(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Divergence from the teacher's answers, in nats."""
        answers = self._teacher(self._preprocess.pixels_of(batch["image"]))
        log_q = self.model(batch["image"]).log_softmax(1)
        divergence = nn.functional.kl_div(
            log_q, answers.to(log_q.device), reduction="batchmean", log_target=True
        )
        return {"distillation": divergence}

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """As `judge` does."""
        return judge(model, self._held_out)


def first_choice(logits: Tensor, targets: SoftTargets) -> Tensor:
    """Cross-entropy with the most likely class of the targets, in nats."""
    most = targets.probabilities.argmax(1, keepdim=True)
    return nn.functional.cross_entropy(logits, targets.ids.gather(1, most)[:, 0])


def judge(model: nn.Module, held_out: HeldOut) -> Mapping[str, float]:
    """Share of held-out samples named right (`top1`, in [0, 1]), and their mean loss in nats (`nll`).

    Raises:
        SampleError: There are no held-out samples.
    """
    device = next(model.parameters()).device
    right, loss, seen = 0, 0.0, 0
    for batch in held_out():
        with torch.no_grad():
            logits, label = model(batch["image"].to(device)).float(), batch["label"].to(device)
        right += num_correct(logits, label)
        loss += float(nn.functional.cross_entropy(logits, label, reduction="sum"))
        seen += len(label)
    if not seen:
        raise SampleError("There are no held-out samples to evaluate on.")
    return {"top1": right / seen, "nll": loss / seen}
