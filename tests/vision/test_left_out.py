import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from regraft.errors import RunError
from regraft.vision.images import BadImage
from regraft.vision.left_out import LeftOut


def bad(*sample_ids: str) -> dict[str, BadImage]:
    return {name: BadImage(f"/data/{name}", "truncated", "12 bytes missing") for name in sample_ids}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "left_out.jsonl"


@pytest.mark.parametrize("is_on_disk", [False, True])
def test_pictures_are_named_once_in_the_order_they_were_met(path: Path, is_on_disk: bool):
    left_out = LeftOut(path if is_on_disk else None)
    assert (len(left_out), str(left_out)) == (0, "every picture could be read")
    for names in (["b"], ["b", "a"], ["a"], []):
        left_out.add(bad(*names))
    assert list(left_out) == ["b", "a"]
    assert len(left_out) == 2
    assert str(left_out).splitlines() == [
        "2 pictures turned bad and were left out of their batches:",
        "  b: /data/b: truncated (12 bytes missing).",
        "  a: /data/a: truncated (12 bytes missing).",
    ]


def test_a_run_that_goes_on_knows_what_was_met_before(path: Path):
    odd = "a\nb\udce9\u2028.png"  # A name with a line break, and bytes that are not UTF-8.
    LeftOut(path).add(bad(odd))
    size = path.stat().st_size
    resumed = LeftOut(path)
    resumed.add(bad(odd))
    assert path.stat().st_size == size
    assert list(resumed) == [odd]
    assert resumed.files[odd].defect == "truncated"
    assert str(resumed.files[odd]) == str(bad(odd)[odd])
    assert path.read_bytes().count(b"\n") == 1


def test_nothing_is_written_before_there_is_something(path: Path):
    left_out = LeftOut(path)
    left_out.add({})
    assert not len(left_out)
    assert not path.parent.exists()


@pytest.mark.parametrize("num_lost", [1, 2, 30])
def test_a_torn_line_costs_at_most_itself(path: Path, num_lost: int):
    LeftOut(path).add(bad("a", "b"))
    path.write_bytes(path.read_bytes()[:-num_lost])
    # Without its line break alone the last line still says all.
    before = ["a", "b"] if num_lost == 1 else ["a"]
    resumed = LeftOut(path)
    assert list(resumed) == before
    resumed.add(bad("c", "b"))
    assert set(LeftOut(path)) == {"a", "b", "c"}


def test_objects_with_one_file_see_each_others_pictures(path: Path):
    ours, theirs = LeftOut(path), LeftOut(path)
    ours.add(bad("a"))
    theirs.add(bad("a", "b"))
    assert list(ours) == list(theirs) == ["a", "b"]
    assert path.read_bytes().count(b"\n") == 2


ENDLESS = """
import itertools, sys
from pathlib import Path
from regraft.vision.images import BadImage
from regraft.vision.left_out import LeftOut

left_out = LeftOut(Path(sys.argv[1]))
for number in itertools.count():
    left_out.add({f"{sys.argv[2]}{number}": BadImage("x", "damaged", "y" * 99)})
    print(number, flush=True)
"""


def test_names_survive_a_kill_of_several_processes(path: Path):
    writers = [
        subprocess.Popen([sys.executable, "-c", ENDLESS, path, name], stdout=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    acknowledged: set[str] = set()
    for name, writer in zip("ab", writers, strict=True):
        assert writer.stdout is not None
        acknowledged |= {f"{name}{int(writer.stdout.readline())}" for _ in range(20)}
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
    for writer in writers:
        writer.communicate()
    assert len(acknowledged) == 40
    assert acknowledged <= set(LeftOut(path))


def test_it_can_be_sent_to_another_process(path: Path):
    left_out = LeftOut(path)
    left_out.add(bad("a"))
    assert list(pickle.loads(pickle.dumps(left_out))) == ["a"]


@pytest.mark.parametrize("line", ["[1]", '{"step": 1}', "3"])
def test_a_file_of_something_else_is_refused(path: Path, line: str):
    path.parent.mkdir()
    path.write_text(line + "\n")
    with pytest.raises(RunError, match=r"Line 1 of .* is not about a picture"):
        LeftOut(path)
