"""The command line: instant help, honest exit codes, nothing written without proof."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from regraft.cli import app, main
from regraft.errors import PlaceError, RegraftError, SampleError, WeightsError
from regraft.nn.reparam import is_fused
from regraft.vision.modelfile import ModelCard, load_model, save_model
from regraft.vision.models import create_model, list_models
from regraft.vision.preprocess import Preprocess
from regraft.vision.weights import to_timm

VERBS = [
    "demo",
    "train",
    "side",
    "evaluate",
    "reinforce record",
    "reinforce verify",
    "reinforce show",
    "reinforce export",
    "reinforce import",
    "reinforce import-released",
    "ranges sweep",
    "fuse",
    "export",
    "import",
    "publish",
    "models",
    "recipes",
    "gallery add",
    "gallery search",
    "gallery status",
    "upgrade plan",
    "upgrade run",
    "upgrade pause",
    "upgrade status",
    "upgrade rollback",
    "upgrade finish",
]


def run(*arguments: str) -> str:
    """Run a verb in this process; its errors reach the test."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(name="model")
def _model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = create_model("mobileone_mini", num_classes=3).eval()
    card = ModelCard(
        architecture="mobileone_mini",
        num_classes=3,
        preprocess=Preprocess(size_px=32, crop=1.0),
        labels=("a", "b", "c"),
    )
    save_model(tmp_path / "model.safetensors", network, card)
    return tmp_path / "model.safetensors"


@pytest.fixture(name="pictures")
def _pictures(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0)
    for label in ("cat", "dog"):
        for index in range(12):
            path = tmp_path / "pictures" / label / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shade = 40 if label == "cat" else 200
            Image.fromarray(noise.integers(0, 50, (32, 32, 3), np.uint8) + np.uint8(shade)).save(path)
    return tmp_path / "pictures"


