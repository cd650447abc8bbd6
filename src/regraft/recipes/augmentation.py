"""From a recipe's numbers to the transforms that vary its pictures."""

from collections.abc import Iterator

from torch import nn
from torchvision.transforms import InterpolationMode, v2

from regraft.recipes.recipe import Augmentation, Recipe
from regraft.vision import frames
from regraft.vision.batches import Mix
from regraft.vision.crops import BatchAugment, PadCropFlip

MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


def picture_transform(recipe: Recipe) -> frames.PictureAugment | None:
    """What happens to each picture before it is cut to a square."""
    steps = list(_steps(recipe))
    return v2.Compose(steps) if steps else None


def _steps(recipe: Recipe) -> Iterator[nn.Module]:
    augment, mode = recipe.augment, MODES[recipe.interpolation]
    if augment.crop_area:
        largest_px = max([recipe.size_px, *(size_px for _, size_px in recipe.sizes)])
        yield v2.RandomResizedCrop(largest_px, scale=augment.crop_area, interpolation=mode)
    if augment.flip and not augment.pad_px:
        yield v2.RandomHorizontalFlip()
    if augment.jitter:
        yield v2.ColorJitter(augment.jitter, augment.jitter, augment.jitter)
    if augment.auto_augment:
        yield v2.AutoAugment(interpolation=mode)
    if augment.rand_augment is not None:
        yield v2.RandAugment(magnitude=augment.rand_augment, interpolation=mode)
    if augment.erase:
        yield v2.ToImage()
        yield v2.RandomErasing(augment.erase)


def pixel_transform(augment: Augmentation) -> BatchAugment | None:
    """What happens to a batch of squares, cheaply."""
    return PadCropFlip(augment.pad_px, flip=augment.flip) if augment.pad_px else None


def mix_transform(augment: Augmentation, num_classes: int) -> Mix | None:
    """How the samples of a batch are blended, or one of two ways at random."""
    ways: list[nn.Module] = []
    if augment.mixup:
        ways.append(v2.MixUp(alpha=augment.mixup, num_classes=num_classes))
    if augment.cutmix:
        ways.append(v2.CutMix(alpha=augment.cutmix, num_classes=num_classes))
    return v2.RandomChoice(ways) if ways else None
