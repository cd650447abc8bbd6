"""Model files and ONNX files, evaluated on folders."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from galleries import CLASSES, write_model, write_pictures
from PIL import Image
from torch import nn

from regraft.deploy.export import export
from regraft.errors import MissingExtra, RecipeError, SampleError, WeightsError
from regraft.recipes.classifiers import load_classifier
from regraft.recipes.evaluation import evaluate, random_subset, read_baseline
from regraft.recipes.evaluation_page import write_evaluation_page
from regraft.vision.corruption_errors import CorruptionErrors
from regraft.vision.data import from_folder
from regraft.vision.modelfile import load_model


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that has never seen anything, with a class that the pictures have not."""
    labels = ("wasp", "cat", "bee", "ant")
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    return write_model(path, 0, size_px=32, num_classes=4, labels=labels)


@pytest.fixture(name="pictures", scope="module")
def _pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder, 24)
    return folder


def export_onnx(model: Path, out: Path) -> Path:
    network, card = load_model(model)
    export(network, out, example=torch.zeros(1, 3, 32, 32), metadata=card.metadata())
    return out


def test_a_slice_of_the_logits_is_chosen_among(model: Path, pictures: Path):
    found = evaluate(model, pictures)
    network, card = load_model(model)
    samples = from_folder(pictures)
    assert samples.classes == CLASSES
    with torch.inference_mode():
        image = torch.stack([card.preprocess(Path(str(source))) for source in samples.sources])
        logits = network(image)[:, [3, 2, 1]]  # ant, bee, cat
    right = (logits.argmax(1) == torch.tensor(samples.labels)).double().mean().item()
    assert found.match.is_slice
    assert found.scores.num_classes == 3
    assert found.scores.top1 == pytest.approx(right, abs=1e-12)
    wanted = nn.functional.cross_entropy(logits, torch.tensor(samples.labels)).item()
    assert found.scores.nll == pytest.approx(wanted, abs=1e-5)


def test_an_onnx_file_answers_alike(model: Path, pictures: Path, tmp_path: Path):
    exported = evaluate(export_onnx(model, tmp_path / "model.onnx"), pictures)
    original = evaluate(model, pictures)
    assert exported.scores.top1 == original.scores.top1
    assert exported.scores.nll == pytest.approx(original.scores.nll, abs=1e-5)
    assert (exported.architecture, exported.match) == (original.architecture, original.match)


def test_folders_named_by_number(model: Path, tmp_path: Path):
    for number in ("0", "3"):
        (tmp_path / number).mkdir()
        for copy in range(3):
            Image.fromarray(np.full((32, 32, 3), 60 * copy, np.uint8)).save(tmp_path / number / f"{copy}.png")
    found = evaluate(model, tmp_path)
    assert found.match.by_number
    assert found.match.columns == (0, 3)
    assert found.scores.top1 == 0.5, "the same pictures in both classes"


def test_a_subset_is_the_same_for_everyone(pictures: Path, model: Path):
    samples = from_folder(pictures)
    chosen = random_subset(samples, 7)
    assert len(chosen) == 7
    assert random_subset(samples.take(reversed(range(24))), 7).ids == chosen.ids[::-1]
    assert set(random_subset(samples, 8).ids) > set(chosen.ids)
    assert random_subset(samples, 100).ids == samples.ids
    assert random_subset(samples, 12).labels != samples.labels[:12]
    found = evaluate(model, pictures, subset=7)
    assert (found.scores.num_pictures, found.num_found) == (7, 24)
    with pytest.raises(RecipeError, match="subset is of 0"):
        random_subset(samples, 0)


