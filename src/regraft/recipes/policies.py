"""Learned ranges put into a recipe."""

from dataclasses import replace
from pathlib import Path

from regraft.errors import RecipeError
from regraft.recipes.recipe import Recipe
from regraft.vision.range_policy import CHANCE, RangePolicy


def with_policy(recipe: Recipe, path: Path) -> Recipe:
    """The recipe with its pictures varied by the ranges of a policy file, which are no longer learned.

    Raises:
        RecipeError: The file is no policy, or not one for a recipe, or the recipe learns ranges itself.
    """
    policy = RangePolicy.load(path)
    if policy.chance != CHANCE:
        raise RecipeError(f"{path} has a chance of {policy.chance:g}; a recipe knows {CHANCE:g} only.")
    if recipe.ranges.target_db is not None:
        raise RecipeError(
            f"ranges.target_db is {recipe.ranges.target_db:g} and there is a policy; expected one of them.",
            hint="A policy holds ranges that were learned before.",
        )
    ranges = tuple(tuple(entry) for entry in policy.operations)
    return replace(recipe, augment=replace(recipe.augment, policy=ranges))
