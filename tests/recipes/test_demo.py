"""The main job from end to end, on a few made-up pictures: killed, continued, and asked again."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from typer.testing import CliRunner

from regraft.cli import app
from regraft.errors import RunError, SampleError
from regraft.recipes import demo_steps
from regraft.recipes.demo import run
from regraft.recipes.demo_data import second_recipe
from regraft.recipes.demo_steps import stretched
from regraft.recipes.gallery import status
from regraft.recipes.parts import load_parts, paths
from regraft.recipes.proof import NUM_RANDOM
from regraft.recipes.recipe import Recipe
from regraft.recipes.small import mobileone_mini
from regraft.recipes.story import Record, Step, Story
from regraft.train.journal import Watcher, read_events

NUM_STEPS = 30
NUM_EACH = 14
NAMES = [
    "look", "grow", "fuse", "export", "latency", "gallery", "queries", "vary", "reinforce", "compare",
    "regrow", "judge", "plan", "upgrade", "report",
]  # fmt: skip
COMMAND = [sys.executable, "-c", "from regraft.cli import main; main()", "demo"]


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.old: list[str] = []
        self.new: list[str] = []

    @property
    def watchers(self) -> Sequence[Watcher]:
        return ()

    def begin(self, number: int, num_steps: int, step: Step) -> None:
        assert (number, num_steps) == (NAMES.index(step.name) + 1, len(NAMES))
        self.begun.append(step.name)

    def advance(self, num_done: int, num_total: int) -> None:
        assert num_done <= num_total

    def end(self, step: Step, record: Record, *, is_old: bool) -> None:
        (self.old if is_old else self.new).append(step.name)


def make_pictures(folder: Path) -> None:
    """Three classes of blotches, told apart by their colour, and one file that is no picture."""
    generator = np.random.default_rng(0)
    for channel, name in enumerate(("blue", "green", "red")):
        (folder / name).mkdir(parents=True)
        for number in range(NUM_EACH):
            pixels = generator.integers(0, 120, (12, 12, 3), np.uint8)
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    (folder / "red" / "broken.png").write_bytes(b"no picture")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("demo")
    make_pictures(folder / "pictures")
    return Story(out=folder / "out", images=folder / "pictures", steps=NUM_STEPS)


@pytest.fixture(scope="module")
def killed(story: Story) -> Story:
    """A demo whose process was killed in training, after a checkpoint."""
    options = ["--images", str(story.images), "--out", str(story.out), "--steps", str(story.steps)]
    process = subprocess.Popen([*COMMAND, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list((story.run / "checkpoints").glob("step-*[0-9]")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return story


@pytest.fixture(scope="module")
def told(killed: Story) -> tuple[Listener, dict[str, Record]]:
    """The same demo, continued to its end."""
    listener = Listener()
    return listener, run(killed, listener)


def test_a_killed_demo_goes_on_where_it_was(killed: Story, told: tuple[Listener, dict[str, Record]]) -> None:
    listener, records = told
    assert listener.old == ["look"]
    assert listener.begun == listener.new == NAMES[1:]
    assert list(records) == NAMES
    assert records["grow"].facts["num_starts"] == 2
    assert [event.step for event in read_events(killed.run)] == list(range(1, NUM_STEPS + 1))


def test_a_second_run_does_nothing(told: tuple[Listener, dict[str, Record]], story: Story) -> None:
    before = {path: path.stat().st_mtime_ns for path in story.out.rglob("*") if path.name != ".lock"}
    listener = Listener()
    assert run(story, listener) == told[1]
    assert listener.old == NAMES
    assert not listener.begun
    assert before == {path: path.stat().st_mtime_ns for path in story.out.rglob("*") if path.name != ".lock"}


def test_what_follows_a_step_done_anew_is_done_anew(
    told: tuple[Listener, dict[str, Record]], story: Story
) -> None:
    (story.out / "steps" / "queries.json").unlink()
    listener = Listener()
    records = run(story, listener)
    assert listener.begun == [
        "queries",
        "vary",
        "reinforce",
        "compare",
        "regrow",
        "judge",
        "plan",
        "upgrade",
        "report",
    ]
    # The gallery had been upgraded. It went back to its first model, and then on to the second once more.
    assert records["queries"].facts == told[1]["queries"].facts
    assert qualities(records) == qualities(told[1])


def test_every_claim_is_proven(told: tuple[Listener, dict[str, Record]]) -> None:
    facts = {name: record.facts for name, record in told[1].items()}
    artifacts = facts["export"]["artifacts"]
    assert {"onnx"} <= set(artifacts)
    for parity in (facts["fuse"]["parity"], *(artifact["parity"] for artifact in artifacts.values())):
        assert parity["passed"]
        assert parity["num_inputs"] > NUM_RANDOM
    assert facts["fuse"]["after"]["kinds"].keys() == {"conv", "activation", "pool", "linear"}
    assert facts["fuse"]["after"]["parameters"] < facts["fuse"]["before"]["parameters"]
    assert {len(candidates) for candidates in facts["latency"]["latencies"].values()} == {2 + len(artifacts)}


def test_the_parts_are_disjoint_and_searched_honestly(
    told: tuple[Listener, dict[str, Record]], story: Story
) -> None:
    parts = load_parts(story.parts)
    files = [file for part in (parts.train, parts.gallery, parts.queries) for file in paths(part)]
    assert len(files) == len(set(files)) == 3 * NUM_EACH
    queries = told[1]["queries"].facts
    assert told[1]["gallery"].facts["num_rows"] == len(parts.gallery)
    kept = set(map(str, paths(parts.gallery)))
    assert all(set(answer["hits"]) <= kept for answer in queries["typical"])
    assert queries["total"]["num_queries"] == len(parts.queries)
    # Colours are easy: anything near chance would mean that labels or pictures are mixed up.
    assert queries["total"]["at_1"] > 0.6


def qualities(records: dict[str, Record]) -> list[tuple[float, float]]:
    moments = [records["upgrade"].facts["before"], *records["upgrade"].facts["moments"]]
    return [(moment["share"], moment["map"]) for moment in moments]


def test_the_second_model_takes_over_while_the_gallery_answers(
    told: tuple[Listener, dict[str, Record]], story: Story
) -> None:
    records = told[1]
    made, done = records["plan"].facts, records["upgrade"].facts
    assert records["regrow"].facts["parity"]["passed"]
    assert made["old"]["space"] == records["gallery"].facts["space"] != made["new"]["space"]
    assert made["num_pairs"] == len(load_parts(story.parts).train)
    shares = [moment["share"] for moment in done["moments"]]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    spaces = [space for moment in done["moments"] for space in moment["spaces"]]
    assert spaces == sorted(spaces, key=[made["old"]["space"], made["new"]["space"]].index)
    assert min(done["num_answers"].values()) >= 1
    assert done["num_answers"]["new"] >= len(shares)
    num_right = len(records["queries"].facts["right"]) + done["num_gained"] - done["num_lost"]
    assert num_right == pytest.approx(done["total"]["at_1"] * done["total"]["num_queries"])
    state = status(story.gallery)
    assert (state.space, state.rows["native"]) == (made["new"]["space"], records["gallery"].facts["num_rows"])


def test_an_upgrade_that_was_interrupted_is_measured_on_from_where_it_was(
    told: tuple[Listener, dict[str, Record]], story: Story
) -> None:
    (story.out / "steps" / "upgrade.json").unlink()
    moments = json.loads(story.live.read_bytes())
    story.live.write_text(json.dumps(moments[:-2]))
    records = run(story, Listener())
    assert qualities(records)[:-2] == qualities(told[1])[:-2]
    # What had been encoded was not lost: only the measuring is done again.
    assert {share for share, _ in qualities(records)[-2:]} == {1.0}


def test_the_report_is_one_file_that_says_it_all(
    told: tuple[Listener, dict[str, Record]], story: Story
) -> None:
    page = (story.out / "report.html").read_text()
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert not re.search(r"url\((?!#)|@import|<script|<link", page)
    facts = {name: record.facts for name, record in told[1].items()}
    sizes = [facts["fuse"][name]["operations"] for name in ("before", "after")]
    assert f"{sizes[0]} → {sizes[1]}" in page
    assert page.count("<svg") == 8
    assert "red/broken.png" in page
    assert told[1]["latency"].device in page
    for candidate in facts["latency"]["latencies"]["8"].values():
        assert f"{candidate['wall_median_ms']:.2f}" in page
    for answer in (*facts["queries"]["typical"], *facts["queries"]["mistakes"]):
        assert answer["query"] in page


def test_other_settings_are_refused(told: tuple[Listener, dict[str, Record]], story: Story) -> None:
    other = Story(out=story.out, images=story.images, steps=NUM_STEPS + 1)
    with pytest.raises(RunError, match="steps was 30 and is 31") as caught:
        run(other, Listener())
    assert caught.value.hint is not None


def test_a_wrong_folder_can_be_corrected(tmp_path: Path) -> None:
    for name in ("wrong", "also wrong"):
        with pytest.raises(SampleError, match=f"{name} is not a folder"):
            run(Story(out=tmp_path / "out", images=tmp_path / name), Listener())


def test_a_folder_has_one_demo_at_a_time(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(RunError, match="Another process"):
        run(Story(out=tmp_path), Listener())


def test_the_command_tells_the_facts_or_the_place(
    told: tuple[Listener, dict[str, Record]], story: Story
) -> None:
    options = ["demo", "--images", str(story.images), "--out", str(story.out), "--steps", str(story.steps)]
    plain = CliRunner().invoke(app, options)
    assert plain.stdout.splitlines()[-1].startswith(f"The report is {story.out / 'report.html'}; open it")
    assert told[1]["fuse"].headline in plain.stdout
    as_json = CliRunner().invoke(app, [*options, "--json"])
    assert list(json.loads(as_json.stdout)) == NAMES
    assert "done before" in as_json.stderr


def test_digits_are_written_whole_and_once(tmp_path: Path) -> None:
    demo_steps.write_digits(tmp_path / "images")
    files = sorted((tmp_path / "images").rglob("*.png"))
    assert len(files) == 1797
    with Image.open(files[0]) as first:
        assert (first.size, first.mode, first.getextrema()) == ((8, 8), "L", (0, 239))
    demo_steps.write_digits(tmp_path / "images")


@pytest.mark.parametrize("original", [mobileone_mini(), second_recipe()])
@pytest.mark.parametrize(("steps", "num_train"), [(None, 5000), (1, 5), (60, 72), (20_000, 5000)])
def test_a_recipe_stretches(original: Recipe, steps: int | None, num_train: int) -> None:
    recipe = stretched(original, steps, num_train)
    assert recipe.schedule.steps == (steps or original.schedule.steps)
    assert recipe.batch_size <= num_train
    assert recipe.schedule.warmup_steps < recipe.schedule.steps
