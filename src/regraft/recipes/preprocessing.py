"""What a recipe makes of a picture before anything random."""

from dataclasses import replace

from regraft.recipes.recipe import Recipe
from regraft.vision.preprocess import Preprocess

GREY = Preprocess(channels=1, mean=(0.449,), std=(0.226,))
"""ImageNet's mean and deviation, averaged over the colours."""


def preprocessing_of(recipe: Recipe) -> Preprocess:
    """What a network trained by `recipe` expects of a picture."""
    start = GREY if recipe.channels == 1 else Preprocess()
    return replace(start, size_px=recipe.size_px, crop=recipe.crop, interpolation=recipe.interpolation)


def framing_of(recipe: Recipe) -> Preprocess:
    """The same in training, where the centre crop after a random one keeps everything."""
    preprocess = preprocessing_of(recipe)
    return replace(preprocess, crop=1.0) if recipe.augment.crop_area else preprocess
