"""How errors under corruption are counted and compared."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

pytest.importorskip("imagecorruptions")

from regraft.errors import RecipeError, SampleError, ShapeError, TrainModeError
from regraft.vision.corrupted_batches import CorruptedBatches
from regraft.vision.corruption_errors import CorruptionErrors, corruption_errors
from regraft.vision.corruptions import corrupt
from regraft.vision.data import ImageSet
from regraft.vision.left_out import LeftOut
from regraft.vision.preprocess import Preprocess

PLAIN = Preprocess(size_px=32, crop=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.fixture(name="samples", scope="module")
def _samples(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Dark and bright pictures."""
    folder, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(10)]
    for number, path in enumerate(paths):
        shade = np.uint8(60 if number % 2 == 0 else 150)
        Image.fromarray(draw.integers(0, 40, (32, 32, 3), np.uint8) + shade).save(path)
    ids = tuple(path.name for path in paths)
    return ImageSet(ids, tuple(paths), tuple(number % 2 for number in range(10)), ("dark", "bright"))


def by_brightness(image: Tensor) -> Tensor:
    """Logits of `dark` and `bright`."""
    bright = image.mean((1, 2, 3)) - 0.45
    return torch.stack([-bright, bright], dim=1)


def errors(clean: float = 0.1, **by_name: Mapping[int, float]) -> CorruptionErrors:
    return CorruptionErrors(
        clean=clean, errors=by_name or {"fog": {1: 0.2, 2: 0.4}, "snow": {1: 0.3, 2: 0.5}}
    )


def test_errors_are_those_of_a_plain_loop(samples: ImageSet):
    found = corruption_errors(
        by_brightness, samples, PLAIN, corruptions=["brightness", "contrast", "glass_blur"], severities=[1, 5]
    )
    assert found.clean == 0
    for name, by_severity in found.errors.items():
        for severity, error in by_severity.items():
            wrong = 0
            for index, label in enumerate(samples.labels):
                pixels = np.asarray(samples.read(index).image)
                pixels = corrupt(pixels, name, severity, sample_id=samples.ids[index])
                logits = by_brightness(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)
                wrong += int(logits.argmax()) != label
            assert error == wrong / 10
    assert found.errors["brightness"][5] == 0.5, "all dark pictures are bright now"


@pytest.mark.parametrize("settings", [{"batch_size": 3}, {"workers": 2, "batch_size": 4}])
def test_batches_order_and_processes_do_not_matter(samples: ImageSet, settings: dict[str, Any]):
    chosen: dict[str, Any] = {"corruptions": ["impulse_noise", "glass_blur", "fog"], "severities": [2, 4]}
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 2)).eval()
    wanted = corruption_errors(network, samples, PLAIN, **chosen)
    backwards = samples.take(range(9, -1, -1))
    assert corruption_errors(network, backwards, PLAIN, **chosen, **settings) == wanted


def test_clean_batches_come_first_and_are_what_the_network_sees(samples: ImageSet):
    preprocess = Preprocess(size_px=40, crop=0.8)
    batches = list(CorruptedBatches(samples, preprocess, [("contrast", 1)], batch_size=10))
    assert [setting for setting, _ in batches] == [None, ("contrast", 1)]
    image = torch.stack([preprocess(Path(str(source))) for source in samples.sources])
    assert torch.equal(batches[0][1]["image"], image)
    assert not torch.equal(batches[1][1]["image"], image)


def test_pictures_kept_in_memory_and_read_every_time_are_the_same(samples: ImageSet):
    kept, read = (
        list(CorruptedBatches(samples, PLAIN, [("fog", 2)], batch_size=4, memory_bytes=memory_bytes))
        for memory_bytes in (2**20, 0)
    )
    for (setting, batch), (other_setting, other) in zip(kept, read, strict=True):
        assert setting == other_setting
        assert torch.equal(batch["image"], other["image"])
        assert torch.equal(batch["label"], other["label"])


def test_a_grey_network_sees_the_corrupted_colours_in_grey(samples: ImageSet):
    grey = Preprocess(size_px=32, crop=1.0, channels=1, mean=(0.0,), std=(1.0,))
    (_, clean), (_, corrupted) = CorruptedBatches(samples, grey, [("gaussian_noise", 3)], batch_size=10)
    assert clean["image"].shape == corrupted["image"].shape == (10, 1, 32, 32)
    pixels = np.asarray(samples.read(4).image)
    noisy = Image.fromarray(corrupt(pixels, "gaussian_noise", 3, sample_id=samples.ids[4])).convert("L")
    np.testing.assert_array_equal((255 * corrupted["image"][4, 0]).round(), np.asarray(noisy))


