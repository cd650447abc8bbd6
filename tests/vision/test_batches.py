import itertools
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from regraft.augment.compose import Compose
from regraft.data.stream import Order
from regraft.errors import RecipeError, SampleError
from regraft.vision.batches import ImageBatches, OrderedBatches
from regraft.vision.crops import Flip, PadCrop, RandomResizedCrop
from regraft.vision.data import ImageSet, from_folder
from regraft.vision.frames import seeded
from regraft.vision.left_out import LeftOut
from regraft.vision.mixing import Mix
from regraft.vision.preprocess import Preprocess
from regraft.vision.variation import Variation

PREPROCESS = Preprocess(16, crop=1.0)
Batches = list[dict[str, Tensor]]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for i, name in itertools.product(range(12), ("cat", "dog")):
        (root / name).mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (16, 16 + i, 3), np.uint8)).save(root / name / f"{i}.png")
    return from_folder(root)


def batches(samples: ImageSet, batch_size: int = 6, **parts: object) -> ImageBatches:
    return ImageBatches(samples, Order(len(samples), batch_size, seed=3), PREPROCESS, **parts)


def first(source: ImageBatches, num: int, start: int = 0) -> Batches:
    return list(itertools.islice(source(start), num))


def assert_same(ours: Batches, theirs: Batches) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys() == {"image", "label"}
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["label"], b["label"])


def noisy(image: Image.Image) -> Image.Image:
    """Draws from all three global generators."""
    shift = torch.randint(9, ()).item() + random.randrange(9) + np.random.randint(9)
    return image.rotate(shift)


SHIFTED = Variation(steps=Compose((PadCrop(2), Flip())))
MIXED = Variation(RandomResizedCrop((0.2, 1.0)), Compose((Flip(),)), Mix(0.2, 1.0))
AUGMENTED: dict[str, object] = {"augment": v2.RandomResizedCrop(16), "variation": SHIFTED}


def test_a_batch_holds_the_pictures_of_its_step(samples: ImageSet):
    [batch] = first(batches(samples), 1, start=5)
    epoch, indices = Order(24, 6, seed=3).batch(5)
    assert epoch == 1
    assert batch["label"].tolist() == [samples.labels[i] for i in indices]
    assert batch["image"].dtype == torch.float32
    expected = torch.stack([PREPROCESS(samples.read(int(i)).image) for i in indices])
    assert torch.equal(batch["image"], expected)


@pytest.mark.parametrize("parts", [{}, AUGMENTED, {"variation": MIXED}, {"augment": noisy}])
def test_resuming_changes_nothing(samples: ImageSet, parts: dict[str, object]):
    whole = first(batches(samples, **parts), 9)
    torch.rand(7)  # whatever else happened to the global generators
    random.random()
    assert_same(first(batches(samples, **parts), 3, start=6), whole[6:])


@pytest.mark.parametrize("parts", [{}, AUGMENTED, {"variation": MIXED}])
def test_workers_change_nothing(samples: ImageSet, parts: dict[str, object]):
    alone = batches(samples, memory_bytes=0, **parts)
    helped = batches(samples, memory_bytes=0, workers=2, **parts)
    assert_same(first(helped, 5, start=2), first(alone, 5, start=2))


def test_memory_changes_nothing(samples: ImageSet):
    parts = {"variation": SHIFTED, "sizes": ((0, 8), (1, 12))}
    assert_same(first(batches(samples, **parts), 6), first(batches(samples, memory_bytes=0, **parts), 6))
    filled_by_workers = batches(samples, workers=2, **parts)
    assert_same(first(filled_by_workers, 6), first(batches(samples, memory_bytes=0, **parts), 6))


@pytest.mark.parametrize("parts", [{"variation": SHIFTED}, {"variation": MIXED}, AUGMENTED])
def test_processes_share_a_batch(samples: ImageSet, parts: dict[str, object]):
    [whole] = first(batches(samples, **parts), 1)
    for rank in range(3):
        [part] = first(batches(samples, rank=rank, world=3, **parts), 1)
        assert torch.equal(part["image"], whole["image"][rank::3])
        assert torch.equal(part["label"], whole["label"][rank::3])


