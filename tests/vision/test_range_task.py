"""Tasks with learned ranges: targets are hit, nothing but pictures changes, and stopping changes nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer

from regraft.errors import SampleError, ShapeError
from regraft.train import processes
from regraft.train.average import moving_average
from regraft.train.journal import read_events
from regraft.train.loop import fit
from regraft.train.run import Run
from regraft.train.schedule import Schedule, param_groups
from regraft.vision.preprocess import Preprocess
from regraft.vision.range_operations import OPERATIONS, PAPER
from regraft.vision.range_targets import DecibelTarget, psnr_db
from regraft.vision.range_task import Varied, WithLearnedRanges, range_group
from regraft.vision.ranges import LearnedRanges
from regraft.vision.tasks import Classify

ALL = tuple(OPERATIONS.values())
COLOUR = Preprocess(size_px=8, crop=1.0)
GREY = Preprocess(size_px=8, crop=1.0, channels=1, mean=(0.449,), std=(0.226,))
TARGET = DecibelTarget(end_db=20.0, steps=10)


def photographs() -> Tensor:
    """Small pieces of two photographs (c h w), of values in [0, 1]."""
    pieces = list[Tensor]()
    for image in load_sample_images().images:
        small = F.avg_pool2d(torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255, 4)
        rows = small.unfold(1, 8, 8).unfold(2, 8, 8)
        pieces.append(rows.permute(1, 2, 0, 3, 4).reshape(-1, 3, 8, 8))
    return torch.cat(pieces)


def batches(preprocess: Preprocess = COLOUR, num: int = 64, last: int = 10**9):
    pictures = photographs()
    if preprocess.channels == 1:
        pictures = pictures.mean(1, keepdim=True)

    def after(step: int) -> Iterator[dict[str, Tensor]]:
        while step < last:
            chosen = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(step))[:num]
            image = preprocess.normalise((255 * pictures[chosen]).to(torch.uint8))
            yield {"image": image, "label": chosen % 2}
            step += 1

    return after


def network(channels: int = 3) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(channels, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)
        )


def classify(preprocess: Preprocess = COLOUR) -> Classify:
    return Classify(network(preprocess.channels), lambda: [next(batches(preprocess)(900))])


def optimizer_of(task: WithLearnedRanges, kind: str) -> Optimizer:
    groups = [*param_groups(task.model.network), range_group(task.model.ranges, kind)]
    return SGD(groups, lr=0.1, momentum=0.9) if kind == "sgd" else AdamW(groups, lr=0.1)


def train(
    directory: Path,
    task: WithLearnedRanges,
    kind: str,
    steps: int,
    *,
    last: int = 10**9,
    preprocess: Preprocess = COLOUR,
    average: bool = False,
) -> None:
    schedule = Schedule(steps=steps, peak_lr=0.02, weight_decay=0.01, evaluate_every=5, checkpoint_every=7)
    fit(
        task,
        batches(preprocess, last=last),
        optimizer_of(task, kind),
        schedule,
        Run(directory, {}),
        fabric=processes.launch(accelerator="cpu"),
        average=moving_average(task.model, decay=0.9) if average else None,
    )


@torch.no_grad()
def reached_db(ranges: LearnedRanges) -> float:
    generator, x = torch.Generator().manual_seed(0), photographs()
    errors = [(ranges(x, ranges.draw(x, generator)) - x).square().mean() for _ in range(8)]
    return psnr_db(torch.stack(errors).mean()).item()


@pytest.mark.parametrize(("kind", "operations", "end_db"), [("sgd", ALL, 15.0), ("adamw", PAPER, 25.0)])
def test_targets_are_hit(tmp_path: Path, kind: str, operations: tuple, end_db: float) -> None:
    target = DecibelTarget(end_db=end_db, steps=200)
    task = WithLearnedRanges(classify(), LearnedRanges(operations), COLOUR, target)
    train(tmp_path, task, kind, 250)
    # The ranges follow batches of 64 pictures, whose own ratios are 0.7 dB apart; a share of that is left.
    assert reached_db(task.model.ranges) == pytest.approx(end_db, abs=0.5)
    metrics = read_events(tmp_path)[-1].evaluation
    assert metrics["range_target_db"] == end_db
    assert metrics["range_psnr_db"] == pytest.approx(end_db, abs=1.0)
    assert {"top1", "nll", "range_brightness_low", "range_noise_high"} < set(metrics)
    for name, low, high in task.model.ranges.ranges():
        assert (metrics[f"range_{name}_low"], metrics[f"range_{name}_high"]) == (low, high)


def test_a_target_is_missed_without_a_gradient(tmp_path: Path) -> None:
    """The control: the same run, the ranges held where they begin."""
    ranges = LearnedRanges().requires_grad_(False)
    ranges.strength.requires_grad_()
    task = WithLearnedRanges(classify(), ranges, COLOUR, DecibelTarget(end_db=15.0, steps=20))
    optimizer = SGD(param_groups(task.model.network), lr=0.1)
    run = Run(tmp_path, {})
    fit(
        task,
        batches(),
        optimizer,
        Schedule(steps=30, peak_lr=0.02),
        run,
        fabric=processes.launch(accelerator="cpu"),
    )
    assert abs(reached_db(ranges) - 15.0) > 5


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_stopping_changes_nothing(tmp_path: Path, kind: str) -> None:
    def task() -> WithLearnedRanges:
        return WithLearnedRanges(classify(), LearnedRanges(ALL), COLOUR, TARGET)

    whole, stopped = task(), task()
    train(tmp_path / "whole", whole, kind, 20, average=True)
    for last in (9, 16):
        with pytest.raises(SampleError):
            train(tmp_path / "stopped", task(), kind, 20, last=last, average=True)
    train(tmp_path / "stopped", stopped, kind, 20, average=True)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(stopped.model.state_dict()[name], value), name
    assert read_events(tmp_path / "whole") == read_events(tmp_path / "stopped")


class Watching:
    """A task that keeps what it is given, and whose loss has a slope in the pictures."""

    def __init__(self, *names: str) -> None:
        self.model = nn.Conv2d(3, 1, 1)
        self.names = names

    def loss(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        self.seen, self.step = batch, step
        return {
            name: (index + 1) * self.model(batch["image"]).mean() for index, name in enumerate(self.names)
        }

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        self.evaluated = model
        return {"quality": 1.0}


def scenes(**more: Tensor) -> dict[str, Tensor]:
    return next(batches(num=6)(0)) | more


def test_boxes_stay_where_they_are() -> None:
    boxes = torch.rand(6, 5, 2, 2)
    batch = scenes(boxes=boxes, present=torch.ones(6, 5, dtype=torch.bool))
    before = {name: tensor.clone() for name, tensor in batch.items()}
    detect = Watching("box", "class")
    terms = WithLearnedRanges(detect, LearnedRanges(ALL), COLOUR, TARGET).loss(batch, 3)
    assert list(terms) == ["box", "class", "ranges"]
    assert detect.step == 3
    assert detect.seen.keys() == batch.keys()
    for name in ("boxes", "present", "label"):
        assert detect.seen[name] is batch[name]
    assert all(torch.equal(batch[name], before[name]) for name in batch)
    assert not torch.allclose(detect.seen["image"], batch["image"], atol=0.01)


def test_masks_stay_as_they_are() -> None:
    mask = torch.randint(4, (6, 8, 8))
    segment = Watching("pixels")
    WithLearnedRanges(segment, LearnedRanges(ALL), COLOUR, TARGET).loss(scenes(mask=mask), 0)
    assert segment.seen["mask"] is mask


def test_pictures_are_varied_before_they_are_normalised() -> None:
    model = Varied(network(), LearnedRanges(), COLOUR)
    image = scenes()["image"]
    torch.manual_seed(4)
    varied, errors = model.vary(image)
    torch.manual_seed(4)
    pixels = image * model.std + model.mean
    expected = model.ranges(pixels, model.ranges.draw(pixels))
    torch.testing.assert_close(varied * model.std + model.mean, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(errors, (expected - pixels).square().mean((1, 2, 3)), atol=1e-8, rtol=1e-4)
    half, errors = model.vary(image.bfloat16())
    assert (half.dtype, errors.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("task_gradient", [False, True])
def test_the_task_moves_the_ranges_only_if_asked_to(task_gradient: bool) -> None:
    ranges = LearnedRanges()
    task = WithLearnedRanges(Watching("loss"), ranges, COLOUR, TARGET, task_gradient=task_gradient)
    terms = task.loss(scenes(), 0)
    terms["loss"].backward(retain_graph=True)
    assert (ranges.strength.grad is not None) == task_gradient
    terms["ranges"].backward()
    assert ranges.strength.grad.item() != 0


def test_the_bare_network_is_evaluated_and_ranges_in_use_are_told() -> None:
    inner = Watching("loss")
    task = WithLearnedRanges(inner, LearnedRanges(), COLOUR, TARGET)
    average = moving_average(task.model)
    task.model.ranges.strength.data.fill_(0.0)
    metrics = task.evaluate(average.module)
    assert inner.evaluated is average.module.network
    assert metrics["quality"] == 1.0
    assert metrics["range_noise_high"] == 0.5
    assert metrics["range_target_db"] == 40.0


def test_grey_pictures(tmp_path: Path) -> None:
    task = WithLearnedRanges(classify(GREY), LearnedRanges(ALL), GREY, TARGET)
    train(tmp_path, task, "adamw", 3, preprocess=GREY)
    assert len(read_events(tmp_path)) == 3
    with pytest.raises(ShapeError, match="1 channels, expected 3"):
        WithLearnedRanges(classify(), LearnedRanges(), COLOUR, TARGET).loss(next(batches(GREY)(0)), 0)


def test_mixed_precision(tmp_path: Path) -> None:
    task = WithLearnedRanges(classify(), LearnedRanges(ALL), COLOUR, TARGET)
    fabric = processes.launch(accelerator="cpu", precision="bf16-mixed")
    schedule = Schedule(steps=3, peak_lr=0.02)
    fit(task, batches(), optimizer_of(task, "sgd"), schedule, Run(tmp_path, {}), fabric=fabric)
    assert task.model.ranges.strength.dtype == torch.float32
    assert task.model.ranges.recent_error.isfinite()
