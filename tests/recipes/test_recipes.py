"""Recipes: every one can be built, overridden with types, and trained from."""

import json
from dataclasses import asdict

import pytest
import torch

from regraft.augment.protocol import description
from regraft.errors import RecipeError
from regraft.recipes.augmentation import picture_augment, variation_of
from regraft.recipes.catalogue import RECIPES, find_recipe
from regraft.recipes.override import override
from regraft.recipes.preprocessing import preprocessing_of
from regraft.vision.models import create_model


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_built(name: str) -> None:
    recipe = find_recipe(name)
    json.dumps(asdict(recipe))
    with torch.device("meta"):
        create_model(recipe.model, drop_path=recipe.drop_path)
    json.dumps(description(variation_of(recipe)))
    assert (picture_augment(recipe) is not None) == recipe.augment.auto_augment
    assert preprocessing_of(recipe).size_px == recipe.size_px


def test_what_the_papers_state() -> None:
    s2 = find_recipe("imagenet_mobileone_s2")
    assert s2.sizes == ((0, 160), (37, 192), (112, 224))
    assert find_recipe("imagenet_mobileone_s1").sizes == ()
    assert (s2.schedule.decay(0), s2.schedule.decay(s2.schedule.steps)) == (1e-4, 1e-5)
    ma36 = find_recipe("imagenet_fastvit_ma36")
    assert (ma36.drop_path, ma36.augment.mixup, ma36.schedule.weight_decay) == (0.35, 0.8, 0.05)


def test_an_unknown_recipe_gets_a_suggestion() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'mobileone_mini'"):
        find_recipe("mobileone_tiny")


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("schedule.steps=70", ("schedule", "steps"), 70),
        ("schedule.peak_lr=1", ("schedule", "peak_lr"), 1.0),
        ("schedule.clip_norm=none", ("schedule", "clip_norm"), None),
        ("optimizer=adamw", ("optimizer",), "adamw"),
        ("augment.flip=true", ("augment", "flip"), True),
        ("augment.pad_px=none", ("augment", "pad_px"), None),
        ("augment.mixup=1", ("augment", "mixup"), 1.0),
        ("sizes=((0,24),(5,32))", ("sizes",), ((0, 24), (5, 32))),
        ("precision=bf16-mixed", ("precision",), "bf16-mixed"),
    ],
)
def test_override(setting: str, path: tuple[str, ...], value: object) -> None:
    found: object = override(find_recipe("mobileone_mini"), [setting])
    for name in path:
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "setting",
    [
        "schedule.steps=1.5",
        "schedule.steps=true",
        "optimizer=lion",
        "augment.flip=1",
        "sizes=((0,'a'),)",
        "model.name=x",
        "nonsense=1",
        "schedule.steps.more=1",
        "schedule.steps=3",  # fewer than the steps of the warm-up
        "augment.crop_area=(0.1,1.0)",  # beside pad_px
        "augment.erase=2.0",
        "augment.rand_augment=99",
        "augment.jitter=-1.0",
        "augment.mixup=-1.0",
        "augment.pad_px=-3",
        "average_decay=1.5",
        "drop_path=2.0",
        "momentum=-1.0",
        "sizes=((0,0),)",
    ],
)
def test_an_override_of_the_wrong_kind_is_refused(setting: str) -> None:
    with pytest.raises(RecipeError):
        override(find_recipe("mobileone_mini"), [setting])


def test_whole_numbers_in_a_pair_become_floats() -> None:
    recipe = override(find_recipe("imagenet_mobileone_s1"), ["augment.crop_area=(0.5,1)"])
    assert recipe.augment.crop_area == (0.5, 1.0)


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(RecipeError, match=r"drop_path is 2.0.*augment.erase is 3.0"):
        override(find_recipe("mobileone_mini"), ["drop_path=2", "augment.erase=3"])


def test_settings_are_put_in_together() -> None:
    recipe = override(find_recipe("mobileone_mini"), ["schedule.steps=3", "schedule.warmup_steps=1"])
    assert (recipe.schedule.steps, recipe.schedule.warmup_steps) == (3, 1)
