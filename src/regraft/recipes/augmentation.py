"""From a recipe's numbers to what varies its pictures."""

from collections.abc import Iterator

from torchvision.transforms import v2

from regraft.augment.compose import Compose
from regraft.augment.protocol import Augmentation as Step
from regraft.recipes.recipe import Augmentation, Recipe
from regraft.vision.crops import MODES, Flip, PadCrop, RandomResizedCrop
from regraft.vision.erasing import RandomErase
from regraft.vision.frames import PictureAugment
from regraft.vision.jitter import ColourJitter
from regraft.vision.mixing import Mix
from regraft.vision.policy_step import VaryByPolicy
from regraft.vision.rand_augment import RandAugment
from regraft.vision.range_policy import Range, RangePolicy
from regraft.vision.variation import Variation


def variation_of(recipe: Recipe) -> Variation:
    """What is random about the views of a recipe, and can be repeated."""
    augment = recipe.augment
    crop = None
    if augment.crop_area:
        crop = RandomResizedCrop(augment.crop_area, interpolation=recipe.interpolation)
    mix = Mix(augment.mixup, augment.cutmix) if augment.mixup or augment.cutmix else None
    return Variation(crop, Compose(tuple(_steps(augment))), mix)


def picture_augment(recipe: Recipe) -> PictureAugment | None:
    """What happens to whole pictures before, and is not written down."""
    return v2.AutoAugment(interpolation=MODES[recipe.interpolation]) if recipe.augment.auto_augment else None


def _steps(augment: Augmentation) -> Iterator[Step]:
    if augment.pad_px:
        yield PadCrop(augment.pad_px)
    if augment.flip:
        yield Flip()
    if augment.jitter:
        yield ColourJitter(augment.jitter, augment.jitter, augment.jitter)
    if augment.rand_augment is not None:
        interpolation = augment.rand_augment_interpolation
        yield RandAugment(strength=augment.rand_augment, interpolation=interpolation)
    if augment.policy:
        yield VaryByPolicy(RangePolicy(operations=tuple(Range(*entry) for entry in augment.policy)))
    if augment.erase:
        yield RandomErase(augment.erase)
