"""The command line imports what was published, writes tables for other programs, and trains on them."""

import json
from pathlib import Path

import pytest
from releasing import NUM_DRAWS, PIPELINES, write_pictures, write_release
from typer.testing import CliRunner

from regraft.cli import app
from regraft.errors import TableError
from regraft.tables.table import open_table


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module", name="place")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, what was published of them, and the table of that."""
    place = tmp_path_factory.mktemp("verbs")
    write_release(place / "release", write_pictures(place / "pictures"), PIPELINES["strong_mix"])
    told = run(
        "reinforce",
        "import-released",
        place / "release",
        place / "pictures",
        "--out",
        place / "table",
        "--json",
    )
    assert json.loads(told)["num_draws"] == NUM_DRAWS
    return place


def test_training_on_what_was_published(place: Path, tmp_path: Path) -> None:
    settings = ["schedule.steps=2", "schedule.warmup_steps=1", "batch_size=8"]
    told = [part for setting in settings for part in ("--set", setting)]
    pictures = place / "pictures"
    given = ["train", pictures, "--held-out", pictures, "--table", place / "table", "--out", tmp_path / "run"]
    run(*given, *told)
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())["recipe"]
    assert recipe["augment"]["rand_augment_interpolation"] == "nearest"
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("ending", ["arrow", "parquet", "lance"])
def test_tables_leave_and_come_back(ending: str, place: Path, tmp_path: Path) -> None:
    file = tmp_path / f"table.{ending}"
    assert run("reinforce", "export", place / "table", file).strip() == str(file)
    told = json.loads(run("reinforce", "import", file, "--out", tmp_path / "again", "--json"))
    assert told["fingerprint"] == open_table(place / "table").fingerprint
    assert open_table(tmp_path / "again").ids == open_table(place / "table").ids


def test_other_endings_are_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"\.arrow, \.parquet, \.lance"):
        run("reinforce", "export", place / "table", tmp_path / "table.csv")
