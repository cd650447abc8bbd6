"""Whole training runs: what they are judged on, what they refuse, and that stopping them changes nothing."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from safetensors.torch import load_file

from regraft.errors import Interrupted, RunError, SampleError
from regraft.recipes.catalogue import find_recipe
from regraft.recipes.override import override
from regraft.recipes.pictures import Pictures, prepare
from regraft.recipes.recipe import Augmentation, Recipe
from regraft.recipes.training import grow
from regraft.train import processes
from regraft.train.journal import Event
from regraft.vision.data import from_folder

EVERYTHING = Augmentation(crop_area=(0.3, 1.0), flip=True, rand_augment=5, erase=0.5, mixup=0.2, cutmix=1.0)


def write_pictures(
    folder: Path, num: int = 12, classes: tuple[str, ...] = ("cat", "dog"), seed: int = 0
) -> Path:
    noise = np.random.default_rng(seed)
    for shade, label in enumerate(classes):
        (folder / label).mkdir(parents=True)
        for index in range(num):
            pixels = noise.integers(0, 60, (32, 32, 3), np.uint8) + np.uint8(120 * shade)
            Image.fromarray(pixels).save(folder / label / f"{index}.png")
    return folder


def cpu() -> Fabric:
    return processes.launch(accelerator="cpu")


def look(data: Path, run: Path, held_out: Path | None = None) -> Pictures:
    return prepare(data, held_out, run, max_bad_share=0.05, fabric=cpu())


def recipe(*settings: str, augment: Augmentation | None = None) -> Recipe:
    small = ("schedule.steps=6", "schedule.warmup_steps=1", "batch_size=8", *settings)
    made = override(find_recipe("fastvit_mini"), small)
    return made if augment is None else replace(made, augment=augment)


class StopAfter:
    """Sends this process SIGTERM once a step is made."""

    def __init__(self, step: int) -> None:
        self.step = step

    def start(self, directory: Path, step: int, num_steps: int) -> None:
        pass

    def record(self, event: Event) -> None:
        if event.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)

    def stop(self) -> None:
        pass


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stopped_run_ends_as_one_that_was_left_alone(workers: int, tmp_path: Path) -> None:
    pictures = look(write_pictures(tmp_path / "pictures"), tmp_path)
    settings = ("drop_path=0.2", "schedule.accumulate=2", "sizes=((0,24),(1,32))")
    varied = recipe(*settings, augment=EVERYTHING)
    for name, steps in {"whole": [], "stopped": [2, 4]}.items():
        for step in steps:
            with pytest.raises(Interrupted):
                grow(
                    varied,
                    pictures.train,
                    pictures.held_out,
                    tmp_path / name,
                    workers=workers,
                    watchers=[StopAfter(step)],
                    fabric=cpu(),
                )
        grow(varied, pictures.train, pictures.held_out, tmp_path / name, workers=workers, fabric=cpu())
    whole, stopped = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(value, stopped[name]) for name, value in whole.items())
    assert (tmp_path / "whole" / "events.jsonl").read_bytes() == (
        tmp_path / "stopped" / "events.jsonl"
    ).read_bytes()


def test_a_run_knows_its_pictures(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "a")
    first = look(data, tmp_path / "run")
    grow(recipe(), first.train, first.held_out, tmp_path / "run", fabric=cpu())
    other = look(write_pictures(tmp_path / "b", seed=1), tmp_path / "other")
    with pytest.raises(RunError, match=r"trained_on\.digest"):
        grow(recipe(), other.train, other.held_out, tmp_path / "run", fabric=cpu())
    next(path for path in data.rglob("*.png") if path.name == "3.png").unlink()
    fewer = look(data, tmp_path / "run")
    with pytest.raises(RunError, match=r"num_pictures was \d+ and is"):
        grow(recipe(), fewer.train, fewer.held_out, tmp_path / "run", fabric=cpu())


def test_no_copy_of_a_held_out_picture_is_trained_on(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "pictures")
    for path in sorted(data.rglob("*.png")):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    pictures = look(data, tmp_path / "run")
    contents = [
        {Path(str(source)).read_bytes() for source in part.sources}
        for part in (pictures.train, pictures.held_out)
    ]
    assert contents[1]
    assert not contents[0] & contents[1]


def test_nothing_held_out_is_refused_before_training(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "pictures", num=1)
    with pytest.raises(SampleError, match="too few pictures to hold any out"):
        look(data, tmp_path / "run")
    whole = from_folder(data)
    with pytest.raises(SampleError, match="no held-out pictures"):
        grow(recipe(), whole, whole.take([]), tmp_path / "run", fabric=cpu())


def test_other_classes_in_the_held_out_pictures_are_refused(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "pictures")
    other = write_pictures(tmp_path / "other", classes=("cat", "cow"))
    with pytest.raises(SampleError, match="has the classes cat, cow"):
        look(data, tmp_path / "run", other)


def test_a_class_that_cannot_be_judged_is_said(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "pictures")
    (data / "lonely").mkdir()
    shutil.copy(data / "cat" / "0.png", data / "lonely" / "0.png")
    Image.new("RGB", (32, 32), "red").save(data / "lonely" / "0.png")
    (inspection,) = look(data, tmp_path / "run").inspections
    assert "class 'lonely' has no image in the held-out part" in str(inspection)


def test_pictures_that_turn_bad_are_named_whenever_it_happened(tmp_path: Path) -> None:
    pictures = look(write_pictures(tmp_path / "pictures"), tmp_path / "run")
    # A random crop is drawn anew in every epoch, so pictures are not kept in memory.
    varied = recipe(augment=Augmentation(crop_area=(0.3, 1.0)))
    spoilt = [Path(str(part.sources[0])) for part in (pictures.train, pictures.held_out)]
    for path in spoilt:
        path.write_bytes(b"")
    for _ in range(2):
        left_out = grow(varied, pictures.train, pictures.held_out, tmp_path / "run", fabric=cpu())
        assert all(str(path) in str(left_out) for path in spoilt)
