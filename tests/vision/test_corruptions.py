"""Corruptions depend on seed, id, name and severity alone."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("imagecorruptions")

from regraft.errors import MissingExtra, RecipeError, ShapeError
from regraft.vision.corruptions import CORRUPTIONS, FAMILIES, SEVERITIES, check_corruptions, corrupt

RANDOM = {
    *FAMILIES["noise"], "glass_blur", "motion_blur", "snow", "frost", "fog", "elastic_transform"
}  # fmt: skip


def picture(size_px: int = 32) -> np.ndarray:
    """Smooth stripes with some grain."""
    ramp = np.linspace(0, 3 * np.pi, size_px)
    waves = np.stack([np.sin(ramp)[:, None] * np.cos(phase + ramp) for phase in range(3)], axis=2)
    grain = np.random.default_rng(0).normal(0, 6, waves.shape)
    return np.clip(127 + 100 * waves + grain, 0, 255).astype(np.uint8)


def test_the_names_are_those_of_the_package():
    from imagecorruptions import get_corruption_names

    assert list(CORRUPTIONS) == get_corruption_names("common")
    assert len(CORRUPTIONS) == 15
    for family, names in FAMILIES.items():
        assert list(names) == get_corruption_names(family)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_at_every_severity_is_repeatable(name: str):
    clean = picture()
    before = clean.copy()
    seen = [corrupt(clean, name, severity, sample_id="a", seed=3) for severity in SEVERITIES]
    np.random.seed(0)  # Whatever the state of the world is.
    for severity, first in zip(SEVERITIES, seen, strict=True):
        assert (first.shape, first.dtype) == (clean.shape, np.uint8)
        again = corrupt(clean, name, severity, sample_id="a", seed=3)
        np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(clean, before)
    harm = [np.abs(one.astype(int) - clean).mean() for one in seen]
    assert min(harm) > 1
    # Each draws one of six pictures of frost.
    assert harm[-1] > harm[0] or name == "frost"


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_draws_differ_by_seed_and_by_id_where_there_are_any(name: str):
    one = corrupt(picture(), name, 3, sample_id="a", seed=0)
    for sample_id, seed in (("b", 0), ("a", 1)):
        assert np.array_equal(one, corrupt(picture(), name, 3, sample_id=sample_id, seed=seed)) == (
            name not in RANDOM
        )


def test_a_corruption_leaves_the_generators_alone():
    """Python's own is put back too, but the checks of types that tests run with draw from it."""

    def drawn() -> tuple[float, float]:
        return np.random.random(), torch.rand(1).item()

    def seed() -> None:
        np.random.seed(1)
        torch.manual_seed(1)

    seed()
    wanted = drawn()
    for name in CORRUPTIONS:
        seed()
        corrupt(picture(), name, 1, sample_id="a")
        assert drawn() == wanted


SCRIPT = """
import hashlib
import numpy as np
from regraft.vision.corruptions import corrupt
pixels = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
made = [corrupt(pixels, name, 2, sample_id="x") for name in ("impulse_noise", "glass_blur", "fog")]
digest = hashlib.sha256(np.stack(made)).hexdigest()
"""


def test_another_process_makes_the_same_pictures_and_says_nothing():
    command = [sys.executable, "-W", "error", "-c", f"{SCRIPT}print(digest)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    here: dict[str, str] = {}
    exec(SCRIPT, here)
    assert done.stdout.strip() == here["digest"]
    assert done.stderr == ""


@pytest.mark.parametrize("size_px", [33, 47, 224])
def test_pictures_of_other_sizes_keep_them(size_px: int):
    for name in CORRUPTIONS:
        assert corrupt(picture(size_px), name, 5, sample_id="a").shape == (size_px, size_px, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: corrupt(picture(), "fogg", 1, sample_id="a"), RecipeError, "Did you mean 'fog'"),
        (lambda: corrupt(picture(), "fog", 6, sample_id="a"), RecipeError, "severity is 6"),
        (lambda: corrupt(picture(31), "fog", 1, sample_id="a"), ShapeError, "31 x 31 pixels"),
        (lambda: check_corruptions([], [1]), RecipeError, r"corruptions are \[\]; expected at least one"),
        (lambda: check_corruptions(["fog"], [1, 1]), RecipeError, r"severities are \[1, 1\]"),
    ],
)
def test_what_is_refused(call: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(MissingExtra, match=r"pip install 'regraft\[corruptions\]'"):
        corrupt(picture(), "fog", 1, sample_id="a")