def test_draws_differ_between_pictures_and_epochs(samples: ImageSet):
    grey = ImageSet(samples.ids, (Image.linear_gradient("L"),) * 24, samples.labels, samples.classes)
    drawn = first(batches(grey, 24, augment=v2.RandomResizedCrop(16, scale=(0.1, 0.5))), 2)
    pictures = torch.cat([batch["image"] for batch in drawn])
    assert len({picture.numpy().tobytes() for picture in pictures}) == 48


def test_global_generators_are_left_alone(samples: ImageSet):
    # Python's own is in the next test: beartype, which checks types in the test run, draws from it.
    def states() -> tuple[object, ...]:
        return torch.rand(3).tolist(), np.random.rand()

    def seed() -> None:
        torch.manual_seed(0)
        np.random.seed(0)

    seed()
    expected = states()
    for workers in (0, 1):
        seed()
        first(batches(samples, augment=noisy, variation=MIXED, workers=workers), 2)
        assert states() == expected


def test_seeding_ends_with_its_block():
    def draws() -> tuple[object, ...]:
        return torch.rand(3).tolist(), random.random(), np.random.rand()

    before = torch.get_rng_state(), random.getstate()
    with seeded(7):
        drawn = draws()
    with seeded(7):
        assert draws() == drawn
    with pytest.raises(ZeroDivisionError), seeded(8):
        _ = 1 / 0
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_pictures_grow(samples: ImageSet):
    growing = batches(samples, sizes=((1, 12), (2, 20)))
    assert [batch["image"].shape[-1] for batch in first(growing, 13)] == [16] * 4 + [12] * 4 + [20] * 5
    assert [growing.size_px(epoch) for epoch in (0, 1, 2, 9)] == [16, 12, 20, 20]
    # The exact picture, not one resized twice.
    resized = Preprocess(20, crop=1.0)
    _, indices = Order(24, 6, seed=3).batch(8)
    assert torch.equal(
        first(growing, 1, start=8)[0]["image"][0], resized(samples.read(int(indices[0])).image)
    )


def test_mixed_labels_are_shares(samples: ImageSet):
    whole = first(batches(samples, variation=MIXED), 3)
    assert whole[0]["label"].shape == (6, 2)
    label = torch.cat([batch["label"] for batch in whole])
    torch.testing.assert_close(label.sum(1), torch.ones(18))
    assert ((label > 0) & (label < 1)).any()
    assert_same(first(batches(samples, variation=MIXED), 1, start=2), whole[2:])


def test_partners_come_from_the_whole_set(samples: ImageSet):
    """A batch of one picture would be mixed with itself otherwise."""
    mixed = ImageBatches(samples, Order(24, 1, seed=0), PREPROCESS, variation=Variation(mix=Mix(cutmix=1.0)))
    shares = torch.cat([batch["label"] for batch in first(mixed, 24)])
    assert 4 < (shares.amax(1) < 1).sum() < 20


def test_augmentations_may_return_tensors(samples: ImageSet):
    as_tensor = first(batches(samples, augment=v2.PILToTensor()), 1)
    as_float = first(
        batches(samples, augment=v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])), 1
    )
    assert_same(as_tensor, first(batches(samples), 1))
    assert_same(as_float, first(batches(samples), 1))
    with pytest.raises(RecipeError, match="returned a int"):
        first(batches(samples, augment=lambda image: 3), 1)


@pytest.fixture
def spoil(samples: ImageSet, tmp_path: Path) -> Callable[[float], ImageSet]:
    """A copy of the set, some of whose files have turned bad."""

    def spoilt(share: float) -> ImageSet:
        sources: list[Path] = []
        for i, source in enumerate(samples.sources):
            assert isinstance(source, Path)
            copy = tmp_path / f"{i}.png"
            copy.write_bytes(source.read_bytes()[: 60 if i < share * len(samples) else None])
            sources.append(copy)
        return ImageSet(samples.ids, tuple(sources), samples.labels, samples.classes)

    return spoilt


