from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from table_toys import Toy, contents, flip

from regraft.errors import PlaceError, TableError
from regraft.tables import arrow
from regraft.tables.columns import TopK, Vector
from regraft.tables.exchange import export_table, import_table
from regraft.tables.table import Table, open_table

TOY = Toy(ids=("two\nlines", "", "dog/\U0001f415.png", *(f"ant/{number}.png" for number in range(17))))
SUFFIXES = (".arrow", ".parquet", ".lance")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return TOY.record(tmp_path_factory.mktemp("tables") / "toy")


def read(path: Path) -> pa.Table:
    """What another program sees."""
    match path.suffix:
        case ".arrow":
            return pa.ipc.open_file(path).read_all()
        case ".parquet":
            return parquet.read_table(path)
        case _:
            return lancedb.connect(path.parent).open_table(path.stem).to_arrow()


def write(path: Path, rows: pa.Table) -> None:
    """A file that another program has changed."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
        writer.write_table(rows)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_comes_back_to_the_bit(table: Table, tmp_path: Path, suffix: str):
    export_table(table, tmp_path / f"toy{suffix}")
    back = import_table(tmp_path / f"toy{suffix}", tmp_path / "toy")
    assert back.fingerprint == table.fingerprint
    assert contents(tmp_path / "toy") == contents(table.folder)
    assert {path.name for path in tmp_path.iterdir()} == {"toy", f"toy{suffix}"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_batches_need_not_be_blocks(tmp_path: Path, suffix: str):
    wide = Toy(ids=TOY.ids, columns={"wide": Vector(arrow.BATCH_BYTES // 100), "teacher": TopK(3, 20)})
    table = wide.record(tmp_path / "toy")
    lengths = [batch.num_rows for batch in arrow.batches_of(table)]
    assert 1 < len(lengths) < len(table.blocks)
    export_table(table, tmp_path / f"wide{suffix}")
    assert import_table(tmp_path / f"wide{suffix}", tmp_path / "back").fingerprint == table.fingerprint


def test_every_value_of_a_float_comes_back(tmp_path: Path):
    toy = Toy(ids=tuple(f"{number}" for number in range(2048)), num_draws=8)
    with toy.recorder(tmp_path / "toy") as recorder:
        every = np.arange(2**16, dtype=np.uint16)[: 3 * (2**16 // 3)].view("<f2").reshape(-1, 3)
        numbers = np.resize(every, (toy.num_rows, 3))
        recorder.append(toy.records | {"half": numbers})
        table = recorder.seal()
    for suffix in SUFFIXES:
        export_table(table, tmp_path / f"toy{suffix}")
        assert import_table(tmp_path / f"toy{suffix}", tmp_path / suffix[1:]).fingerprint == table.fingerprint


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_programs_read_it(table: Table, tmp_path: Path, suffix: str):
    export_table(table, tmp_path / f"toy{suffix}")
    rows = read(tmp_path / f"toy{suffix}")
    if suffix == ".lance":
        rows = rows.rename_columns([name.replace("__", ".") for name in rows.column_names])
    ranks, draws = np.divmod(np.arange(table.num_rows), table.num_draws)
    assert rows["sample_id"].to_pylist() == [table.ids[rank] for rank in ranks]
    assert rows["draw"].to_pylist() == draws.tolist()
    batch = TopK(3, 20).decode(table.read("teacher", ranks, draws))
    assert rows["teacher.ids"].to_pylist() == batch.ids.tolist()
    assert rows["teacher.probability"].to_pylist() == batch.probabilities.tolist()
    for name in ("old_feature", "half", "whole"):
        assert rows[name].to_pylist() == table.records(name).reshape(table.num_rows, -1).tolist()
    assert rows["params"].to_pylist() == [row.tobytes() for row in TOY.records["params"]]
    assert [str(field.type).replace("element", "item") for field in rows.schema] == [
        "string",
        "uint32",
        "fixed_size_list<item: uint16>[3]",
        "fixed_size_list<item: uint8>[3]",
        "uint8",
        "fixed_size_list<item: float>[3]",
        "fixed_size_list<item: float>[4]",
        "fixed_size_list<item: halffloat>[3]",
        "fixed_size_list<item: int8>[2]",
        "fixed_size_binary[5]",
    ]


def replaced(rows: pa.Table, name: str, values: pa.ChunkedArray | pa.Array) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), name, values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.replace_schema_metadata({}), "says nothing of a table of Regraft"),
        (lambda rows: rows.slice(1), "has 119 rows, expected 120"),
        (lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]), "has 121 rows, expected 120"),
        (lambda rows: pa.concat_tables([rows.slice(1), rows.slice(0, 1)]), "or in another order"),
        (
            lambda rows: replaced(rows, "params", rows["params"].take(pa.array([0] * 120))),
            "not those that were",
        ),
        (lambda rows: rows.drop_columns(["params"]), "params"),
        (
            lambda rows: replaced(rows, "teacher.rest", rows["teacher.rest"].cast(pa.uint16())),
            "'teacher.rest' is uint16 with 0 missing values, expected uint8",
        ),
        (
            lambda rows: replaced(rows, "teacher.rest", pa.array([None] * 120, pa.uint8())),
            "'teacher.rest' is uint8 with 1 missing values",
        ),
    ],
)
def test_changed_rows_are_not_imported(table: Table, tmp_path: Path, change, message: str):
    path = tmp_path / "toy.arrow"
    export_table(table, path)
    write(path, change(read(path)))
    with pytest.raises(TableError, match=message):
        import_table(path, tmp_path / "toy")
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_table_is_refused(tmp_path: Path):
    for suffix in (".arrow", ".parquet"):
        path = tmp_path / f"toy{suffix}"
        path.write_bytes(b"something else")
        with pytest.raises(TableError, match=f"{path} cannot be read: "):
            import_table(path, tmp_path / "toy")
    (tmp_path / "toy.lance").mkdir()
    with pytest.raises(TableError, match=r"toy\.lance cannot be read: "):
        import_table(tmp_path / "toy.lance", tmp_path / "toy")
    with pytest.raises(TableError, match=r"There is no .*; expected an exported table"):
        import_table(tmp_path / "nothing.arrow", tmp_path / "toy")
    assert not (tmp_path / "toy").exists()


def test_a_name_says_the_format(table: Table, tmp_path: Path):
    with pytest.raises(TableError, match=r"expected a name that ends in \.arrow, \.parquet, \.lance"):
        export_table(table, tmp_path / "toy.csv")
    with pytest.raises(TableError, match="expected a name"):
        import_table(tmp_path / "toy", tmp_path / "toy2")


def test_ids_that_other_programs_cannot_read_are_named(tmp_path: Path):
    table = Toy().record(tmp_path / "toy")
    for suffix in SUFFIXES:
        with pytest.raises(TableError, match=r"Sample 'cat/\\udcff.jpg' is not valid Unicode"):
            export_table(table, tmp_path / f"toy{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_a_damaged_table_is_not_exported(tmp_path: Path):
    TOY.record(tmp_path / "toy")
    flip(tmp_path / "toy/half.bin", 700)
    for suffix in SUFFIXES:
        with pytest.raises(TableError, match=r"half\.bin is damaged"):
            export_table(open_table(tmp_path / "toy"), tmp_path / f"toy{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_a_place_that_is_taken_is_refused(table: Table, tmp_path: Path):
    export_table(table, tmp_path / "toy.arrow")
    export_table(table, tmp_path / "toy.arrow")
    (tmp_path / "toy.lance").mkdir()
    with pytest.raises(PlaceError, match=r"toy\.lance is a folder"):
        export_table(table, tmp_path / "toy.lance")
    with pytest.raises(PlaceError, match="is a folder"):
        import_table(tmp_path / "toy.arrow", tmp_path / "toy.lance")
    with pytest.raises(PlaceError, match="cannot be written"):
        export_table(table, tmp_path / "a b.lance")
