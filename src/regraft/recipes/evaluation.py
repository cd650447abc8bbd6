"""A model file put to the test: right, sure, and robust, on pictures whose class is known."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from regraft.data.stream import counter_seed
from regraft.errors import RecipeError
from regraft.recipes.classes import ClassMatch, match_classes
from regraft.recipes.classifiers import load_classifier
from regraft.recipes.pictures import labelled
from regraft.vision.corruption_errors import CorruptionErrors, corruption_errors
from regraft.vision.corruptions import SEVERITIES, check_corruptions, load_corruptions
from regraft.vision.data import ImageSet
from regraft.vision.evaluation import Evaluation, evaluate_classifier

SUBSET_SEED = 0
Watch = Callable[[str, int, int], object]
"""Told of progress: what is being done, batches done, and batches in all."""


@dataclass(frozen=True, kw_only=True)
class ModelEvaluation:
    """What a model file is worth on some pictures."""

    model: Path
    architecture: str
    is_fused: bool
    data: Path
    num_found: int
    """Pictures there are, of which a subset may have been taken."""
    notes: tuple[str, ...]
    """What is worth knowing about the pictures as a whole."""
    match: ClassMatch
    scores: Evaluation
    corruption: CorruptionErrors | None
    """`None` if the pictures were not corrupted."""
    baseline: CorruptionErrors | None
    """What corruption errors are divided by; `None` if nothing is."""

    def to_json(self) -> dict[str, object]:
        """All figures as JSON values."""
        return {
            "model": str(self.model),
            "architecture": self.architecture,
            "is_fused": self.is_fused,
            "data": str(self.data),
            "num_found": self.num_found,
            "notes": list(self.notes),
            "num_labels": self.match.num_labels,
            "is_slice": self.match.is_slice,
            "classes_by_number": self.match.by_number,
            **self.scores.to_json(),
            "corruption": self._corruption_json(),
        }

    def _corruption_json(self) -> Mapping[str, object] | None:
        if self.corruption is None or self.baseline is None:
            return self.corruption and self.corruption.to_json()
        return self.corruption.to_json() | {
            "normalised": self.corruption.normalised(self.baseline),
            "mean_corruption_error": self.corruption.mean_corruption_error(self.baseline),
        }


def evaluate(
    model: Path,
    data: Path,
    *,
    corruptions: Sequence[str] = (),
    severities: Sequence[int] = SEVERITIES,
    baseline: CorruptionErrors | None = None,
    subset: int | None = None,
    workers: int = 0,
    watch: Watch | None = None,
) -> ModelEvaluation:
    """Evaluate a model file, or an ONNX file that `regraft export` wrote, on pictures by class.

    Classes are matched by name, or by number as ImageNet-V2 names its folders. Where the pictures have
    fewer classes than the model, as those of ImageNet-A and ImageNet-R, it chooses among these alone.

    With all corruptions the network sees every picture 76 times, and corrupting takes about as long as a
    small network on a CPU.

    Args:
        model: The file.
        data: A folder of pictures by class, or a CSV manifest.
        corruptions: Names from `CORRUPTIONS`; none corrupts nothing.
        severities: Each from 1 to 5.
        baseline: Errors of another model with the same corruptions, to divide by.
        subset: Take this many pictures, chosen by a hash of their ids; `None` takes all.
        workers: Processes that read and corrupt; 0 does it in this one.
        watch: Told of progress.

    Raises:
        WeightsError: The file cannot be used.
        SampleError: There are no pictures that can be read, or they have classes the model does not.
        RecipeError: Settings out of range, or a baseline that does not fit.
        MissingExtra: Pictures are to be corrupted, and the package for it is not installed.
    """
    # What can be refused is refused before the work.
    _check_settings(corruptions, severities, baseline)
    loaded = load_classifier(model)
    found = labelled(data)
    match = match_classes(found.classes, loaded.card.labels, loaded.card.num_classes)
    samples = found if subset is None else random_subset(found, subset)
    classifier, preprocess = loaded.only(match.columns), loaded.card.preprocess
    scores = evaluate_classifier(
        classifier, samples, preprocess, workers=workers, watch=watch and partial(watch, "evaluating")
    )
    corruption = None
    if corruptions:
        corruption = corruption_errors(
            classifier,
            samples,
            preprocess,
            corruptions=corruptions,
            severities=severities,
            workers=workers,
            watch=watch and partial(watch, "corrupting"),
        )
    return ModelEvaluation(
        model=model,
        architecture=loaded.card.architecture,
        is_fused=loaded.card.fused,
        data=data,
        num_found=len(found),
        notes=found.notes,
        match=match,
        scores=scores,
        corruption=corruption,
        baseline=baseline,
    )


def random_subset(samples: ImageSet, num: int) -> ImageSet:
    """Up to `num` of the samples, in their order: those whose ids have the smallest hashes.

    Which they are depends on the ids alone, so two models are judged on the same ones.

    Raises:
        RecipeError: `num` is below 1.
    """
    if num < 1:
        raise RecipeError(f"The subset is of {num} pictures; expected at least 1.")
    hashes = {index: counter_seed("subset", SUBSET_SEED, name) for index, name in enumerate(samples.ids)}
    return samples.take(sorted(sorted(hashes, key=hashes.__getitem__)[:num]))


def read_baseline(file: Path) -> CorruptionErrors:
    """Corruption errors from what `regraft evaluate --corruptions --json` printed.

    Raises:
        RecipeError: The file cannot be read, or holds none.
    """
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"The baseline {file} cannot be read as JSON: {error}.") from error
    corruption = written.get("corruption") if isinstance(written, dict) else None
    if not isinstance(corruption, dict):
        raise RecipeError(
            f"{file} holds no corruption errors.", hint="`regraft evaluate --corruptions --json` prints some."
        )
    return CorruptionErrors.from_json(corruption)


def _check_settings(
    corruptions: Sequence[str], severities: Sequence[int], baseline: CorruptionErrors | None
) -> None:
    if corruptions:
        check_corruptions(corruptions, severities)
        load_corruptions()
    if baseline is not None and not corruptions:
        raise RecipeError("A baseline is of corrupted pictures; expected some corruptions to go with it.")
    if baseline is not None:
        baseline.check_same(corruptions, severities)
        baseline.check_divides()
