"""Strengths are compared honestly, and a sweep goes on where it was."""

import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.errors import RecipeError
from regraft.recipes import sweep as recipes
from regraft.recipes.recipe import Recipe
from regraft.recipes.small import mobileone_mini
from regraft.recipes.sweep import Sweep, Trial, sweep
from regraft.recipes.sweep_page import write_sweep_page
from regraft.vision.data import ImageSet


def short() -> Recipe:
    recipe = mobileone_mini()
    schedule = replace(recipe.schedule, steps=3, warmup_steps=0, evaluate_every=None)
    return replace(recipe, schedule=schedule, batch_size=8)


@pytest.fixture(scope="module")
def samples() -> ImageSet:
    generator = np.random.default_rng(0)
    shades = [60, 180] * 8
    pictures = tuple(
        Image.fromarray((generator.integers(0, 60, (32, 32, 3)) + shade).astype(np.uint8)) for shade in shades
    )
    return ImageSet(tuple(map(str, range(16))), pictures, (0, 1) * 8, ("dark", "light"))


def swept(samples: ImageSet, out: Path, targets: Sequence[float] = (30.0, 15.0)) -> tuple[Sweep, list[str]]:
    shown: list[str] = []

    @contextmanager
    def bar() -> Generator:
        yield lambda what, done, total: shown.append(what)

    return sweep(short(), samples, samples, out, targets_db=targets, bar=bar), shown


def test_every_strength_is_trained_and_judged_once(samples: ImageSet, tmp_path: Path) -> None:
    pytest.importorskip("imagecorruptions")
    found, shown = swept(samples, tmp_path)
    assert [trial.target_db for trial in found.trials] == [None, 30.0, 15.0]
    assert set(shown) == {"corrupting for not_varied", "corrupting for 30dB", "corrupting for 15dB"}
    assert all(trial.corrupted_top1 is not None for trial in found.trials)
    assert [trial.reached_db is None for trial in found.trials] == [True, False, False]
    assert json.loads((tmp_path / "sweep.json").read_bytes())["best"] == found.best.name
    assert (tmp_path / "15dB" / "policy.json").exists()
    again, shown = swept(samples, tmp_path, (30.0, 15.0, 25.0))
    assert again.trials[:2] == found.trials[:2]
    assert set(shown) == {"corrupting for 25dB"}
    write_sweep_page(tmp_path / "sweep.html", again)
    page = (tmp_path / "sweep.html").read_text()
    assert "25 dB" in page
    assert page.count("<svg") == 1 + 3


def test_without_corruptions_nothing_is_corrupted(samples: ImageSet, tmp_path: Path) -> None:
    found = sweep(short(), samples, samples, tmp_path, targets_db=(20.0,), corrupt=False)
    assert [trial.corrupted_top1 for trial in found.trials] == [None, None]
    write_sweep_page(tmp_path / "sweep.html", found)


def test_the_weaker_of_two_equals_is_best() -> None:
    trials = tuple(
        Trial(target_db=db, reached_db=db, top1=top1, nll=1.0, corrupted_top1=None, run="")
        for db, top1 in ((None, 0.4), (30.0, 0.5), (20.0, 0.5))
    )
    assert Sweep(trials=trials).best.name == "30 dB"


def test_targets_must_make_sense(samples: ImageSet, tmp_path: Path) -> None:
    for targets in ((), (20.0, 20.0)):
        with pytest.raises(RecipeError, match="one or more, each once"):
            sweep(short(), samples, samples, tmp_path, targets_db=targets)
    with pytest.raises(RecipeError, match="target_db is 90"):
        sweep(short(), samples, samples, tmp_path, targets_db=(90.0,))
    assert recipes.TARGETS_DB