@pytest.mark.parametrize(("memory_bytes", "workers"), [(2**20, 0), (0, 0), (0, 2)])
def test_the_next_good_picture_stands_in_for_a_bad_one(
    samples: ImageSet, spoil: Callable[[float], ImageSet], memory_bytes: int, workers: int
):
    spoilt = batches(spoil(0.4), memory_bytes=memory_bytes, workers=workers, variation=SHIFTED)
    got = first(spoilt, 8)
    whole = first(batches(samples, variation=SHIFTED), 8)
    around_the_end = 0
    for step, (ours, theirs) in enumerate(zip(got, whole, strict=True)):
        _, indices = Order(24, 6, seed=3).batch(step)
        shown = list(range(6))
        for position in range(6):
            while indices[shown[position]] < 10:
                shown[position] = (shown[position] + 1) % 6
        around_the_end += shown[5] != 5
        assert torch.equal(ours["image"], theirs["image"][shown])
        assert torch.equal(ours["label"], theirs["label"][shown])
    assert around_the_end > 0
    report = spoilt.report()
    assert set(report) == set(samples.ids[:10])
    assert str(report).startswith("10 pictures turned bad")


@pytest.mark.parametrize("memory_bytes", [2**20, 0])
def test_processes_keep_equal_shares_of_bad_pictures(spoil: Callable[[float], ImageSet], memory_bytes: int):
    spoilt = spoil(0.2)
    parts = {"memory_bytes": memory_bytes, "variation": MIXED, "world": 2}
    shares = [first(batches(spoilt, rank=rank, **parts), 8) for rank in range(2)]
    assert {len(batch["image"]) for share in shares for batch in share} == {3}
    assert {len(batch["label"]) for share in shares for batch in share} == {3}
    assert_same(first(batches(spoilt, rank=1, **parts), 2, start=6), shares[1][6:])


def test_training_and_evaluation_may_share_a_report(
    samples: ImageSet, spoil: Callable[[float], ImageSet], tmp_path: Path
):
    shared = LeftOut(tmp_path / "left_out.jsonl")
    spoilt = spoil(0.5)
    training = batches(spoilt.take(range(6, 24)), left_out=shared)
    first(training, 3)
    assert set(LeftOut(tmp_path / "left_out.jsonl")) == set(samples.ids[6:12])
    evaluation = OrderedBatches(spoilt.take(range(6)), PREPROCESS, left_out=shared)
    assert list(evaluation) == []
    assert training.report() is evaluation.report() is shared
    assert set(LeftOut(tmp_path / "left_out.jsonl")) == set(samples.ids[:12])
    assert str(batches(samples).report()) == "every picture could be read"


def test_a_batch_without_a_good_picture_is_an_error(spoil: Callable[[float], ImageSet]):
    for memory_bytes in (2**20, 0):
        with pytest.raises(SampleError, match="No picture of a batch can be read"):
            first(batches(spoil(1.0), memory_bytes=memory_bytes, variation=MIXED), 1)


def test_settings_at_odds_are_refused(samples: ImageSet):
    with pytest.raises(RecipeError, match="4 processes cannot share"):
        batches(samples, world=4)
    with pytest.raises(RecipeError, match="The order is of 5 samples, but there are 24"):
        ImageBatches(samples, Order(5, 2, seed=0), PREPROCESS)
    for sizes in (((3, 8), (1, 8)), ((1, 8), (1, 9)), ((-1, 8),), ((0, 0),)):
        with pytest.raises(RecipeError, match="The sizes"):
            batches(samples, sizes=sizes)


@pytest.mark.parametrize(("memory_bytes", "workers"), [(2**20, 0), (0, 0), (0, 2)])
def test_ordered_batches_show_everything_once(samples: ImageSet, memory_bytes: int, workers: int):
    ordered = OrderedBatches(samples, PREPROCESS, batch_size=7, memory_bytes=memory_bytes, workers=workers)
    assert len(ordered) == 4
    for _ in range(2):
        got = list(ordered)
        assert [len(batch["label"]) for batch in got] == [7, 7, 7, 3]
        assert torch.cat([batch["label"] for batch in got]).tolist() == list(samples.labels)
        expected = torch.stack([PREPROCESS(samples.read(i).image) for i in range(24)])
        assert torch.equal(torch.cat([batch["image"] for batch in got]), expected)


def test_ordered_batches_report_what_they_leave_out(spoil: Callable[[float], ImageSet]):
    ordered = OrderedBatches(spoil(0.5), PREPROCESS, batch_size=6)
    assert [len(batch["label"]) for batch in ordered] == [6, 6]
    assert len(ordered.report()) == 12
