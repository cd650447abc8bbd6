"""Side encoders: trained without labels, and as good a model file as any other."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from lightning_fabric import Fabric
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from regraft.cli import app
from regraft.errors import Interrupted, RecipeError, SampleError
from regraft.nn.encoder import Encoder
from regraft.recipes.override import override
from regraft.recipes.pictures import prepare
from regraft.recipes.side import SideRecipe, grow_side, preprocessing_of, side_mini, unlabelled
from regraft.train import processes
from regraft.train.journal import Event
from regraft.vision.backbone import embedder
from regraft.vision.modelfile import load_model

NUM_PICTURES = 30
SETTINGS = ("schedule.steps=4", "schedule.warmup_steps=1", "batch_size=8", "size_px=16")


def cpu() -> Fabric:
    return processes.launch(accelerator="cpu")


def recipe(*settings: str) -> SideRecipe:
    return override(side_mini(), (*SETTINGS, *settings))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures that lie about, in no folders of classes."""
    noise = np.random.default_rng(0)
    for index in range(NUM_PICTURES):
        path = tmp_path / "pictures" / ("" if index % 3 else "deeper/still") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (20, 20, 3), np.uint8)).save(path)
    return tmp_path / "pictures"


class StopAfter:
    def __init__(self, step: int) -> None:
        self.step = step

    def start(self, directory: Path, step: int, num_steps: int) -> None:
        pass

    def record(self, event: Event) -> None:
        if event.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)

    def stop(self) -> None:
        pass


def test_pictures_need_no_classes(folder: Path) -> None:
    found = unlabelled(folder)
    assert len(found) == NUM_PICTURES
    assert "deeper/still/0.png" in found.ids
    assert found.classes == ("pictures",)
    with pytest.raises(SampleError, match="no file or folder"):
        unlabelled(folder / "nowhere")


def test_stopped_and_continued_it_is_the_same_encoder(folder: Path, tmp_path: Path) -> None:
    look = prepare(
        folder, None, tmp_path / "whole", max_bad_share=0.0, fabric=cpu(), open_pictures=unlabelled
    )
    grow_side(recipe(), look.train, look.held_out, tmp_path / "whole", fabric=cpu())
    with pytest.raises(Interrupted):
        grow_side(
            recipe(),
            look.train,
            look.held_out,
            tmp_path / "stopped",
            fabric=cpu(),
            watchers=[StopAfter(2)],
        )
    grow_side(recipe(), look.train, look.held_out, tmp_path / "stopped", fabric=cpu())
    whole, stopped = (load_file(tmp_path / run / "model.safetensors") for run in ("whole", "stopped"))
    assert all((stopped[name] == value).all() for name, value in whole.items())


def test_the_command_writes_an_encoder(folder: Path, tmp_path: Path) -> None:
    options = [part for setting in SETTINGS for part in ("--set", setting)]
    done = CliRunner().invoke(
        app, ["side", str(folder), "--out", str(tmp_path / "run"), *options], catch_exceptions=False
    )
    file = tmp_path / "run" / "model.safetensors"
    assert done.stdout.strip() == str(file)
    network, card = load_model(file)
    assert (card.num_classes, card.labels) == (0, ())
    encoder = Encoder(embedder(network), card.preprocess)
    vectors = encoder([str(path) for path in sorted(folder.glob("*.png"))[:3]])
    assert vectors.shape == (3, 256)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_mistakes_are_named(folder: Path, tmp_path: Path) -> None:
    pictures = unlabelled(folder)
    with pytest.raises(RecipeError, match="only 30 pictures"):
        grow_side(side_mini(), pictures, pictures, tmp_path, fabric=cpu())
    for setting, message in {"batch_size=1": "at least 2 pictures", "momentum=2": "momentum is 2"}.items():
        with pytest.raises(RecipeError, match=message):
            recipe(setting)
    assert preprocessing_of(recipe("channels=1")).mean == (0.449,)
