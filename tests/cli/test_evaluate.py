"""`regraft evaluate`, as it is typed."""

import json
from pathlib import Path

import pytest
from galleries import write_model, write_pictures
from PIL import Image
from typer.testing import CliRunner

from regraft.cli import app
from regraft.errors import PlaceError, RecipeError


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.stderr == "", "a progress bar is for terminals"
    return result.stdout


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.safetensors", 0, size_px=32)


@pytest.fixture(name="pictures", scope="module")
def _pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder, 12)
    return folder


def test_what_is_printed(model: Path, pictures: Path):
    lines = run(model, pictures).splitlines()
    assert lines[0] == f"{pictures}: 12 pictures of 3 classes"
    assert [line.split()[0] for line in lines[1:6]] == ["top-1", "NLL", "Brier", "calibration", "adaptive"]
    assert lines[6] == "worst classes"
    assert len(lines) == 10
    assert "most often taken for" in lines[7]


def test_what_is_worth_saying_of_the_pictures(model: Path, tmp_path: Path):
    write_pictures(tmp_path, 12)
    for path in (tmp_path / "cat").iterdir():
        path.unlink()
    (tmp_path / "cat").rmdir()
    for number in range(7):
        (tmp_path / "ant" / f"damaged{number}.png").write_bytes(b"")
    (tmp_path / "notes.txt").touch()
    Image.new("RGB", (32, 32)).save(tmp_path / "stray.png")
    printed = run(model, tmp_path)
    assert "8 of 15 pictures of 2 classes" in printed
    assert "not read: 1 pictures beside the class folders" in printed
    assert "the model has 3 classes and chose among these 2 alone" in printed
    assert "7 pictures could not be read, left out of all figures" in printed
    assert printed.count("empty file") == 5
    assert "--json names them all" in printed
    assert len(json.loads(run(model, tmp_path, "--json"))["left_out"]) == 7


def test_corruptions_a_page_and_a_baseline(model: Path, pictures: Path, tmp_path: Path):
    pytest.importorskip("imagecorruptions")
    arguments = [model, pictures, "--corruptions", "--severity", 5, "--severity", 1, "--subset", 3]
    found = json.loads(run(*arguments, "--json"))
    assert found["num_pictures"] == 3
    assert len(found["corruption"]["errors"]) == 15
    assert set(found["corruption"]["errors"]["fog"]) == {"1", "5"}
    baseline = tmp_path / "baseline.json"
    baseline.write_text(json.dumps(found | {"corruption": _harmed(found["corruption"])}))
    page = tmp_path / "page.html"
    printed = run(*arguments, "--baseline", baseline, "--out", page)
    assert "corruption error" in printed
    assert "mCE" in printed
    assert printed.endswith(f"wrote {page}\n")
    assert "Divided by the baseline" in page.read_text()


def _harmed(corruption: dict) -> dict:
    """Errors of a model that is always wrong about corrupted pictures, so that they can be divided by."""
    errors = {name: dict.fromkeys(by_severity, 1.0) for name, by_severity in corruption["errors"].items()}
    return corruption | {"errors": errors}


def test_mistakes_are_found_before_the_work(model: Path, pictures: Path, tmp_path: Path):
    with pytest.raises(RecipeError, match="expected --corruptions"):
        run(model, pictures, "--severity", 3)
    with pytest.raises(PlaceError):
        run(model, tmp_path / "nowhere", "--out", tmp_path)
    with pytest.raises(RecipeError, match="cannot be read as JSON"):
        run(model, pictures, "--corruptions", "--baseline", tmp_path / "none.json")
    wrong = CliRunner().invoke(app, ["evaluate", str(model), str(pictures), "--severity", "6"])
    assert wrong.exit_code == 2
