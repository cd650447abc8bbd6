"""Everything that decides a training run, as data."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from regraft.errors import RecipeError
from regraft.train.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How pictures are varied in training. `None` leaves a step out."""

    crop_area: tuple[float, float] | None = None
    """Random resized crop: smallest and largest share of the picture's area kept."""
    pad_px: int | None = None
    """Zero margin before a random crop back to size, for small pictures."""
    flip: bool = False
    """Mirror half of the pictures."""
    auto_augment: bool = False
    """AutoAugment's ImageNet policy (arXiv 1805.09501)."""
    rand_augment: int | None = None
    """Magnitude, 0 to 30, of two operations of RandAugment (arXiv 1909.13719)."""
    rand_augment_interpolation: Literal["nearest", "bilinear"] = "bilinear"
    """Of its turns, shears and shifts."""
    jitter: float | None = None
    """Strength of brightness, contrast and saturation jitter."""
    erase: float | None = None
    """Chance that a rectangle is erased (arXiv 1708.04896)."""
    policy: tuple[tuple[str, float, float], ...] | None = None
    """Learned ranges: (operation, smallest, largest magnitude) each, as `regraft train --policy` fills in."""
    mixup: float | None = None
    """Beta parameter of mixup (arXiv 1710.09412)."""
    cutmix: float | None = None
    """Beta parameter of CutMix (arXiv 1905.04899); with both, each picture takes one of the two at random."""

    def problems(self) -> Iterator[str]:
        """What is wrong with these numbers, in words."""
        if self.crop_area and self.pad_px:
            yield "augment has both crop_area and pad_px, expected at most one way to crop"
        if self.crop_area and not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            yield f"augment.crop_area is {self.crop_area}, expected two ascending shares in (0, 1]"
        if self.pad_px is not None and self.pad_px < 1:
            yield f"augment.pad_px is {self.pad_px}, expected at least 1"
        if self.rand_augment is not None and not 0 <= self.rand_augment <= 30:
            yield f"augment.rand_augment is {self.rand_augment}, expected 0 to 30"
        if self.erase is not None and not 0 < self.erase <= 1:
            yield f"augment.erase is {self.erase}, expected a chance in (0, 1]"
        for name in ("jitter", "mixup", "cutmix"):
            value = getattr(self, name)
            if value is not None and not 0 < value < inf:
                yield f"augment.{name} is {value}, expected a positive number"


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """How learned ranges are led (RangeAugment, arXiv 2212.10553)."""

    target_db: float | None = None
    """Peak signal-to-noise ratio that ranges are led to; less varies more. `None` learns none."""
    start_db: float = 40.0
    """The ratio that training begins with."""
    operations: tuple[str, ...] = ("brightness", "contrast", "noise")
    """What pictures are varied by."""
    task_gradient: bool = False
    """Whether the loss of the task moves the ranges too, as in the paper."""

    def problems(self) -> Iterator[str]:
        """What is wrong with these numbers, in words."""
        if self.target_db is not None and not 0 < self.target_db <= 50:
            yield f"ranges.target_db is {self.target_db}, expected a number in (0, 50]"
        if not 0 < self.start_db <= 50:
            yield f"ranges.start_db is {self.start_db}, expected a number in (0, 50]"


@dataclass(frozen=True, kw_only=True)
class Imitation:
    """How a teacher's stored answers are learned from, where there is a table of them."""

    share: float = 0.99
    """Share of the pictures that are shown in a recorded view; the others have their label alone."""
    temperature: float = 1.0
    """Answers are raised to the power of its inverse and normalised anew."""
    label_weight: float = 0.0
    """Share of the loss that the label has."""
    hard: bool = False
    """Whether only the teacher's first choice counts, as if it were a label."""

    def problems(self) -> Iterator[str]:
        """What is wrong with these numbers, in words."""
        if not 0 < self.share <= 1:
            yield f"imitation.share is {self.share}, expected a share in (0, 1]"
        if not 0 < self.temperature < inf:
            yield f"imitation.temperature is {self.temperature}, expected a positive number"
        if not 0 <= self.label_weight <= 1:
            yield f"imitation.label_weight is {self.label_weight}, expected a share in [0, 1]"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run. Checked whole: an error names everything that is wrong."""

    model: str
    """A name that `regraft.create_model` knows."""
    schedule: Schedule
    size_px: int
    """Height and width that the network is evaluated at."""
    sizes: tuple[tuple[int, int], ...] = ()
    """Progressive size: pairs of (first epoch, size in px) for training; empty trains at `size_px`."""
    crop: float = 0.875
    """Share of the short side that evaluation's centre crop keeps."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    channels: Literal[1, 3] = 3
    """1 turns pictures grey."""
    batch_size: int
    """Samples of one optimizer step, over all processes."""
    optimizer: Literal["sgd", "adamw"]
    momentum: float = 0.9
    """Of SGD."""
    label_smoothing: float = 0.0
    drop_path: float = 0.0
    average_decay: float | None = None
    """Decay of the moving average of the weights; `None` keeps none."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    synchronize_norms: bool = False
    """Batch statistics over all GPUs instead of each one's."""
    augment: Augmentation = field(default_factory=Augmentation)
    ranges: Ranges = field(default_factory=Ranges)
    imitation: Imitation = field(default_factory=Imitation)
    seed: int = 0
    """Of the weights, the order of the samples and their augmentation. Which are held out does not change."""

    def __post_init__(self) -> None:
        if wrong := list(self._problems()):
            raise RecipeError(f"The recipe cannot be used: {'; '.join(wrong)}.")

    def _problems(self) -> Iterator[str]:
        for name in ("size_px", "batch_size"):
            if getattr(self, name) < 1:
                yield f"{name} is {getattr(self, name)}, expected at least 1"
        for name in ("label_smoothing", "drop_path", "momentum", "average_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                yield f"{name} is {value}, expected a share in [0, 1)"
        if not 0 < self.crop <= 1:
            yield f"crop is {self.crop}, expected a share in (0, 1]"
        if self.sizes and self.sizes[0][0] != 0:
            yield f"sizes begins at epoch {self.sizes[0][0]}, expected 0"
        if any(size_px < 1 for _, size_px in self.sizes):
            yield f"sizes is {self.sizes}, expected at least 1 px"
        for group in (self.augment, self.ranges, self.imitation):
            yield from group.problems()
