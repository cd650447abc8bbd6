"""What is said of a classifier, against scikit-learn and figures worked by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, log_loss
from torch import Tensor, nn

from regraft.errors import SampleError, ShapeError, TrainModeError
from regraft.vision.data import ImageSet
from regraft.vision.evaluation import NUM_MISTAKES, evaluate_classifier, judge
from regraft.vision.metrics import brier_score
from regraft.vision.preprocess import Preprocess
from regraft.vision.probabilities import log_probabilities

PLAIN = Preprocess(size_px=8, crop=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
NAMES = ("ant", "bee", "cat", "dog", "eel", "fox")


@pytest.fixture(name="samples", scope="module")
def _samples(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Pictures whose red tells the class: 20, 60, 100, ..."""
    folder, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    labels = tuple(int(label) for label in draw.integers(0, 6, 40))
    paths = tuple(folder / f"{number}.png" for number in range(40))
    for path, label in zip(paths, labels, strict=True):
        pixels = np.full((8, 8, 3), 20 + 40 * label, np.uint8)
        pixels[:, :, 1:] = draw.integers(0, 255, 2)
        Image.fromarray(pixels).save(path)
    return ImageSet(tuple(path.name for path in paths), paths, labels, NAMES)


def by_red(image: Tensor) -> Tensor:
    """Logits that are larger the nearer the red is to that of a class, disturbed by the green."""
    red, green = 255 * image[:, 0].mean((1, 2)), 255 * image[:, 1].mean((1, 2))
    wanted = 20 + 40 * torch.arange(6)
    return -((red + 0.4 * (green - 128))[:, None] - wanted).abs() / 20


def test_the_figures_are_those_of_scikit_learn(samples: ImageSet):
    found = evaluate_classifier(by_red, samples, PLAIN, batch_size=7)
    logits = by_red(torch.stack([PLAIN(Path(str(source))) for source in samples.sources]))
    probabilities = logits.double().softmax(1).numpy()
    assert (found.num_pictures, found.num_classes, dict(found.left_out)) == (40, 6, {})
    assert found.top1 == accuracy_score(samples.labels, probabilities.argmax(1))
    assert 0 < found.top1 < 1
    assert found.nll == pytest.approx(log_loss(samples.labels, probabilities, labels=range(6)), abs=1e-6)
    assert found.brier == pytest.approx(brier_score(probabilities, np.array(samples.labels)), abs=1e-6)
    assert found.reliability.num.sum() == found.equal_mass.num.sum() == 40


def test_batches_do_not_matter(samples: ImageSet):
    small, large = (evaluate_classifier(by_red, samples, PLAIN, batch_size=size) for size in (7, 40))
    assert small.to_json() == large.to_json()


def test_classes_and_mistakes_by_hand():
    """Of ants one is right, one is a bee and two are cats; the bees are right; of cats there is none."""
    names = ["ant", "bee", "cat"]
    ids = tuple("abcdef")
    samples = ImageSet(ids, tuple(Path(name) for name in ids), (0, 0, 0, 0, 1, 1), tuple(names))
    shares = [[8, 1, 1], [1, 8, 1], [1, 1, 8], [0.5, 0.5, 9], [1, 8, 1], [1, 8, 1]]
    found = judge(np.log(np.array(shares) / 10), samples, {})
    assert [(score.name, score.num, score.num_right, score.taken_for) for score in found.classes] == [
        ("ant", 4, 1, "cat"),
        ("bee", 2, 2, None),
    ]
    assert [score.accuracy for score in found.classes] == [0.25, 1.0]
    assert [(one.id, one.label, one.answer) for one in found.mistakes] == [
        ("d", "ant", "cat"),
        ("b", "ant", "bee"),
        ("c", "ant", "cat"),
    ]
    assert [one.confidence for one in found.mistakes] == pytest.approx([0.9, 0.8, 0.8])
    assert found.top1 == 0.5
    assert found.top5 is None


def test_top_five_of_six_classes_and_no_more_mistakes_than_fit(samples: ImageSet):
    never = judge(log_probabilities(-50 * np.eye(6)[list(samples.labels)]), samples, {})
    assert (never.top1, never.top5) == (0.0, 0.0)
    assert len(never.mistakes) == NUM_MISTAKES
    second = judge(log_probabilities(np.arange(6.0)[None].repeat(40, axis=0)), samples, {})
    assert second.top5 == np.mean(np.array(samples.labels) != 0)


def test_json(samples: ImageSet):
    found = evaluate_classifier(by_red, samples, PLAIN)
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert written["top1"] == found.top1
    assert written["calibration_error"] == found.reliability.error
    assert written["adaptive_calibration_error"] == found.equal_mass.error
    assert {score["name"] for score in written["classes"]} == {NAMES[label] for label in samples.labels}
    with np.errstate(divide="ignore"):
        ruled_out = np.log(np.eye(6)[[0] * 40])
    impossible = judge(ruled_out, samples, {})
    assert impossible.nll == math.inf
    assert json.loads(json.dumps(impossible.to_json(), allow_nan=False))["nll"] is None


def test_pictures_that_cannot_be_read_are_named_and_count_neither_way(samples: ImageSet, tmp_path: Path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"not a picture")
    ids = (samples.ids[0], "damaged", *samples.ids[1:])
    sources = (samples.sources[0], damaged, *samples.sources[1:])
    with_bad = ImageSet(ids, sources, (samples.labels[0], 3, *samples.labels[1:]), NAMES)
    found = evaluate_classifier(by_red, with_bad, PLAIN, batch_size=2)
    assert {name: error.defect for name, error in found.left_out.items()} == {"damaged": "not an image"}
    wanted = evaluate_classifier(by_red, samples, PLAIN).to_json()
    assert {**found.to_json(), "left_out": {}} == wanted
    with pytest.raises(SampleError, match="None of 1 pictures can be read"):
        evaluate_classifier(by_red, with_bad.take([1]), PLAIN)


def test_progress_is_told(samples: ImageSet):
    seen: list[tuple[int, int]] = []
    evaluate_classifier(by_red, samples, PLAIN, batch_size=15, watch=lambda *told: seen.append(told))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_what_is_refused(samples: ImageSet):
    with pytest.raises(SampleError, match="largest value nan"):
        evaluate_classifier(lambda image: by_red(image) * math.nan, samples, PLAIN)
    with pytest.raises(ShapeError, match=r"expected \(40, 6\)"):
        evaluate_classifier(lambda image: by_red(image)[:, :5], samples, PLAIN)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 6))
    with pytest.raises(TrainModeError):
        evaluate_classifier(network, samples, PLAIN)
    assert evaluate_classifier(network.eval(), samples, PLAIN).num_pictures == 40
