"""Learning without labels: the loss against its definition, views under a seed, and that it learns at all."""

import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from regraft.errors import Interrupted, RecipeError, SampleError
from regraft.train import processes
from regraft.train.journal import Event
from regraft.train.loop import fit
from regraft.train.run import Run
from regraft.train.schedule import Schedule, param_groups
from regraft.vision.contrast import Projected, RandomView, TellApart, nt_xent
from regraft.vision.preprocess import Preprocess

NUM_PICTURES, SIZE_PX, NUM_STEPS = 16, 16, 60
PREPROCESS = Preprocess(size_px=SIZE_PX, crop=1.0)


def naive_nt_xent(first: Tensor, second: Tensor, temperature: float) -> float:
    """Equation 1 of arXiv 2002.05709, term by term."""
    views = [*first.double(), *second.double()]
    num = len(first)
    total = 0.0
    for i, view in enumerate(views):
        partner = (i + num) % (2 * num)
        terms = {k: math.exp(float(view @ other) / temperature) for k, other in enumerate(views) if k != i}
        total -= math.log(terms[partner] / sum(terms.values()))
    return total / (2 * num)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_the_loss_is_the_published_one(temperature: float) -> None:
    torch.manual_seed(0)
    first, second = (nn.functional.normalize(torch.randn(5, 7, dtype=torch.float64), dim=1) for _ in range(2))
    expected = naive_nt_xent(first, second, temperature)
    # Algebra in float64: rounding alone is left.
    assert float(nt_xent(first, second, temperature=temperature)) == pytest.approx(expected, abs=1e-12)
    swapped = second.roll(1, 0)
    assert float(nt_xent(first, swapped, temperature=temperature)) != pytest.approx(expected, abs=1e-3)


def test_the_loss_is_lowest_where_views_agree_and_pictures_differ() -> None:
    apart = torch.eye(4)
    same = torch.ones(4, 4) / 2
    assert float(nt_xent(apart, apart, temperature=0.1)) < 1e-3
    assert float(nt_xent(same, same, temperature=0.1)) == pytest.approx(math.log(7), abs=1e-6)


def pictures(num: int = NUM_PICTURES) -> Tensor:
    """Normalised pictures, each of a colour gradient of its own."""
    torch.manual_seed(1)
    corners = torch.rand(num, 3, 2, 2)
    grown = nn.functional.interpolate(corners, SIZE_PX, mode="bilinear", align_corners=True)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PREPROCESS.mean, PREPROCESS.std))
    return (grown - mean) / std


def test_views_depend_on_the_seed_alone() -> None:
    view, x = RandomView(PREPROCESS), pictures()
    torch.manual_seed(3)
    first = view(x)
    torch.manual_seed(3)
    assert torch.equal(first, view(x))
    assert not torch.equal(first, view(x))


def test_views_are_pictures() -> None:
    view, x = RandomView(PREPROCESS), pictures()
    seen = view(x)
    assert seen.shape == x.shape
    pixels = seen * view.std + view.mean
    assert float(pixels.min()) >= -1e-5
    assert float(pixels.max()) <= 1 + 1e-5
    assert all(not torch.equal(a, b) for a, b in zip(seen, x, strict=True))


def test_colour_can_be_lost() -> None:
    grey = RandomView(PREPROCESS, jitter=0.0, grey=1.0)
    pixels = grey(pictures()) * grey.std + grey.mean
    torch.testing.assert_close(pixels[:, 0], pixels[:, 1])
    torch.testing.assert_close(pixels[:, 1], pixels[:, 2])
    kept = RandomView(PREPROCESS, jitter=0.0, grey=0.0)(pictures())
    assert not torch.allclose(kept[:, 0], kept[:, 1])


def test_grey_pictures_have_one_channel() -> None:
    grey = Preprocess(size_px=SIZE_PX, crop=1.0, channels=1, mean=(0.4,), std=(0.2,))
    assert RandomView(grey)(pictures()[:, :1]).shape == (NUM_PICTURES, 1, SIZE_PX, SIZE_PX)


@pytest.mark.parametrize(
    "options", [{"area": (0.5, 0.2)}, {"area": (0.0, 1.0)}, {"jitter": 1.0}, {"grey": 2.0}]
)
def test_views_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match="expected two ascending shares"):
        RandomView(PREPROCESS, **options)


def network(seed: int = 0) -> Projected:
    torch.manual_seed(seed)
    encoder = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()
    )
    return Projected(encoder, 256, 16)


def task(model: nn.Module) -> TellApart:
    return TellApart(model, RandomView(PREPROCESS), lambda: [{"image": pictures()}])


def test_projections_have_length_one() -> None:
    lengths = network()(pictures()).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(NUM_PICTURES))


def test_evaluation_repeats_and_leaves_the_generator_alone() -> None:
    judged = task(network())
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    first = judged.evaluate(judged.model.eval())
    assert torch.equal(torch.rand(3), expected)
    assert judged.evaluate(judged.model.eval()) == first


def test_nothing_held_out_and_a_temperature_of_zero_are_refused() -> None:
    model = network()
    with pytest.raises(SampleError, match="no held-out"):
        TellApart(model, RandomView(PREPROCESS), list).evaluate(model)
    with pytest.raises(RecipeError, match="temperature is 0"):
        TellApart(model, RandomView(PREPROCESS), list, temperature=0.0)


class StopAfter:
    """Sends this process SIGTERM once a step is made."""

    def __init__(self, step: int) -> None:
        self.step = step

    def start(self, directory: Path, step: int, num_steps: int) -> None:
        pass

    def record(self, event: Event) -> None:
        if event.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)

    def stop(self) -> None:
        pass


def batches(start: int) -> Iterator[dict[str, Tensor]]:
    while True:
        yield {"image": pictures()}


def train(run: Path, stop_after: int = 0) -> Projected:
    model = network()
    schedule = Schedule(steps=NUM_STEPS, peak_lr=0.1, evaluate_every=NUM_STEPS)
    optimizer = SGD(param_groups(model), lr=0.1, momentum=0.9)
    watched = Run(run, {}, watchers=[StopAfter(stop_after)])
    fit(task(model), batches, optimizer, schedule, watched, fabric=processes.launch(accelerator="cpu"))
    return model


def test_it_learns_and_stopping_it_changes_nothing(tmp_path: Path) -> None:
    before = network()
    whole = train(tmp_path / "whole")
    for step in (13, 40):
        with pytest.raises(Interrupted):
            train(tmp_path / "stopped", step)
    stopped = train(tmp_path / "stopped")
    for name, value in whole.state_dict().items():
        assert torch.equal(stopped.state_dict()[name], value), name

    judged = task(whole)
    recognised = judged.evaluate(whole.eval())["recognised"]
    # By chance it would be one in sixteen; untrained colours already help.
    assert recognised > 4 / NUM_PICTURES
    assert recognised > judged.evaluate(before.eval())["recognised"]
