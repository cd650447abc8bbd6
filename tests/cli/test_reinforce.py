"""`regraft reinforce`, and training on what it records."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from regraft.cli import app
from regraft.errors import RecipeError, RunError, SampleError, TableError, WeightsError
from regraft.recipes.reinforcement import with_views_of
from regraft.recipes.small import mobileone_mini
from regraft.recipes.teachers import load_teachers
from regraft.tables.table import open_table
from regraft.vision.modelfile import ModelCard, save_model
from regraft.vision.models import create_model
from regraft.vision.preprocess import Preprocess

PREPROCESS = Preprocess(32, crop=1.0)
SHORT = ("--set", "schedule.steps=4", "--set", "schedule.warmup_steps=0", "--set", "batch_size=8")


def run(*arguments: object) -> str:
    """Run a verb in this process; its errors reach the test."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, noise = tmp_path_factory.mktemp("cli") / "pictures", np.random.default_rng(0)
    for shade, label in ((40, "cat"), (120, "cow"), (200, "dog")):
        (root / label).mkdir(parents=True)
        for index in range(14):
            values = noise.integers(0, 50, (32, 32, 3), np.uint8) + np.uint8(shade)
            Image.fromarray(values).save(root / label / f"{index}.png")
    return root


def write_model(path: Path, seed: int, labels: tuple[str, ...] = ("cat", "cow", "dog")) -> Path:
    torch.manual_seed(seed)
    network = create_model("mobileone_mini", num_classes=len(labels)).eval()
    card = ModelCard(
        architecture="mobileone_mini", num_classes=len(labels), preprocess=PREPROCESS, labels=labels
    )
    save_model(path, network, card)
    return path


@pytest.fixture(scope="module")
def model(pictures: Path) -> Path:
    return write_model(pictures.parent / "teacher.safetensors", 0)


@pytest.fixture(scope="module")
def table(pictures: Path, model: Path) -> Path:
    out = pictures.parent / "table"
    settings = "--set", "augment.flip=true", "--set", "augment.rand_augment=5"
    told = json.loads(
        run(
            "reinforce",
            pictures,
            "--teacher",
            model,
            "--draws",
            4,
            "--top-k",
            2,
            *settings,
            "--out",
            out,
            "--json",
        )
    )
    assert told["num_draws"] == 4
    assert told["columns"]["soft"]["k"] == 2
    return out


def test_a_table_is_recorded_verified_and_learned_from(
    pictures: Path, model: Path, table: Path, tmp_path: Path
) -> None:
    again = run("reinforce", "record", pictures, "--teacher", model, "--draws", 4, "--top-k", 2,
                "--set", "augment.flip=true", "--set", "augment.rand_augment=5", "--out", table)  # fmt: skip
    assert again == run("reinforce", "show", table)
    assert "4 views of" in again
    found = json.loads(
        run("reinforce", "verify", table, pictures, "--teacher", model, "--share", 1, "--json")
    )
    assert found["share_equal"] == 1.0
    assert found["excess_kl"] == 0.0
    assert found["same_teacher"]
    run("train", pictures, "--table", table, "--out", tmp_path / "run", "--workers", 0, *SHORT)
    kept = json.loads((tmp_path / "run" / "recipe.json").read_bytes())
    assert kept["table"] == open_table(table).fingerprint
    assert kept["recipe"]["augment"]["rand_augment"] == 5
    events = (tmp_path / "run" / "events.jsonl").read_text()
    assert '"imitation"' in events
    with pytest.raises(RunError, match="table was"):
        run("train", pictures, "--out", tmp_path / "run", "--workers", 0, *SHORT,
            "--set", "augment.flip=true", "--set", "augment.rand_augment=5")  # fmt: skip


