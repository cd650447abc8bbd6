"""Recording a teacher's answers for a recipe, and training by them."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from regraft.errors import RecipeError, TableError
from regraft.recipes.augmentation import picture_augment, variation_of
from regraft.recipes.preprocessing import framing_of
from regraft.recipes.recipe import Augmentation, Recipe
from regraft.tables.table import Table
from regraft.tables.topk import TopK
from regraft.vision.blocks import ANSWERS
from regraft.vision.data import ImageSet, identity
from regraft.vision.recorded import Recorded
from regraft.vision.reinforce import describe_views
from regraft.vision.views import Views

SETTINGS = "recipe"
"""Where a table's origin holds the settings of the recipe that decide its views."""
DECISIVE = ("augment", "size_px", "crop", "interpolation", "channels")


def views_of(recipe: Recipe, samples: ImageSet, *, seed: int) -> Views:
    """The views that a recipe shows of some pictures, to be recorded.

    Nothing is kept in memory: a recording comes to each picture once, for all of its views.

    Raises:
        RecipeError: They cannot be repeated, or have several sizes.
    """
    _check_repeatable(recipe)
    if recipe.ranges.target_db is not None:
        raise RecipeError(
            f"ranges.target_db is {recipe.ranges.target_db:g}, but recording learns nothing; expected none.",
            hint="Learn ranges first, with regraft train, and record with --policy.",
        )
    return Views(samples, framing_of(recipe), variation_of(recipe), seed, memory_bytes=0)


def _check_repeatable(recipe: Recipe) -> None:
    """Refuse views that no table can be about."""
    if picture_augment(recipe) is not None:
        raise RecipeError(
            "AutoAugment's draws cannot be recorded; expected augment.auto_augment to be off.",
            hint="--set augment.auto_augment=false, and augment.rand_augment=9 in its place.",
        )
    if recipe.sizes:
        raise RecipeError(
            f"The recipe shows pictures of growing sizes, {recipe.sizes}; a table is of one size.",
            hint="--set sizes=()",
        )


def settings_of(recipe: Recipe) -> dict[str, object]:
    """What of a recipe decides its views, as JSON values."""
    whole = asdict(recipe)
    return {name: whole[name] for name in DECISIVE}


def with_views_of(recipe: Recipe, table: Table) -> Recipe:
    """The recipe with the augmentation, size and colours that a table was recorded with.

    Raises:
        TableError: The table was not recorded by a recipe.
    """
    settings = table.origin.get(SETTINGS)
    if settings is None:
        raise TableError(f"{table.folder} does not say by which recipe it was recorded, expected one.")
    others = {name: settings[name] for name in DECISIVE if name != "augment"}
    return replace(recipe, augment=_augmentation(settings["augment"]), sizes=(), **others)


def targets_of(recipe: Recipe, samples: ImageSet, table: Table, *, seed: int) -> tuple[Recorded, int]:
    """A table as targets of a training run, and the seed of its views.

    Args:
        recipe: Of the run. Its views must be those of the table.
        samples: Trained on.
        table: The teacher's answers.
        seed: Of the order in which views are shown.

    Raises:
        TableError: The table is of other pictures, classes or views.
        RecipeError: The run learns ranges, too.
    """
    if recipe.ranges.target_db is not None:
        raise RecipeError(
            "The recipe learns ranges and reads recorded answers at once. The answers are about the recorded "
            "views; if ranges then change a view, its answer is about another picture.",
            hint="Learn ranges first, record a table with --policy POLICY, and train on that.",
        )
    _check_repeatable(recipe)
    view_seed = int(table.origin["views"]["seed"])
    views = Views(samples, framing_of(recipe), variation_of(recipe), view_seed, memory_bytes=0)
    table.require({"views": describe_views(views)})
    if views.variation.mix is not None:
        # Partners are drawn from the whole set, so it must be the set that was recorded.
        table.require({"pictures": identity(samples)})
    imitation = recipe.imitation
    column = table.columns.get(ANSWERS)
    if views.variation.mix and isinstance(column, TopK) and column.k < 2 and imitation.share < 1:
        raise RecipeError(
            "The table has one class of each answer, but the labels of a mixed fresh view are two.",
            hint="--set imitation.share=1 shows no fresh views.",
        )
    recorded = Recorded(table, samples, share=imitation.share, temperature=imitation.temperature, seed=seed)
    return recorded, view_seed


def _augmentation(fields: Mapping[str, Any]) -> Augmentation:
    """Settings out of JSON, which has lists where settings have tuples."""
    return Augmentation(**{name: _as_tuples(value) for name, value in fields.items()})


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
