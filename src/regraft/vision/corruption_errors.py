"""How much more often a classifier is wrong about corrupted pictures."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from statistics import fmean
from typing import Any

from regraft.errors import RecipeError, SampleError
from regraft.vision.corrupted_batches import CorruptedBatches, Corruption
from regraft.vision.corruptions import CORRUPTIONS, SEVERITIES, check_corruptions
from regraft.vision.data import ImageSet
from regraft.vision.inference import Classifier, logits_of
from regraft.vision.left_out import LeftOut
from regraft.vision.metrics import num_correct
from regraft.vision.preprocess import Preprocess

Watch = Callable[[int, int], object]
"""Told of progress: batches done, and batches in all."""


@dataclass(frozen=True, kw_only=True)
class CorruptionErrors:
    """Shares of pictures named wrongly, in [0, 1]."""

    clean: float
    """Of the pictures as they are."""
    errors: Mapping[str, Mapping[int, float]]
    """By corruption, then by severity; every corruption has the same severities."""

    def __post_init__(self) -> None:
        severities = {tuple(sorted(by_severity)) for by_severity in self.errors.values()}
        if len(severities) != 1:
            raise RecipeError(
                f"The severities are {sorted(severities)}; expected the same ones of each corruption."
            )
        check_corruptions(list(self.errors), severities.pop())

    @property
    def mean(self) -> float:
        """The plain mean over corruptions and severities."""
        return fmean(self.by_corruption.values())

    @property
    def relative(self) -> float:
        """The plain mean less the error on clean pictures: what corruption costs."""
        return self.mean - self.clean

    @property
    def by_corruption(self) -> dict[str, float]:
        """The mean over severities of each corruption."""
        return {name: fmean(by_severity.values()) for name, by_severity in self.errors.items()}

    @property
    def severities(self) -> tuple[int, ...]:
        """Those that every corruption has."""
        return tuple(next(iter(self.errors.values())))

    def check_same(self, corruptions: Sequence[str], severities: Sequence[int]) -> None:
        """Make sure that these errors are the baseline for others, which may have to be measured yet.

        Raises:
            RecipeError: They are of other corruptions or severities.
        """
        if (set(corruptions), set(severities)) != (set(self.errors), set(self.severities)):
            raise RecipeError(
                f"The baseline is of {', '.join(self.errors)} at {list(self.severities)}; expected "
                f"{', '.join(corruptions)} at {list(severities)}.",
                hint="Measure both with the same corruptions and severities.",
            )

    def check_divides(self) -> None:
        """Make sure that others can be divided by these errors.

        Raises:
            RecipeError: There are none in one of the corruptions.
        """
        self._over(self, ours=0.0, theirs=0.0)

    def normalised(self, baseline: "CorruptionErrors") -> dict[str, float]:
        """The corruption error (CE) of each: the sum over severities, divided by the baseline's.

        Args:
            baseline: Errors of another classifier on the same pictures. The paper (arXiv 1903.12261) takes
                AlexNet, so only figures over AlexNet's compare with published ones.

        Raises:
            RecipeError: The baseline is of other corruptions or severities, or makes no errors in one.
        """
        return self._over(baseline, ours=0.0, theirs=0.0)

    def mean_corruption_error(self, baseline: "CorruptionErrors") -> float:
        """mCE, the mean of `normalised`; 1 is as bad as the baseline.

        Raises:
            RecipeError: As `normalised`.
        """
        return fmean(self.normalised(baseline).values())

    def relative_mean_corruption_error(self, baseline: "CorruptionErrors") -> float:
        """Relative mCE: as `mean_corruption_error`, each side less its error on clean pictures.

        Raises:
            RecipeError: As `normalised`, or the baseline is not harmed by one of the corruptions.
        """
        return fmean(self._over(baseline, ours=self.clean, theirs=baseline.clean).values())

    def to_json(self) -> dict[str, Any]:
        """The errors, their mean, and what corruption costs, as JSON values."""
        return asdict(self) | {"mean": self.mean, "relative": self.relative}

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> "CorruptionErrors":
        """What `to_json` wrote, also after JSON made texts of the severities.

        Raises:
            RecipeError: It is something else.
        """
        try:
            errors = {
                str(name): {int(severity): float(error) for severity, error in by_severity.items()}
                for name, by_severity in written["errors"].items()
            }
            clean = float(written["clean"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RecipeError(
                f"These are no corruption errors: {error!r}.", hint="`regraft evaluate --json` prints some."
            ) from error
        shares = [clean, *(error for by_severity in errors.values() for error in by_severity.values())]
        if odd := [share for share in shares if not 0 <= share <= 1]:
            raise RecipeError(f"A corruption error is {odd[0]}, expected shares in [0, 1].")
        return cls(clean=clean, errors=errors)

    def _over(self, baseline: "CorruptionErrors", *, ours: float, theirs: float) -> dict[str, float]:
        """Sums over severities of each corruption, every error less what is clean, over the baseline's."""
        baseline.check_same(list(self.errors), self.severities)
        means = baseline.by_corruption
        unharmed = [name for name, mean in means.items() if mean - theirs <= 0]
        if unharmed:
            raise RecipeError(
                f"The baseline loses nothing by {', '.join(unharmed)}, so nothing can be divided by it.",
                hint="Take more pictures, or leave the corruption out on both sides.",
            )
        return {name: (mean - ours) / (means[name] - theirs) for name, mean in self.by_corruption.items()}


def corruption_errors(
    classifier: Classifier,
    samples: ImageSet,
    preprocess: Preprocess,
    *,
    corruptions: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    batch_size: int = 128,
    workers: int = 0,
    left_out: LeftOut | None = None,
    watch: Watch | None = None,
) -> CorruptionErrors:
    """Corrupt every picture in every way asked for, and count how often the classifier is wrong.

    Args:
        classifier: Maps `(b c h w)` to a logit for each of `samples.classes`.
        samples: The pictures.
        preprocess: How they are cut and normalised; they are corrupted in between.
        corruptions: Names from `CORRUPTIONS`.
        severities: Each from 1 to 5.
        seed: Another seed is another draw.
        batch_size: Pictures the classifier gets at once.
        workers: Processes that corrupt; 0 does it in this one.
        left_out: Takes the names of the pictures that cannot be read.
        watch: Told of progress.

    Raises:
        RecipeError: An unknown corruption or severity, squares that are too small, a batch size below 1.
        MissingExtra: The package that corrupts is not installed.
        SampleError: No picture can be read.
        ShapeError: The classifier's answers do not fit the classes.
        TrainModeError: It is a module in training mode.
    """
    check_corruptions(corruptions, severities)
    pairs: list[Corruption] = list(product(corruptions, severities))
    batches = CorruptedBatches(
        samples,
        preprocess,
        pairs,
        seed=seed,
        batch_size=batch_size,
        workers=workers,
        left_out=left_out,
    )
    num_wrong, num_seen = Counter[Corruption | None](), Counter[Corruption | None]()
    for number, (setting, batch) in enumerate(batches, start=1):
        if len(label := batch["label"]):
            logits = logits_of(classifier, batch["image"], len(samples.classes))
            num_wrong[setting] += len(label) - num_correct(logits, label)
            num_seen[setting] += len(label)
        if watch is not None:
            watch(number, len(batches))
    if len(num_seen) <= len(pairs):
        raise SampleError(f"None of {len(samples)} pictures can be read.")
    shares = {setting: num_wrong[setting] / num for setting, num in num_seen.items()}
    errors = {name: {severity: shares[name, severity] for severity in severities} for name in corruptions}
    return CorruptionErrors(clean=shares[None], errors=errors)
