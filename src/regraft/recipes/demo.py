"""The whole story in one folder: from pictures by class to a proven, deployed model that answers searches,
and to a better one in its place.

    regraft-demo/
      demo.json       what was asked for; a folder belongs to one demo
      steps/          what each finished step found, as JSON
      images/         the digits, where no pictures were given
      split.json      which picture is for training, for the gallery, or a query
      run/            the training run
      fused.safetensors, model.onnx, model.xml, gallery/, graph.svg
      varied_run/     the training run that learns how strongly to vary pictures
      tables/         what the first networks say of many views of each picture
      plain_run/      the training run of the second model on labels alone
      second_run/     the training run of the second model on that table
      second.safetensors, live.json (what was measured while it took the first one's place)
      report.html     all of it for a person

Killed at any instant and started again, it goes on after the last finished step; trainings, the gallery and
its upgrade go on in their middle.
"""

import json
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from regraft.deploy.latency import device_name
from regraft.errors import RunError
from regraft.files import check_place, replacing
from regraft.recipes import demo_data, demo_steps, demo_upgrade
from regraft.recipes.report import write_report
from regraft.recipes.story import Follower, Record, Result, Step, Story

REPORT = "report.html"


def run(story: Story, follower: Follower) -> dict[str, Record]:
    """Tell the story to its end, beginning after the last step that was finished before.

    Takes some minutes on two cores with the digits and the default number of training steps; the report says
    how many.

    Returns:
        What each step found, in order.

    Raises:
        RunError: The folder belongs to a demo with other settings, or another process works in it.
        SampleError: The pictures cannot be used.
        ParityError: A fused or exported model does not give the trained model's answers.
        Interrupted: Training was asked to stop, and has saved its state.
    """
    report = Step("report", "writing the report", _report)
    steps = (*demo_steps.STEPS, *demo_data.STEPS, *demo_upgrade.STEPS, report)
    records: dict[str, Record] = {}
    with _claimed(story.out):
        _settle(story)
        is_old = True
        for number, step in enumerate(steps, start=1):
            # What follows a step that is done anew must be done anew too.
            is_old = is_old and _record_path(story, step).exists()
            if not is_old:
                follower.begin(number, len(steps), step)
                _perform(story, step, records, follower)
            record = _recall(story, step)
            follower.end(step, record, is_old=is_old)
            records[step.name] = record
    return records


def _report(story: Story, earlier: Mapping[str, Record], follower: Follower) -> Result:
    path = story.out / REPORT
    write_report(path, story, earlier)
    return Result(f"{path.stat().st_size / 1e6:.1f} MB in one file", {"path": str(path)})


def _perform(story: Story, step: Step, earlier: Mapping[str, Record], follower: Follower) -> None:
    started_s = time.monotonic()
    result = step.perform(story, earlier, follower)
    record = Record(
        headline=result.headline,
        facts=result.facts,
        duration_s=time.monotonic() - started_s,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        device=device_name(),
        num_threads=torch.get_num_threads(),
    )
    _write_json(_record_path(story, step), asdict(record))


def _recall(story: Story, step: Step) -> Record:
    return Record(**json.loads(_record_path(story, step).read_bytes()))


def _record_path(story: Story, step: Step) -> Path:
    return story.out / "steps" / f"{step.name}.json"


@contextmanager
def _claimed(folder: Path) -> Generator[None]:
    check_place(folder / ".lock")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        with lock.acquire(timeout=0):
            yield
    except Timeout as error:
        raise RunError(
            f"Another process works in {folder}.", hint="Wait for it, or give another folder with --out."
        ) from error


def _settle(story: Story) -> None:
    """Note the settings of a new demo, and refuse to go on with others."""
    path = story.out / "demo.json"
    if not (story.out / "steps").exists():
        # Nothing was made yet, perhaps because the settings were wrong.
        _write_json(path, story.settings)
        return
    old = json.loads(path.read_bytes())
    changed = [
        f"{name} was {old.get(name)} and is {value}"
        for name, value in story.settings.items()
        if old.get(name) != value
    ]
    if changed:
        raise RunError(
            f"{story.out} belongs to another demo: {'; '.join(changed)}.",
            hint="Give another folder with --out, or remove this one.",
        )


def _write_json(path: Path, value: object) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
