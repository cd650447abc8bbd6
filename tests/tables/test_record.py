import json
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
from table_toys import COLUMNS, IDS, Toy, contents, flip

from regraft.errors import PlaceError, RecipeError, ShapeError, TableError
from regraft.tables.columns import Bytes, TopK
from regraft.tables.record import Recorder
from regraft.tables.table import open_table

TOY = Toy()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole") / "toy"
    TOY.record(folder)
    return contents(folder)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording that was left after three blocks."""
    folder = tmp_path_factory.mktemp("left") / "toy"
    with TOY.recorder(folder) as recorder:
        for _ in range(3):
            recorder.append(TOY.block(recorder.num_rows))
    return folder


@pytest.fixture
def begun(left: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(left, tmp_path / "toy"))


def test_a_table_is_these_files(whole: dict[str, bytes]):
    assert whole.keys() == {"table.json", "ids.json", "blocks.jsonl", *(f"{name}.bin" for name in COLUMNS)}
    for name, records in TOY.records.items():
        assert whole[f"{name}.bin"] == records.tobytes()


def test_a_recording_goes_on_where_it_was_left(begun: Path, whole: dict[str, bytes]):
    with TOY.recorder(begun) as recorder:
        assert recorder.num_rows == 36
    TOY.record(begun)
    assert contents(begun) == whole


@pytest.mark.parametrize("name", [f"{name}.bin" for name in COLUMNS])
def test_records_without_a_line_do_not_count(begun: Path, whole: dict[str, bytes], name: str):
    with (begun / name).open("ab") as file:
        file.write(b"\xff" * 1000)
    with TOY.recorder(begun) as recorder:
        assert recorder.num_rows == 36
    TOY.record(begun)
    assert contents(begun) == whole


def test_half_a_line_does_not_count(begun: Path, whole: dict[str, bytes]):
    journal = (begun / "blocks.jsonl").read_bytes()
    start = journal[:-1].rindex(b"\n") + 1
    for end in (start, start + 1, start + 50, len(journal) - 2, len(journal) - 1):
        (begun / "blocks.jsonl").write_bytes(journal[:end])
        with TOY.recorder(begun) as recorder:
            assert recorder.num_rows == 9
        assert (begun / "blocks.jsonl").read_bytes() == journal[:start]
    TOY.record(begun)
    assert contents(begun) == whole


@pytest.mark.parametrize("torn", [lambda line: bytes(len(line)), lambda line: line[:-9] + bytes(9)])
def test_a_last_line_that_did_not_arrive_does_not_count(begun: Path, whole: dict[str, bytes], torn):
    *lines, last = (begun / "blocks.jsonl").read_bytes().splitlines()
    (begun / "blocks.jsonl").write_bytes(b"\n".join([*lines, torn(last), b""]))
    with TOY.recorder(begun) as recorder:
        assert recorder.num_rows == 9
    TOY.record(begun)
    assert contents(begun) == whole


def test_a_line_that_has_changed_is_named(begun: Path):
    flip(begun / "blocks.jsonl", len((begun / "blocks.jsonl").read_bytes().splitlines()[0]) + 30)
    with pytest.raises(TableError, match=r"blocks\.jsonl is damaged: line 2 is not as it was written"):
        TOY.recorder(begun)


def test_records_that_are_lost_are_noticed(begun: Path):
    os.truncate(begun / "half.bin", 36 * 6 - 1)
    with pytest.raises(TableError, match=r"half\.bin is damaged: it has 215 bytes, expected at least 216"):
        TOY.recorder(begun)
    (begun / "half.bin").unlink()
    with pytest.raises(TableError, match=r"half\.bin is damaged: it is not there"):
        TOY.recorder(begun)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Toy(ids=(*IDS[:5], "x", *IDS[6:])), "sample 5 is 'ant/1.png', expected 'x'"),
        (Toy(ids=IDS[:-1]), "num_samples is 20, expected 19; sample 19 is 'ant/15.png', expected None"),
        (Toy(num_draws=7), "num_draws is 6, expected 7"),
        (Toy(columns=COLUMNS | {"teacher": TopK(4, 20)}), "columns.teacher.k is 3, expected 4"),
        (Toy(columns={"teacher": TopK(3, 20)}), r"columns.half.width is 3, expected '\(not set\)'"),
        (Toy(columns=COLUMNS | {"more": Bytes(1)}), r"columns.more.kind is '\(not set\)', expected 'bytes'"),
        (Toy(origin={}), r"origin.teacher.name is 'toy', expected '\(not set\)'"),
        (Toy(origin={"teacher": {"name": "toy", "loss": 1}}), r"origin.teacher.loss is 0.5, expected 1"),
    ],
)
def test_another_recording_is_not_continued(begun: Path, other: Toy, message: str):
    before = contents(begun)
    with pytest.raises(TableError, match=f"holds another table: .*{message}"):
        other.recorder(begun)
    assert contents(begun) == before
    TOY.record(begun)
    with pytest.raises(TableError, match=f"holds another table: .*{message}"):
        other.recorder(begun)


def test_one_records_at_a_time(begun: Path):
    with TOY.recorder(begun), pytest.raises(TableError, match="Another process is recording in"):
        TOY.recorder(begun)
    TOY.recorder(begun).close()


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            lambda block: block.pop("half"),
            TableError,
            "columns teacher, old_feature, whole, params, expected teach",
        ),
        (lambda block: block.update(more=block["half"]), TableError, "more, expected teacher"),
        (lambda block: block.update(half=block["old_feature"]), ShapeError, "expected those of Vector"),
        (
            lambda block: block.update(half=block["half"][:, :2]),
            ShapeError,
            r"\(31, 2\), expected those of Vec",
        ),
        (lambda block: block.update(half=block["half"][1:]), TableError, "30 of half, 31 of whole"),
        (
            lambda block: block.update({name: part[:0] for name, part in block.items()}),
            TableError,
            "at least one",
        ),
        (
            lambda block: block.update({name: part.repeat(8, 0) for name, part in block.items()}),
            TableError,
            "248 rows, expected at most the 84 that",
        ),
    ],
)
def test_blocks_that_do_not_fit_are_refused(begun: Path, whole: dict[str, bytes], change, kind, message: str):
    before = contents(begun)
    with TOY.recorder(begun) as recorder:
        block = {name: records[36:67] for name, records in TOY.records.items()}
        change(block)
        with pytest.raises(kind, match=message):
            recorder.append(block)
        assert recorder.num_rows == 36
        assert contents(begun) == before
    TOY.record(begun)
    assert contents(begun) == whole


def test_records_need_not_be_contiguous(tmp_path: Path, whole: dict[str, bytes]):
    with TOY.recorder(tmp_path / "toy") as recorder:
        while recorder.num_rows < TOY.num_rows:
            block = TOY.block(recorder.num_rows)
            recorder.append({name: records.repeat(2, axis=0)[::2] for name, records in block.items()})
        recorder.seal()
    assert contents(tmp_path / "toy") == whole


def test_rows_may_not_be_missing(begun: Path):
    with (
        TOY.recorder(begun) as recorder,
        pytest.raises(TableError, match="has 36 rows, expected 120 to be sealed"),
    ):
        recorder.seal()
    assert not (begun / "table.json").exists()


def test_a_sealed_table_stays_as_it_is(tmp_path: Path, whole: dict[str, bytes]):
    table = TOY.record(tmp_path / "toy")
    with TOY.recorder(tmp_path / "toy") as recorder:
        assert recorder.num_rows == TOY.num_rows
        with pytest.raises(TableError, match="expected at most the 0 that"):
            recorder.append(TOY.block(0))
        assert recorder.seal().fingerprint == recorder.seal().fingerprint == table.fingerprint
    assert contents(tmp_path / "toy") == whole


def test_what_a_kill_left_of_sealing_is_cleared(begun: Path, whole: dict[str, bytes]):
    recording = (begun / "recording.json").read_bytes()
    (begun / ".table.json.0123abcd.tmp.json").write_bytes(b"{")
    TOY.record(begun)
    assert contents(begun) == whole
    (begun / "recording.json").write_bytes(recording)
    assert open_table(begun).ids == IDS
    TOY.record(begun)
    assert contents(begun) == whole


def test_a_full_disk_loses_nothing(begun: Path, whole: dict[str, bytes]):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with TOY.recorder(begun) as recorder:
        # The column of features has 576 bytes by now, and the block would bring it to 1,072. Others fit.
        resource.setrlimit(resource.RLIMIT_FSIZE, (900, hard))
        try:
            with pytest.raises(PlaceError, match=r"old_feature\.bin cannot be written: File too large"):
                recorder.append(TOY.block(recorder.num_rows))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert recorder.num_rows == 36
        while recorder.num_rows < TOY.num_rows:
            recorder.append(TOY.block(recorder.num_rows))
        recorder.seal()
    assert contents(begun) == whole


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PlaceError, match="holds something else than a table, expected a free name"):
        TOY.recorder(tmp_path)
    with pytest.raises(PlaceError, match=r"notes\.txt"):
        TOY.recorder(tmp_path / "notes.txt")
    with pytest.raises(PlaceError, match=r"notes\.txt is not a folder"):
        TOY.recorder(tmp_path / "notes.txt" / "toy")
    assert contents(tmp_path) == {"notes.txt": b"mine"}


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (("a", "b", "c", "b", "a"), "Sample 'b' comes twice"),
        (("a", "\ud83d\udc15"), "two halves of one char"),
    ],
)
def test_ids_that_cannot_be_told_apart_are_refused(tmp_path: Path, ids: tuple[str, ...], message: str):
    with pytest.raises(TableError, match=message):
        Toy(ids=ids).recorder(tmp_path / "toy")


@pytest.mark.parametrize("name", ["", "A", "a.b", "a__b", "_a", "draw", "sample_id", "a/b", "a\n"])
def test_names_that_are_no_columns_are_refused(tmp_path: Path, name: str):
    with pytest.raises(RecipeError, match="expected lower-case words"):
        Toy(columns={name: Bytes(1)}).recorder(tmp_path / "toy")


@pytest.mark.parametrize("toy", [Toy(ids=()), Toy(num_draws=0), Toy(columns={})])
def test_a_table_of_nothing_is_refused(tmp_path: Path, toy: Toy):
    with pytest.raises(RecipeError, match="expected at least one of each"):
        toy.recorder(tmp_path / "toy")


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, Path("x")])
def test_an_origin_is_json(tmp_path: Path, value: object):
    with pytest.raises(TableError, match="cannot be written as JSON"):
        Toy(origin={"data": value}).recorder(tmp_path / "toy")


def test_an_origin_is_told_as_it_is_read(tmp_path: Path):
    toy = Toy(origin={"size_px": (3, 4), "classes": {1: "ant"}})
    assert toy.record(tmp_path / "toy").origin == {"size_px": [3, 4], "classes": {"1": "ant"}}
    toy.record(tmp_path / "toy")


def test_a_journal_tells_of_every_block(tmp_path: Path):
    table = TOY.record(tmp_path / "toy")
    lines = [json.loads(line) for line in (tmp_path / "toy/blocks.jsonl").read_bytes().splitlines()]
    assert [line["block"]["num_rows"] for line in lines] == [block.num_rows for block in table.blocks]
    assert sum(block.num_rows for block in table.blocks) == 120
    assert len(np.unique([block.num_rows for block in table.blocks])) > 3


def test_a_recorder_that_cannot_begin_holds_nothing(begun: Path):
    os.truncate(begun / "half.bin", 0)
    for _ in range(2):
        with pytest.raises(TableError, match="expected at least 216"):
            TOY.recorder(begun)


def test_settings_are_checked_before_anything_is_made(tmp_path: Path):
    with pytest.raises(TableError):
        Recorder(tmp_path / "toy", ids=["a", "a"], num_draws=1, columns=COLUMNS, origin={})
    assert not list(tmp_path.iterdir())
