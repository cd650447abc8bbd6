"""What a network for pictures is trained to do."""

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor, nn

from regraft.errors import SampleError
from regraft.train.task import Batch
from regraft.vision.metrics import num_correct


class Classify:
    """Tell classes apart.

    Requirements:
        `model` maps `image` `(b c h w)` to logits `(b n)`. A batch has `label`: class indices `(b)`, or
        probabilities `(b n)` where samples were mixed.

    Args:
        held_out: Makes a pass over samples that are never trained on.
        label_smoothing: Share of the target spread evenly over all classes (arXiv 1512.00567, section 7).
    """

    def __init__(
        self,
        model: nn.Module,
        held_out: Callable[[], Iterable[Batch]],
        *,
        label_smoothing: float = 0.0,
    ) -> None:
        self.model = model
        self._held_out = held_out
        self._label_smoothing = label_smoothing

    def loss(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Cross-entropy of the batch, in nats."""
        logits = self.model(batch["image"])
        loss = nn.functional.cross_entropy(logits, batch["label"], label_smoothing=self._label_smoothing)
        return {"cross_entropy": loss}

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """Share of held-out samples named right (`top1`, in [0, 1]), and their mean loss in nats (`nll`).

        Raises:
            SampleError: There are no held-out samples.
        """
        device = next(model.parameters()).device
        right, loss, seen = 0, 0.0, 0
        for batch in self._held_out():
            logits, label = model(batch["image"].to(device)).float(), batch["label"].to(device)
            right += num_correct(logits, label)
            loss += float(nn.functional.cross_entropy(logits, label, reduction="sum"))
            seen += len(label)
        if not seen:
            raise SampleError("There are no held-out samples to evaluate on.")
        return {"top1": right / seen, "nll": loss / seen}
