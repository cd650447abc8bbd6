"""Asking a classifier, whatever it is made of."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regraft.errors import ShapeError
from regraft.nn.reparam import refuse_train_mode

Classifier = Callable[[Tensor], Tensor]
"""Maps pictures `(b c h w)` to logits `(b n)`: a module in eval mode, or any function."""


def logits_of(
    classifier: Classifier, image: Float[Tensor, "b c h w"], num_classes: int
) -> Float[Tensor, "b n"]:
    """The answers to a batch of pictures, without gradients, in float32 on the CPU.

    Args:
        classifier: A module gets the batch on the device of its weights, a function on the CPU.
        image: A batch.
        num_classes: How many logits are expected.

    Raises:
        TrainModeError: The classifier is a module in training mode.
        ShapeError: It answers with something else than a row of logits a picture.
    """
    if isinstance(classifier, nn.Module):
        refuse_train_mode(classifier, "evaluate")
        weights = next(classifier.parameters(), None)
        image = image if weights is None else image.to(weights.device)
    with torch.inference_mode():
        logits = classifier(image).float().cpu()
    if logits.shape != (len(image), num_classes):
        raise ShapeError(
            f"The classifier answers with {tuple(logits.shape)} to {len(image)} pictures; expected "
            f"({len(image)}, {num_classes}), a logit for each class of the pictures."
        )
    return logits
