"""What a step of each student of `data_quality.py` costs, in turns, and what is paid once."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from data_quality_arms import ARMS, DRAWS, SEEDS, TOP_K, Place, member, student, teacher
from record import environment
from regraft.deploy.latency import device_name
from regraft.nn.device import best_device
from regraft.recipes.reinforcement import views_of
from regraft.train.journal import Event
from regraft.vision.reinforce import record

NUM_PICTURES, ROUNDS, STEPS, SKIPPED = 2560, 3, 18, 6
Times = tuple[float, float]
"""Seconds by the clock, and of the processor."""


class Stopwatch:
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.ends: list[Times] = []

    def start(self, directory: Path, step: int, num_steps: int) -> None:
        """Nothing is to be done."""

    def record(self, event: Event) -> None:
        """A step is over, and its loss known, so that a GPU has done it."""
        self.ends.append(now())

    def stop(self) -> None:
        """Nothing is to be done."""

    def median_step(self) -> Times:
        """Once the first steps are over."""
        ends = self.ends[SKIPPED:]
        return median_of([since(end, start) for start, end in pairwise(ends)])


def now() -> Times:
    return time.perf_counter(), time.process_time()


def since(end: Times, start: Times) -> Times:
    return end[0] - start[0], end[1] - start[1]


def median_of(times: list[Times]) -> Times:
    return statistics.median(wall_s for wall_s, _ in times), statistics.median(cpu_s for _, cpu_s in times)


def measure_time(place: Place) -> list[dict[str, object]]:
    """A line for each arm, for a view of a table, and for a step of a member of the teacher."""
    few = replace(place, train=place.train.take(range(NUM_PICTURES)))
    turns: dict[str, list[Times]] = {arm: [] for arm in ARMS}
    for number in range(ROUNDS):
        for arm in ARMS if number % 2 else reversed(ARMS):
            turns[arm].append(step_of(few, arm))
    scale, steps_an_epoch = place.scale, place.steps(1)
    steps_of_teacher = len(SEEDS) * scale.teacher_epochs * (len(place.everything) // scale.batch)
    costs = {arm: (median_of(times), steps_an_epoch * scale.epochs) for arm, times in turns.items()}
    costs["table"] = view_of_table(few), DRAWS * len(place.train)
    costs["teacher_training"] = step_of_teacher(place), steps_of_teacher
    where = environment("torch") | {"device": device_name(best_device()), "scale": scale.name}
    return [
        where
        | {"cost": what, "wall_s": wall_s, "cpu_s": cpu_s, "times": times, "steps_an_epoch": steps_an_epoch}
        for what, ((wall_s, cpu_s), times) in costs.items()
    ]


def step_of(few: Place, arm: str) -> Times:
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as scratch:
        ARMS[arm](few, student(few, 0, STEPS), Path(scratch), watch)
    return watch.median_step()


def view_of_table(few: Place) -> Times:
    """Of making a view, asking the teacher and storing its answer."""
    views, told = views_of(student(few, 0, 1), few.train, seed=0), teacher(few)
    told(torch.zeros(512, 3, 32, 32, dtype=torch.uint8))
    with tempfile.TemporaryDirectory() as scratch:
        start = now()
        made = record(Path(scratch) / "table", views, told, num_draws=DRAWS, top_k=TOP_K)
        wall_s, cpu_s = since(now(), start)
    return wall_s / made.num_rows, cpu_s / made.num_rows


def step_of_teacher(place: Place) -> Times:
    """Of one member, on pictures that are there already."""
    device = best_device()
    model = member(place).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    image = torch.randn(place.scale.batch, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    label = torch.zeros(place.scale.batch, dtype=torch.int64, device=device)

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            loss = nn.functional.cross_entropy(model(image), label)
        loss.backward()
        optimizer.step()
        return loss.item()

    return median_of(list(timed(step))[SKIPPED:])


def timed(action: Callable[[], object]) -> Iterator[Times]:
    for _ in range(STEPS):
        start = now()
        action()
        yield since(now(), start)
