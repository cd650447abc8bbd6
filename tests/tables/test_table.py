import json
import os
import pickle
import shutil
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_toys import COLUMNS, IDS, Toy, flip

from regraft.errors import TableError
from regraft.tables.columns import Bytes
from regraft.tables.record import Recorder
from regraft.tables.table import Table, open_table

TOY = Toy()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables") / "toy"
    TOY.record(folder)
    return folder


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(recorded, tmp_path / "copy"))


def block_of(table: Table, row: int) -> int:
    return int(np.searchsorted(np.cumsum([block.num_rows for block in table.blocks]), row, side="right"))


def everywhere(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """The rank and the draw of every row."""
    ranks, draws = np.divmod(np.arange(table.num_rows), table.num_draws)
    return ranks, draws


def test_what_was_recorded_is_told(recorded: Path):
    table = open_table(str(recorded))
    assert (table.ids, table.num_draws, table.num_rows) == (IDS, 6, 120)
    assert table.columns == COLUMNS
    assert table.origin == TOY.origin
    assert len(table.fingerprint) == 32


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(IDS) - 1), st.integers(0, 5))), st.sampled_from([*COLUMNS]))
def test_any_rows_of_any_column_come_back(recorded: Path, keys: list[tuple[int, int]], name: str):
    table = open_table(recorded)
    ranks, draws = np.array(keys, np.int32).reshape(-1, 2).T
    expected = TOY.records[name].reshape(len(IDS), 6, *COLUMNS[name].dtype.shape)[ranks, draws]
    found = table.read(name, ranks, draws)
    assert found.dtype == COLUMNS[name].dtype.base
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", COLUMNS)
def test_all_records_at_once(recorded: Path, name: str):
    records = open_table(recorded).records(name)
    assert records.shape == (len(IDS), 6, *COLUMNS[name].dtype.shape)
    assert records.tobytes() == TOY.records[name].tobytes()
    with pytest.raises(ValueError, match="read-only"):
        records[0, 0] = records[1, 1]


def test_what_is_read_belongs_to_the_reader(recorded: Path):
    table = open_table(recorded)
    table.read("params", *everywhere(table))[:] = 0
    table.verify()


def test_ranks_are_found_by_id(recorded: Path):
    table = open_table(recorded)
    assert table.ranks_of(["ant/3.png", "", "cat/\udcff.jpg", "", "two\nlines"]).tolist() == [7, 2, 0, 2, 1]
    assert table.ranks_of([]).tolist() == []
    with pytest.raises(TableError) as error:
        table.ranks_of(["ant/3.png", "ant/3.pgn", "b", "c", "d\udc80"])
    assert "4 of 5 samples are not among the 20 of" in str(error.value)
    assert ": 'ant/3.pgn', 'b', 'c' and 1 more.\n  hint: Was it" in str(error.value)


@pytest.mark.parametrize(
    ("rank", "draw", "message"),
    [
        (20, 0, "no rank 20, expected 0 to 19"),
        (-1, 0, "no rank -1"),
        (0, 6, "no draw 6, expected 0 to 5"),
        (0, -1, "no draw -1"),
    ],
)
def test_rows_that_are_not_there_are_refused(recorded: Path, rank: int, draw: int, message: str):
    with pytest.raises(TableError, match=message):
        open_table(recorded).read("params", np.array([0, rank]), np.array([0, draw]))


def test_a_column_that_is_not_there_is_refused(recorded: Path):
    for ask in (
        open_table(recorded).records,
        lambda name: open_table(recorded).read(name, *np.zeros((2, 1), int)),
    ):
        with pytest.raises(
            TableError, match=r"no column 'param'; it has teacher, .*\n  hint: Did you mean 'params'"
        ):
            ask("param")


def test_an_origin_is_compared_by_dotted_names(recorded: Path):
    table = open_table(recorded)
    table.require({})
    table.require({"teacher": {"name": "toy"}})
    table.require({"teacher.loss": 0.5})
    with pytest.raises(TableError) as error:
        table.require({"teacher": {"name": "toy", "loss": 0.25}, "data": {"seed": (1, 2)}})
    assert "data.seed is '(not set)', expected [1, 2]; teacher.loss is 0.5, expected 0.25." in str(
        error.value
    )
    with pytest.raises(TableError, match=r"teacher is '\(not set\)', expected \{\}"):
        table.require({"teacher": {}})


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("row", [0, 1, 60, 119])
def test_a_changed_byte_is_found_when_its_block_is_read(folder: Path, name: str, row: int):
    width = COLUMNS[name].dtype.itemsize
    flip(folder / f"{name}.bin", row * width + row % width)
    table = open_table(folder)
    number, (ranks, draws) = block_of(table, row), everywhere(table)
    block = np.array([block_of(table, each) for each in range(table.num_rows)])
    sound = block != number
    assert table.read(name, ranks[sound], draws[sound]).tobytes() == TOY.records[name][sound].tobytes()
    for other in COLUMNS.keys() - {name}:
        table.read(other, ranks, draws)
    message = rf"{name}\.bin is damaged: block {number} of column '{name}', rows"
    for place in np.flatnonzero(~sound):
        with pytest.raises(TableError, match=message):
            table.read(name, ranks[[0, place]], draws[[0, place]])
    with pytest.raises(TableError, match=message):
        table.verify()


def test_damage_is_found_again_after_it_was_read_well(folder: Path):
    table = open_table(folder)
    table.read("params", *everywhere(table))
    table.verify()
    flip(folder / "params.bin", 3)
    with pytest.raises(TableError, match="block 0 of column 'params', rows 0 to 0, has checksum"):
        open_table(folder).verify()


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (599, r"params\.bin is damaged: it has 599 bytes, expected 600"),
        (601, "it has 601 bytes, expected 600"),
        (0, "cannot be read"),
    ],
)
def test_a_file_of_another_length_is_refused(folder: Path, size: int, message: str):
    os.truncate(folder / "params.bin", size)
    with pytest.raises(TableError, match=message):
        open_table(folder)