def test_pictures_that_cannot_be_read_are_left_out_and_named(samples: ImageSet, tmp_path: Path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"")
    with_bad = ImageSet(
        (*samples.ids, "damaged"), (*samples.sources, damaged), (*samples.labels, 0), samples.classes
    )
    chosen: dict[str, Any] = {"corruptions": ["contrast"], "severities": [1]}
    wanted = corruption_errors(by_brightness, samples, PLAIN, **chosen)
    left_out = LeftOut()
    assert corruption_errors(by_brightness, with_bad, PLAIN, left_out=left_out, **chosen) == wanted
    assert list(left_out) == ["damaged"]
    batches = CorruptedBatches(with_bad, PLAIN, [("contrast", 1)], batch_size=1)
    assert sum(len(batch["label"]) for _, batch in batches) == 20
    assert list(batches.report()) == ["damaged"]
    with pytest.raises(SampleError, match="None of 1 pictures can be read"):
        corruption_errors(by_brightness, with_bad.take([10]), PLAIN, **chosen)


def test_progress_is_told(samples: ImageSet):
    seen: list[tuple[int, int]] = []
    corruption_errors(
        by_brightness, samples, PLAIN, corruptions=["contrast"], severities=[1, 2], batch_size=5,
        watch=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(done, 6) for done in range(1, 7)]


def test_figures_worked_by_hand():
    ours, baseline = errors(), errors(clean=0.2, fog={1: 0.4, 2: 0.8}, snow={1: 0.5, 2: 0.5})
    assert ours.mean == pytest.approx(0.35)
    assert ours.relative == pytest.approx(0.25)
    assert ours.by_corruption == {"fog": pytest.approx(0.3), "snow": pytest.approx(0.4)}
    assert ours.normalised(baseline) == {"fog": pytest.approx(0.6 / 1.2), "snow": pytest.approx(0.8 / 1.0)}
    assert ours.mean_corruption_error(baseline) == pytest.approx(0.65)
    assert ours.mean_corruption_error(ours) == 1
    # (0.1 + 0.3) / (0.2 + 0.6) and (0.2 + 0.4) / (0.3 + 0.3)
    assert ours.relative_mean_corruption_error(baseline) == pytest.approx((0.5 + 1.0) / 2)


def test_json_there_and_back():
    ours = errors()
    written = json.loads(json.dumps(ours.to_json()))
    assert written["mean"] == pytest.approx(0.35)
    assert CorruptionErrors.from_json(written) == ours
    with pytest.raises(RecipeError, match="no corruption errors"):
        CorruptionErrors.from_json({"errors": 3})


def test_a_baseline_has_to_fit():
    with pytest.raises(RecipeError, match="baseline is of fog"):
        errors().normalised(errors(fog={1: 0.2, 2: 0.3}))
    with pytest.raises(RecipeError, match=r"at \[1, 2\]"):
        errors().normalised(errors(fog={1: 0.2}, snow={1: 0.2}))
    with pytest.raises(RecipeError, match="loses nothing by snow"):
        errors().normalised(errors(fog={1: 0.2, 2: 0.3}, snow={1: 0.0, 2: 0.0}))
    unharmed = errors(fog={1: 0.1, 2: 0.1}, snow={1: 0.2, 2: 0.2})
    with pytest.raises(RecipeError, match="loses nothing by fog"):
        errors().relative_mean_corruption_error(unharmed)
    with pytest.raises(RecipeError, match="expected the same ones of each"):
        errors(fog={1: 0.2}, snow={2: 0.2})


def test_what_is_refused(samples: ImageSet):
    with pytest.raises(RecipeError, match="sees 28 pixels"):
        corruption_errors(by_brightness, samples, Preprocess(size_px=28))
    with pytest.raises(RecipeError, match="batch_size is 0"):
        corruption_errors(by_brightness, samples, PLAIN, batch_size=0)
    with pytest.raises(ShapeError, match=r"answers with \(10, 3\) to 10 pictures"):
        corruption_errors(lambda image: image.mean((2, 3)), samples, PLAIN)
    with pytest.raises(TrainModeError, match="evaluate"):
        corruption_errors(nn.Sequential(nn.Flatten()), samples, PLAIN)
