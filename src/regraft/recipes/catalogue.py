"""Every recipe by name."""

from collections.abc import Callable
from functools import partial

from regraft.errors import RecipeError, nearest
from regraft.recipes import imagenet, small
from regraft.recipes.recipe import Recipe

RECIPES: dict[str, Callable[[], Recipe]] = {
    "mobileone_mini": small.mobileone_mini,
    "fastvit_mini": small.fastvit_mini,
    **{f"imagenet_mobileone_s{n}": partial(imagenet.mobileone, f"s{n}") for n in range(5)},
    **{f"imagenet_fastvit_{name}": partial(imagenet.fastvit, name) for name in imagenet.DROP_PATH},
}


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
        RecipeError: There is none, with the nearest name as a hint.
    """
    if name not in RECIPES:
        hint = f"{nearest(name, RECIPES)}regraft recipes lists them."
        raise RecipeError(f"No recipe named {name!r}.", hint=hint)
    return RECIPES[name]()