def test_corruptions_and_a_baseline(model: Path, pictures: Path, tmp_path: Path):
    pytest.importorskip("imagecorruptions")
    told: list[tuple[str, int, int]] = []
    chosen = {"corruptions": ["contrast", "fog"], "severities": [3, 5]}
    first = evaluate(model, pictures, watch=lambda *step: told.append(step), **chosen)
    assert first.corruption is not None
    assert first.corruption.clean == pytest.approx(1 - first.scores.top1, abs=1e-12)
    assert told == [("evaluating", 1, 1), *(("corrupting", done, 5) for done in range(1, 6))]
    (tmp_path / "first.json").write_text(json.dumps(first.to_json(), allow_nan=False))
    baseline = read_baseline(tmp_path / "first.json")
    assert baseline == first.corruption
    second = evaluate(model, pictures, baseline=baseline, **chosen)
    written = json.loads(json.dumps(second.to_json()))["corruption"]
    assert written["mean_corruption_error"] == 1
    assert written["normalised"] == {"contrast": 1, "fog": 1}
    with pytest.raises(RecipeError, match="baseline is of contrast, fog"):
        evaluate(model, pictures, baseline=baseline, corruptions=["fog"], severities=[3, 5])
    with pytest.raises(RecipeError, match="expected some corruptions"):
        evaluate(model, pictures, baseline=baseline)
    flawless = CorruptionErrors(clean=0.1, errors={"contrast": {3: 0.5, 5: 0.5}, "fog": {3: 0.0, 5: 0.0}})
    told.clear()
    with pytest.raises(RecipeError, match="loses nothing by fog"):
        evaluate(model, pictures, baseline=flawless, watch=lambda *step: told.append(step), **chosen)
    assert not told  # before the work


@pytest.mark.parametrize("share", ["NaN", "7.0", "-0.1"])
def test_errors_of_a_baseline_are_shares(tmp_path: Path, share: str):
    text = '{"corruption": {"clean": 0.1, "errors": {"fog": {"1": ' + share + "}}}}"
    (tmp_path / "baseline.json").write_text(text)
    with pytest.raises(RecipeError, match=r"expected shares in \[0, 1\]"):
        read_baseline(tmp_path / "baseline.json")


def test_without_the_extra_nothing_is_begun(model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "imagecorruptions", None)
    told: list[tuple[str, int, int]] = []
    with pytest.raises(MissingExtra, match="corruptions"):
        evaluate(model, pictures, corruptions=["fog"], watch=lambda *step: told.append(step))
    assert not told


def test_files_that_are_no_classifiers(model: Path, pictures: Path, tmp_path: Path):
    with pytest.raises(WeightsError, match="There is no file"):
        load_classifier(tmp_path / "none.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(WeightsError, match="is not an ONNX file"):
        load_classifier(tmp_path / "broken.onnx")
    network, _ = load_model(model)
    bare = tmp_path / "bare.onnx"
    export(network, bare, example=torch.zeros(1, 3, 32, 32), metadata={"labels": "[]"})
    with pytest.raises(WeightsError, match="does not say how to use it: KeyError"):
        load_classifier(bare)
    embedder = write_model(tmp_path / "embedder.safetensors", 0, num_classes=0)
    with pytest.raises(WeightsError, match="model without classes"):
        load_classifier(embedder)


def test_classes_the_model_does_not_know(model: Path, pictures: Path, tmp_path: Path):
    Image.new("RGB", (32, 32)).save(tmp_path / "x.png")
    (tmp_path / "all" / "owl").mkdir(parents=True)
    for name in CLASSES:
        (tmp_path / "all" / name).symlink_to(pictures / name)
    (tmp_path / "x.png").rename(tmp_path / "all" / "owl" / "x.png")
    with pytest.raises(SampleError, match="does not know 1 of the 4 classes: owl"):
        evaluate(model, tmp_path / "all")


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"corruption": null}', '{"corruption": {"errors": {}}}'])
def test_a_baseline_that_is_none(text: str, tmp_path: Path):
    (tmp_path / "baseline.json").write_text(text)
    with pytest.raises(RecipeError, match=r"no corruption errors|cannot be read as JSON"):
        read_baseline(tmp_path / "baseline.json")


def test_the_page_is_one_file_that_says_what_was_found(model: Path, pictures: Path, tmp_path: Path):
    pytest.importorskip("imagecorruptions")
    copy = tmp_path / "pictures"
    for path in pictures.rglob("*.png"):
        target = copy / path.relative_to(pictures)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (copy / "ant" / "<b>.png").write_bytes(b"")
    found = evaluate(model, copy, corruptions=["contrast"], severities=[1])
    out = tmp_path / "page.html"
    write_evaluation_page(out, found)
    page = out.read_text()
    assert page.count("<svg") == 2
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "1 picture could not be read" in page
    assert "ant/&lt;b&gt;.png (empty file)" in page
    assert "knows 4 classes" in page
    assert f"{100 * found.scores.top1:.1f}&thinsp;%" in page
    assert page.count("data:image/png") == len(found.scores.mistakes)
    write_evaluation_page(out, evaluate(model, pictures, subset=2))
    assert "Corrupted pictures" not in out.read_text()
