"""`regraft gallery`: what it prints and writes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import regraft
from regraft.cli.gallery import app
from regraft.errors import PlaceError, SampleError
from regraft.vision.modelfile import ModelCard, save_model
from regraft.vision.preprocess import Preprocess

NUM_PICTURES = 30


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, pictures and one file that only says it is one."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = regraft.create_model("mobileone_mini", num_classes=3)
    card = ModelCard(
        architecture="mobileone_mini", num_classes=3, preprocess=Preprocess(size_px=16, crop=1.0)
    )
    save_model(tmp_path / "model.safetensors", regraft.fuse(model.eval()), card)
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for number in range(NUM_PICTURES):
        picture = Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8))
        picture.save(tmp_path / "pictures" / f"{number:02}.png")
    (tmp_path / "pictures" / "bad.png").write_text("hello")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_add_search_status(home: Path) -> None:
    added = run("add", "gallery", "pictures", "--model", "model.safetensors")
    assert added.exit_code == 0
    assert added.stderr == "", "a bar only in a terminal"
    assert f"{NUM_PICTURES} added" in added.stdout
    assert "1 bad" in added.stdout
    assert "bad.png: not an image" in added.stdout

    again = run("add", "gallery", "pictures")
    assert "0 added" in again.stdout
    assert f"{NUM_PICTURES} in the gallery already" in again.stdout

    found = run("search", "gallery", "pictures/07.png", "-k", "3", "--html", "out.html")
    assert len(found.stdout.splitlines()) == 5
    assert f"1.000  {home / 'pictures' / '07.png'}" in found.stdout
    assert (home / "out.html").read_text().count("<figure>") == 4

    (home / "pictures" / "07.png").unlink()
    state = run("status", "gallery", "--check-sources").stdout
    assert f"{NUM_PICTURES} native" in state
    assert "mobileone_mini (fused)" in state
    assert "1 sources" in state
    assert str(home / "pictures" / "07.png") in state


def test_json(home: Path) -> None:
    added = json.loads(run("add", "gallery", "pictures", "--model", "model.safetensors", "--json").stdout)
    assert added["num_new"] == added["num_rows"] == NUM_PICTURES
    assert added["bad"][0]["path"] == "pictures/bad.png"

    (answer,) = json.loads(run("search", "gallery", "pictures/07.png", "--exclude-itself", "--json").stdout)
    assert answer["query"] == "pictures/07.png"
    assert len(answer["hits"]) == 10
    assert answer["hits"][0]["source"] != str(home / "pictures" / "07.png")

    state = json.loads(run("status", "gallery", "--json").stdout)
    assert state["rows"] == {"native": NUM_PICTURES, "transformed": 0}
    assert state["num_indexed"] is None
    assert state["missing"] is None


@pytest.mark.parametrize("out", ["pictures", "model.safetensors/out.html"])
def test_a_page_that_cannot_be_written_is_refused_before_the_search(home: Path, out: str) -> None:
    with pytest.raises(PlaceError, match=r"pictures is a folder|model\.safetensors is not a folder"):
        run("search", "no gallery here", "pictures/07.png", "--html", out)


def test_a_mistake_is_one_clean_message(home: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "regraft",
        "gallery",
        "search",
        "gallery",
        "07.png",
        "--html",
        "pictures",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("regraft: pictures is a folder")
    assert "Traceback" not in done.stderr


def test_too_many_bad_pictures(home: Path) -> None:
    with pytest.raises(SampleError, match=r"more than the 1\.0% allowed"):
        run("add", "gallery", "pictures", "--model", "model.safetensors", "--max-bad-share", "0.01")


def test_help_is_light() -> None:
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom regraft.cli.gallery import app\n"
        "for verb in [], ['add'], ['search'], ['status']:\n"
        "    assert CliRunner().invoke(app, [*verb, '--help']).exit_code == 0\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "numpy", "lancedb", "PIL", "jinja2"}