@pytest.mark.parametrize("arguments", ["--help", *(f"{verb} --help" for verb in VERBS)])
def test_help_does_not_wait_for_torch(arguments: str) -> None:
    script = (
        "import sys, atexit\n"
        "heavy = {'torch', 'numpy', 'lancedb', 'PIL'}\n"
        "atexit.register(lambda: print('heavy:', sorted(heavy & set(sys.modules))))\n"
        f"sys.argv = ['regraft', *{arguments.split()}]\n"
        "from regraft.cli import main\nmain()"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert "Usage: regraft" in done.stdout
    assert "heavy: []" in done.stdout
    # Processor time, which other programs do not lengthen; it took 0.2 s where this was written.
    assert after.ru_utime - before.ru_utime < 1.0


def test_version() -> None:
    assert run("--version").startswith("regraft ")


def test_a_mistake_is_one_message_and_exit_code_1(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "regraft", "fuse", tmp_path / "none.safetensors", "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        env=os.environ | {"NO_COLOR": "1"},
    )
    assert done.returncode == 1
    assert done.stderr == f"regraft: There is no file {tmp_path / 'none.safetensors'}.\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("regraft.cli.app", broken)
    with pytest.raises(ZeroDivisionError):
        main()


def test_fuse_proves_and_writes(model: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "fused.safetensors"
    printed = run("fuse", model, "--out", out, "--images", pictures)
    assert printed.startswith("same: worst difference")
    assert "40 inputs" in printed
    fused, card = load_model(out)
    assert is_fused(fused)
    assert card.fused
    assert card.labels == ("a", "b", "c")
    with pytest.raises(WeightsError, match="no branches to fuse"):
        run("fuse", out, "--out", tmp_path / "again.safetensors")


def test_fuse_writes_nothing_if_the_proof_fails(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "fused.safetensors"
    result = CliRunner().invoke(
        app, ["fuse", str(model), "--out", str(out), "--tolerance", "1e-15", "--json"]
    )
    assert result.exit_code == 1
    assert json.loads(result.stdout)["worst_relative"] > 1e-15
    assert not out.exists()


def test_a_damaged_picture_is_named_and_left_out_of_the_proof(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "cat" / "0.png").write_bytes(b"")
    arguments = ["fuse", str(model), "--out", str(tmp_path / "fused"), "--images", str(pictures)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "39 inputs" in result.stdout
    assert str(pictures / "cat" / "0.png") in result.stderr


def test_an_empty_folder_proves_nothing(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SampleError, match="no pictures in"):
        run("fuse", model, "--out", tmp_path / "fused", "--images", tmp_path / "empty")
    assert not (tmp_path / "fused").exists()


@pytest.mark.parametrize("place", ["folder.onnx", "file/inside.onnx", "/proc/nowhere/x.onnx"])
def test_a_place_that_cannot_be_written_is_refused(
    place: str, model: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").touch()
    out = tmp_path / place
    before = sorted(tmp_path.rglob("*"))
    for command in (["fuse", model], ["export", model], ["publish", model], ["train", pictures]):
        if (command[0], place) == ("train", "folder.onnx"):
            continue  # A run directory may be there.
        with pytest.raises(PlaceError):
            run(*command, "--out", out)
    assert sorted(tmp_path.rglob("*")) == before


def test_labels_must_be_readable_and_as_many_as_the_classes(tmp_path: Path) -> None:
    arguments = ["import", tmp_path / "none.pth", "--model", "mobileone_s1", "--out", tmp_path / "out"]
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").touch()
    for name, message in {
        "missing": "cannot be read",
        "binary": "cannot be read",
        "empty": "0 labels",
    }.items():
        with pytest.raises(WeightsError, match=message):
            run(*arguments, "--labels", tmp_path / name)


def test_export_carries_preprocessing_and_labels(model: Path, tmp_path: Path) -> None:
    from regraft.deploy import onnx

    with pytest.raises(RegraftError, match=r"[Ff]use"):
        run("export", model, "--out", tmp_path / "model.onnx")
    fused = tmp_path / "fused.safetensors"
    run("fuse", model, "--out", fused)
    facts = json.loads(run("export", fused, "--out", tmp_path / "model.onnx", "--json"))
    assert facts["parity"]["passed"]
    metadata = onnx.read_metadata(tmp_path / "model.onnx")
    assert json.loads(metadata["labels"]) == ["a", "b", "c"]
    assert json.loads(metadata["preprocess"])["size_px"] == 32


def test_train_then_again_is_finished(pictures: Path, tmp_path: Path) -> None:
    arguments = ["train", pictures, "--out", tmp_path / "run"]
    settings = ["schedule.steps=3", "schedule.warmup_steps=1", "batch_size=8"]
    command = [*arguments, *(part for setting in settings for part in ("--set", setting))]
    assert run(*command).strip() == str(tmp_path / "run" / "model.safetensors")
    network, card = load_model(tmp_path / "run" / "model.safetensors")
    assert card.labels == ("cat", "dog")
    assert network.num_classes == 2
    assert len((tmp_path / "run" / "events.jsonl").read_text().splitlines()) == 3
    run(*command)
    assert len((tmp_path / "run" / "events.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("schedule.step=3", "Did you mean 'steps'"),
        ("schedule.steps=many", "schedule.steps is 'many'; expected int"),
        ("schedule=3", "group of settings"),
        ("batch_size", "has no value"),
        ("batch_size=1000", "only"),
        ("size_px=0", "size_px is 0"),
    ],
)
def test_bad_settings(setting: str, message: str, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(RegraftError, match=message):
        run("train", pictures, "--out", tmp_path / "run", "--set", setting)


def test_import_and_publish(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    network = create_model("mobileone_s1", num_classes=3).eval()
    weights = to_timm(network)
    save_file(weights, tmp_path / "timm.safetensors")
    out = tmp_path / "model.safetensors"
    run(
        "import", tmp_path / "timm.safetensors", "--model", "mobileone_s1", "--num-classes", "3", "--out", out
    )
    imported, card = load_model(out)
    assert card.preprocess == Preprocess(size_px=224, crop=0.9)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(imported(x), network(x))
    run("publish", out, "--out", tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], value) for name, value in weights.items())


def test_models() -> None:
    lines = {line.split()[0]: line.split()[1:] for line in run("models").splitlines()}
    assert lines["mobileone_s1"] == ["224", "4.83", "4.76", "830.06", "825.06"]
    assert len(lines) == 1 + len(list_models())


def test_recipes() -> None:
    recipes = json.loads(run("recipes", "--json"))
    assert recipes["imagenet_mobileone_s2"]["augment"]["auto_augment"] is True
    assert "mobileone_mini" in run("recipes")
