"""What a classifier is worth, on pictures whose class is known."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64

from regraft.errors import SampleError
from regraft.vision.batches import OrderedBatches
from regraft.vision.calibration import Bins, confidence_bins, equal_mass_bins
from regraft.vision.corruption_errors import Watch
from regraft.vision.data import ImageSet, Picture
from regraft.vision.images import BadImage
from regraft.vision.inference import Classifier, logits_of
from regraft.vision.metrics import brier_score, negative_log_likelihood, top_k_accuracy
from regraft.vision.preprocess import Preprocess
from regraft.vision.probabilities import log_probabilities

NUM_MISTAKES = 12


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """How often the pictures of one class are named right."""

    name: str
    num: int
    """Pictures of the class."""
    num_right: int
    taken_for: str | None
    """The class they are most often taken for instead; `None` if never."""

    @property
    def accuracy(self) -> float:
        """Share named right, in [0, 1]."""
        return self.num_right / self.num


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A picture that was named wrongly."""

    id: str
    source: Picture
    label: str
    """Its class."""
    answer: str
    """The class it was taken for."""
    confidence: float
    """The probability given to that class."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How right a classifier is, and how right it says it is."""

    num_pictures: int
    """Those that could be read; everything below is about them."""
    left_out: Mapping[str, BadImage]
    """What was wrong with the others, by id."""
    num_classes: int
    top1: float
    """Share named right, in [0, 1]."""
    top5: float | None
    """Share with their class among the first five; `None` if there are not more than five."""
    nll: float
    """See `metrics.negative_log_likelihood`; in nats, and infinite if a right class was ruled out."""
    brier: float
    """See `metrics.brier_score`; in [0, 2]."""
    reliability: Bins
    """Bins of equal width; their error is the expected calibration error (ECE)."""
    equal_mass: Bins
    """Bins of equal mass; their error is the adaptive one."""
    classes: tuple[ClassScore, ...]
    """Classes that have pictures, the worst first."""
    mistakes: tuple[Mistake, ...]
    """The surest ones, the surest first; at most `NUM_MISTAKES`."""

    def to_json(self) -> dict[str, object]:
        """All figures as JSON values; `None` for what is not finite, which JSON cannot say."""
        return {
            "num_pictures": self.num_pictures,
            "left_out": {name: str(error) for name, error in self.left_out.items()},
            "num_classes": self.num_classes,
            "top1": self.top1,
            "top5": self.top5,
            "nll": self.nll if math.isfinite(self.nll) else None,
            "brier": self.brier,
            "calibration_error": self.reliability.error,
            "adaptive_calibration_error": self.equal_mass.error,
            "overconfidence": self.reliability.overconfidence,
            "reliability": self.reliability.to_json(),
            "classes": [asdict(score) | {"accuracy": score.accuracy} for score in self.classes],
            "mistakes": [
                {"id": one.id, "label": one.label, "answer": one.answer, "confidence": one.confidence}
                for one in self.mistakes
            ],
        }


def evaluate_classifier(
    classifier: Classifier,
    samples: ImageSet,
    preprocess: Preprocess,
    *,
    batch_size: int = 128,
    workers: int = 0,
    watch: Watch | None = None,
) -> Evaluation:
    """Ask a classifier about every picture, and say how right and how sure it was.

    Args:
        classifier: Maps `(b c h w)` to a logit for each of `samples.classes`.
        samples: The pictures. Those that cannot be read are left out and named.
        preprocess: How they are cut and normalised.
        batch_size: Pictures the classifier gets at once.
        workers: Processes that read pictures which do not fit into memory.
        watch: Told of progress.

    Raises:
        SampleError: No picture can be read, or a logit is not a number.
        RecipeError: `batch_size` is below 1.
        ShapeError: The classifier's answers do not fit the classes.
        TrainModeError: It is a module in training mode.
    """
    batches = OrderedBatches(samples, preprocess, batch_size=batch_size, workers=workers)
    logits: list[torch.Tensor] = []
    for number, batch in enumerate(batches, start=1):
        logits.append(logits_of(classifier, batch["image"], len(samples.classes)))
        if watch is not None:
            watch(number, len(batches))
    left_out = batches.report().files
    if not logits:
        raise SampleError(f"None of {len(samples)} pictures can be read.")
    read = samples.take(index for index, name in enumerate(samples.ids) if name not in left_out)
    return judge(log_probabilities(torch.cat(logits)), read, left_out)


def judge(
    answers: Float64[np.ndarray, "n c"], samples: ImageSet, left_out: Mapping[str, BadImage]
) -> Evaluation:
    """Compare answers with what is known.

    Args:
        answers: Logarithms of probabilities, as `log_probabilities` makes them.
        samples: The pictures they are about, in the same order.
        left_out: What was wrong with others.
    """
    labels = np.array(samples.labels)
    probabilities = np.exp(answers)
    chosen = answers.argmax(axis=1)
    return Evaluation(
        num_pictures=len(samples),
        left_out=left_out,
        num_classes=len(samples.classes),
        top1=top_k_accuracy(answers, labels),
        top5=top_k_accuracy(answers, labels, k=5) if len(samples.classes) > 5 else None,
        nll=negative_log_likelihood(answers, labels),
        brier=brier_score(probabilities, labels),
        reliability=confidence_bins(probabilities, labels),
        equal_mass=equal_mass_bins(probabilities, labels),
        classes=_class_scores(chosen, labels, samples.classes),
        mistakes=_surest_mistakes(chosen, probabilities.max(axis=1), samples),
    )


def _class_scores(
    chosen: Int64[np.ndarray, " n"], labels: Int64[np.ndarray, " n"], classes: Sequence[str]
) -> tuple[ClassScore, ...]:
    scores: list[ClassScore] = []
    for label in sorted(set(map(int, labels))):
        counts = np.bincount(chosen[labels == label], minlength=len(classes))
        num, num_right = int(counts.sum()), int(counts[label])
        counts[label] = 0
        taken_for = classes[int(counts.argmax())] if num_right < num else None
        scores.append(ClassScore(name=classes[label], num=num, num_right=num_right, taken_for=taken_for))
    return tuple(sorted(scores, key=lambda score: (score.accuracy, score.name)))


def _surest_mistakes(
    chosen: Int64[np.ndarray, " n"], confidence: Float64[np.ndarray, " n"], samples: ImageSet
) -> tuple[Mistake, ...]:
    wrong = np.flatnonzero(chosen != np.array(samples.labels))
    surest = sorted(wrong.tolist(), key=lambda row: (-confidence[row], samples.ids[row]))[:NUM_MISTAKES]
    return tuple(
        Mistake(
            id=samples.ids[row],
            source=samples.sources[row],
            label=samples.classes[samples.labels[row]],
            answer=samples.classes[chosen[row]],
            confidence=float(confidence[row]),
        )
        for row in surest
    )
