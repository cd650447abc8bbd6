"""Learned ranges put into a recipe."""

from dataclasses import replace
from pathlib import Path

from regraft.recipes.recipe import Recipe
from regraft.vision.range_policy import RangePolicy


def with_policy(recipe: Recipe, path: Path) -> Recipe:
    """The recipe with its pictures varied by the ranges of a policy file, which are no longer learned.

    Raises:
        RecipeError: The file is no policy.
    """
    ranges = tuple(tuple(entry) for entry in RangePolicy.load(path).operations)
    augment = replace(recipe.augment, policy=ranges)
    return replace(recipe, augment=augment, ranges=replace(recipe.ranges, target_db=None))