@pytest.mark.parametrize("name", ["ids.json", "blocks.jsonl", "table.json", "params.bin"])
def test_a_file_that_is_gone_is_named(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(
        TableError, match=f"no table in .*{name}" if name == "table.json" else f"{name} is damaged"
    ):
        open_table(folder)


@pytest.mark.parametrize("name", ["ids.json", "blocks.jsonl", "table.json"])
def test_any_changed_bit_beside_the_records_is_found(folder: Path, name: str):
    whole = (folder / name).read_bytes()
    for place in np.random.default_rng(0).permutation(len(whole))[:100].tolist():
        if not whole[place : place + 1].isspace():
            flip(folder / name, place)
            with pytest.raises(TableError):
                open_table(folder)
            (folder / name).write_bytes(whole)
    open_table(folder)


def test_an_edited_manifest_is_refused(folder: Path):
    manifest = json.loads((folder / "table.json").read_bytes())
    manifest["origin"]["teacher"]["name"] = "better"
    (folder / "table.json").write_text(json.dumps(manifest))
    with pytest.raises(TableError, match=r"table\.json is damaged: its fingerprint is .*, expected"):
        open_table(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff"])
def test_a_manifest_that_is_none_is_refused(folder: Path, text: str):
    (folder / "table.json").write_text(text, encoding="latin-1")
    with pytest.raises(TableError, match=r"table\.json is damaged: it "):
        open_table(folder)


def test_a_later_version_is_refused(folder: Path):
    manifest = json.loads((folder / "table.json").read_bytes()) | {"version": 2}
    (folder / "table.json").write_text(json.dumps(manifest))
    with pytest.raises(
        TableError, match=r"is of version 2; this release reads version 1.\n  hint: pip install"
    ):
        open_table(folder)


def test_an_unfinished_table_says_how_far_it_is(tmp_path: Path):
    with TOY.recorder(tmp_path / "toy") as recorder:
        recorder.append(TOY.block(0))
        recorder.append(TOY.block(1))
    with pytest.raises(
        TableError, match=r"not finished: 9 of 120 rows are recorded.\n  hint: Run the recording"
    ):
        open_table(tmp_path / "toy")


def test_no_table_is_told_apart(tmp_path: Path):
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(TableError, match=r"There is no table in .*, expected a table\.json"):
            open_table(folder)


def test_a_fingerprint_names_everything(tmp_path: Path):
    toys = [
        Toy(),
        Toy(seed=1),
        Toy(ids=IDS[::-1]),
        Toy(origin={"teacher": {"name": "toy", "loss": 0.75}}),
        Toy(columns={("other" if name == "half" else name): each for name, each in COLUMNS.items()}),
        Toy(ids=IDS[:10], num_draws=12),
    ]
    prints = [toy.record(tmp_path / str(number)).fingerprint for number, toy in enumerate(toys)]
    assert len(set(prints)) == len(toys)
    again = Toy(origin={"teacher": {"loss": 0.5, "name": "toy"}}, columns=dict(reversed(COLUMNS.items())))
    # Records are drawn in the order of the columns, so those of the first toy are given to it.
    with again.recorder(tmp_path / "again") as recorder:
        while recorder.num_rows < again.num_rows:
            recorder.append(TOY.block(recorder.num_rows))
        assert recorder.seal().fingerprint == prints[0]


# Of half characters only those that stand for the bytes of a file name.
LETTERS = st.characters(exclude_categories=["Cs"]) | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(LETTERS), min_size=1, unique=True))
def test_any_ids_come_back(tmp_path_factory: pytest.TempPathFactory, ids: list[str]):
    folder = tmp_path_factory.mktemp("ids") / "t"
    with Recorder(folder, ids=ids, num_draws=1, columns={"x": Bytes(1)}, origin={}) as recorder:
        recorder.append({"x": np.zeros((len(ids), 1), np.uint8)})
        assert recorder.seal().ids == tuple(ids)


def test_another_process_opens_it_again(recorded: Path):
    table = open_table(recorded)
    ranks, draws = everywhere(table)
    with get_context("spawn").Pool(1) as pool:
        found = pool.apply(table.read, ("params", ranks, draws))
    assert found.tobytes() == TOY.records["params"].tobytes()


def test_a_relative_path_is_opened_again_from_anywhere(recorded: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(recorded.parent)
    sent = pickle.dumps(open_table(recorded.name))
    monkeypatch.chdir("/")
    assert pickle.loads(sent).ids == IDS
    assert len(sent) < 500


def test_a_table_that_was_replaced_is_not_mistaken(folder: Path):
    sent = pickle.dumps(open_table(folder))
    shutil.rmtree(folder)
    Toy(seed=1).record(folder)
    with pytest.raises(TableError, match="replaced while it was in use"):
        pickle.loads(sent)


FORKED = """
import os, sys
from table_toys import Toy
from regraft.tables.table import open_table

table = open_table(sys.argv[1])
ranks, draws = [part.ravel() for part in __import__("numpy").indices((len(table.ids), table.num_draws))]
before = table.read("params", ranks[:1], draws[:1])
child = os.fork()
same = table.read("params", ranks, draws).tobytes() == Toy().records["params"].tobytes()
if not child:
    os._exit(0 if same else 1)
sys.exit(0 if same and os.waitpid(child, 0)[1] == 0 else 1)
"""


def test_a_forked_process_goes_on_reading(recorded: Path):
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(recorded)],
        cwd=Path(__file__).parent,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
