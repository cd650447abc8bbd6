"""Tables of published reinforcements, for recipes to train on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from regraft.recipes.catalogue import find_recipe
from regraft.recipes.recipe import Augmentation, Recipe
from regraft.recipes.reinforcement import SETTINGS, settings_of, views_of
from regraft.tables.table import Table
from regraft.vision import released
from regraft.vision.data import ImageSet
from regraft.vision.released_config import Pipeline
from regraft.vision.released_folder import open_released


def import_released(
    folder: Path,
    out: Path,
    samples: ImageSet,
    *,
    largest_odd_share: float = 0.001,
    workers: int = 0,
    watch: Callable[[int, int], None] = lambda num_done, num_total: None,
) -> Table:
    """Make a table of published reinforcements, or go on with that, to train on as on one recorded here.

    Args:
        folder: What was published, unpacked: `0.pth.tar` and so on, and `config.pth.tar`.
        out: The table's folder.
        samples: All pictures of the folder that was recorded. Training sees the same ids, so it is told which
            other pictures are held out.
        largest_odd_share: See `vision.released.import_released`.
        workers: Processes that read; 0 reads here.
        watch: Told how many views are done, of how many.

    Raises:
        SampleError, RecipeError, TableError: As `vision.released.import_released` does.
    """
    opened = open_released(folder)
    recipe = recipe_of(opened.pipeline)
    return released.import_released(
        opened,
        out,
        views_of(recipe, samples, seed=0),
        notes={SETTINGS: settings_of(recipe)},
        largest_odd_share=largest_odd_share,
        workers=workers,
        watch=watch,
    )


def recipe_of(pipeline: Pipeline) -> Recipe:
    """A recipe that shows such views as were recorded.

    What only decides how often something is drawn, as the chance of mixing, stays a recipe's own: of recorded
    views all is read, and it is for the one view in a hundred that is fresh.
    """
    scale = pipeline.setting("random_resized_crop", "scale")
    return replace(
        find_recipe("mobileone_mini"),
        size_px=pipeline.size_px,
        sizes=(),
        crop=0.875 if scale else 1.0,
        interpolation="bilinear",
        channels=3,
        augment=Augmentation(
            crop_area=scale and (float(scale[0]), float(scale[1])),
            pad_px=pipeline.setting("random_crop", "padding"),
            flip="random_horizontal_flip" in pipeline.stages,
            rand_augment=pipeline.setting("rand_augment", "magnitude"),
            rand_augment_interpolation="nearest",
            erase=_number(pipeline, "random_erase", "p"),
            mixup=_number(pipeline, "mixup", "alpha"),
            cutmix=_number(pipeline, "cutmix", "alpha"),
        ),
    )


def _number(pipeline: Pipeline, stage: str, name: str) -> float | None:
    value = pipeline.setting(stage, name)
    return None if value is None else float(value)