def test_another_teacher_is_found_out(pictures: Path, table: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other.safetensors", 1)
    with pytest.raises(TableError, match="nats from what the teacher says now"):
        run("reinforce", "verify", table, pictures, "--teacher", other, "--tolerance", 1e-4)
    lenient = "--share", 0.5, "--tolerance", 1e4
    first = run("reinforce", "verify", table, pictures, "--teacher", other, *lenient, "--seed", 1)
    assert "ANOTHER teacher" in first
    assert "--seed 1" in first
    seeds = {
        json.loads(run("reinforce", "verify", table, pictures, "--teacher", other, *lenient, "--json"))[
            "seed"
        ]
        for _ in range(2)
    }
    assert len(seeds) == 2


def test_imitating_needs_a_table(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is none"):
        run("train", pictures, "--out", tmp_path / "run", "--workers", 0, *SHORT,
            "--set", "imitation.label_weight=0.5")  # fmt: skip


def test_other_pictures_and_views_are_refused(
    pictures: Path, table: Path, model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "pictures"
    for path in pictures.rglob("*.png"):
        (other / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.open(path).point(lambda value: 255 - value).save(other / path.parent.name / path.name)
    with pytest.raises(TableError, match="samples are not among"):
        run("train", other, "--table", table, "--out", tmp_path / "run", "--workers", 0, *SHORT)
    with pytest.raises(TableError, match="variation"):
        run("train", pictures, "--table", table, "--out", tmp_path / "run", "--workers", 0, *SHORT,
            "--set", "augment.rand_augment=6")  # fmt: skip
    with pytest.raises(TableError, match="pictures"):
        run("reinforce", "verify", table, other, "--teacher", model)


def test_ranges_are_not_learned_on_recorded_views(pictures: Path, table: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="about another picture"):
        run("train", pictures, "--table", table, "--out", tmp_path / "run", "--workers", 0, *SHORT,
            "--set", "ranges.target_db=20")  # fmt: skip


def test_learned_ranges_are_written_and_recorded_with(pictures: Path, model: Path, tmp_path: Path) -> None:
    learned = tmp_path / "learned"
    run("train", pictures, "--out", learned, "--workers", 0, *SHORT, "--set", "ranges.target_db=20")
    policy = json.loads((learned / "policy.json").read_bytes())
    assert (learned / "ranges.svg").read_text().count("brightness") >= 1
    assert set(policy["operations"]) == {"brightness", "contrast", "noise"}
    out = tmp_path / "table"
    run(
        "reinforce",
        pictures,
        "--teacher",
        model,
        "--draws",
        2,
        "--policy",
        learned / "policy.json",
        "--out",
        out,
    )
    opened = open_table(out)
    recipe = with_views_of(mobileone_mini(), opened)
    assert [name for name, *_ in recipe.augment.policy or ()] == ["brightness", "contrast", "noise"]
    run("train", pictures, "--table", out, "--out", tmp_path / "run", "--workers", 0, *SHORT)
    run(
        "train",
        pictures,
        "--policy",
        learned / "policy.json",
        "--out",
        tmp_path / "plain",
        "--workers",
        0,
        *SHORT,
    )


def test_views_that_cannot_be_repeated_are_refused(pictures: Path, model: Path, tmp_path: Path) -> None:
    record = "reinforce", pictures, "--teacher", model, "--out", tmp_path / "t"
    with pytest.raises(RecipeError, match="AutoAugment"):
        run(*record, "--set", "augment.auto_augment=true")
    with pytest.raises(RecipeError, match="growing sizes"):
        run(*record, "--set", "sizes=((0,16),)")
    with pytest.raises(RecipeError, match="recording learns nothing"):
        run(*record, "--set", "ranges.target_db=20")
    assert not (tmp_path / "t").exists()


def test_a_table_is_not_trained_on_with_other_views(pictures: Path, table: Path, tmp_path: Path) -> None:
    train = "train", pictures, "--table", table, "--out", tmp_path / "run", "--workers", 0, *SHORT
    with pytest.raises(RecipeError, match="AutoAugment"):
        run(*train, "--set", "augment.auto_augment=true")
    with pytest.raises(RecipeError, match="growing sizes"):
        run(*train, "--set", "sizes=((0,16),)")


def test_workers_record_the_same(pictures: Path, model: Path, table: Path, tmp_path: Path) -> None:
    settings = "--set", "augment.flip=true", "--set", "augment.rand_augment=5"
    sizes = "--draws", 4, "--top-k", 2, "--workers", 2
    recorded = run(
        "reinforce", pictures, "--teacher", model, *sizes, *settings, "--out", tmp_path / "t", "--json"
    )
    told = json.loads(recorded)
    assert told["fingerprint"] == open_table(table).fingerprint


class Bright(nn.Module):
    """Three logits from the mean of each picture."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([-mean, 0 * mean, mean], dim=1)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_teachers_of_every_kind(pictures: Path, model: Path, tmp_path: Path) -> None:
    classes = ("cat", "cow", "dog")
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    told = load_teachers([str(model)], classes)(pixels)

    fused, exported = tmp_path / "fused.safetensors", tmp_path / "model.onnx"
    run("fuse", model, "--out", fused)
    run("export", fused, "--out", exported)
    torch.testing.assert_close(load_teachers([str(exported)], classes)(pixels), told, rtol=1e-4, atol=1e-5)

    script = tmp_path / "script.pt"
    torch.jit.trace(Bright(), torch.zeros(1, 3, 32, 32)).save(script)
    with pytest.raises(WeightsError, match="does not say how to use it"):
        load_teachers([str(script)], classes)
    beside = tmp_path / "script.pt.json"
    beside.write_text(json.dumps(PREPROCESS.describe() | {"labels": ["dog", "cow", "cat"]}))
    reversed_ = load_teachers([str(script)], classes)(pixels)
    torch.testing.assert_close(reversed_, Bright()(PREPROCESS.normalise(pixels)).log_softmax(1).flip(1))

    both = load_teachers([str(model), str(script)], classes)(pixels)
    torch.testing.assert_close(both.exp(), (told.exp() + reversed_.exp()) / 2)

    more = write_model(tmp_path / "more.safetensors", 2, ("ant", "dog", "bee", "cat", "cow"))
    part = load_teachers([str(more)], classes)(pixels)
    torch.testing.assert_close(part.exp().sum(1), torch.ones(4))
    with pytest.raises(SampleError, match="does not know"):
        load_teachers([str(model)], ("cat", "cow", "yak"))
    with pytest.raises(WeightsError, match="There is no file"):
        load_teachers(["nowhere.safetensors"], classes)


def test_a_teacher_of_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=3).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    pixels = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    told = load_teachers([f"timm:test_vit={tmp_path / 'weights.pth'}"], ("a", "b", "c"))(pixels)
    assert told.shape == (2, 3)
    config = network.pretrained_cfg
    preprocess = replace(Preprocess(config["input_size"][-1]), mean=config["mean"], std=config["std"])
    with torch.no_grad():
        expected = network(preprocess.normalise(pixels)).log_softmax(1)
    torch.testing.assert_close(told, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(RecipeError, match="no network"):
        load_teachers(["timm:nothing_like_it"], ("a", "b"))
