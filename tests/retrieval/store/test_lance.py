"""What is LanceDB's own: several processes, the lease, files, the index."""

import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lancedb.table import Table

from regraft.errors import SpaceMismatch, StoreError
from regraft.retrieval.store import rows
from regraft.retrieval.store.lance import LanceStore
from regraft.retrieval.store.protocol import Layout

SPACE = "model-1"


def vectors(num_rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_rows, 4)).astype(np.float32)


def filled(folder: Path, num_puts: int = 1) -> LanceStore:
    store = LanceStore(folder)
    for number in range(num_puts):
        store.put([f"{number}-{row}" for row in range(10)], vectors(10, number), space=SPACE)
    return store


def in_another_process(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


PUT_ONE = """
import sys, numpy as np
from regraft.retrieval.store.lance import LanceStore
from regraft.retrieval.store.protocol import Layout
print(LanceStore(sys.argv[1]).put(["from outside"], np.ones((1, 4), np.float32), space="model-1"))
"""

HOLD_THE_LEASE = """
import sys
from regraft.retrieval.store.lance import LanceStore
from regraft.retrieval.store.protocol import Layout
with LanceStore(sys.argv[1]).writing():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_reading_makes_nothing(tmp_path: Path) -> None:
    store = LanceStore(tmp_path / "gallery")
    assert store.count() == 0
    store.search(vectors(1), 1, space=SPACE)
    store.drop(["a"])
    assert not (tmp_path / "gallery").exists()


def test_readers_see_other_processes_commits(tmp_path: Path) -> None:
    early, reader = LanceStore(tmp_path), filled(tmp_path)
    scan = reader.scan(batch_rows=3)
    next(scan)
    with in_another_process(PUT_ONE, tmp_path) as writer:
        assert writer.communicate()[0] == "1\n"
    for store in (early, reader):
        assert store.count() == 11
        assert store.get(["from outside"]).vectors.tolist() == [[1, 1, 1, 1]]
        assert store.search(np.ones((1, 4), np.float32), 1, space=SPACE).ids == [["from outside"]]
    assert sum(len(batch) for batch in scan) == 7


def test_one_writer_at_a_time_and_any_reader(tmp_path: Path) -> None:
    store = filled(tmp_path)
    waiting = LanceStore(tmp_path, lease_wait_s=0.05)
    with in_another_process(HOLD_THE_LEASE, tmp_path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for write in (
            lambda: waiting.put(["x"], vectors(1), space=SPACE),
            lambda: waiting.drop(["0-0"]),
            waiting.index,
            waiting.tidy,
        ):
            with pytest.raises(StoreError, match=f"being written by process {holder.pid} .* since 20"):
                write()
        assert waiting.count() == len(waiting.get([f"0-{row}" for row in range(10)])) == 10
        assert len(waiting.search(vectors(1), 3, space=SPACE).ids[0]) == 3
        holder.kill()
    assert store.put(["x"], vectors(1), space=SPACE) == 1


def test_threads_write_in_turn(tmp_path: Path) -> None:
    store = LanceStore(tmp_path)
    threads = [
        threading.Thread(target=store.put, args=([f"{n}", "shared"], vectors(2, n)), kwargs={"space": SPACE})
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.count() == 7


def test_a_lease_covers_a_block_of_calls(tmp_path: Path) -> None:
    store, other = filled(tmp_path), LanceStore(tmp_path, lease_wait_s=0.0)
    with store.writing():
        store.put(["x"], vectors(1), space=SPACE)
        store.tidy()
        with pytest.raises(StoreError, match="being written"):
            other.drop(["x"])
    assert other.drop(["x"]) == 1


def test_a_writer_that_waited_checks_the_space_again(tmp_path: Path) -> None:
    """Both begin with an empty folder; the second put must not mix its space into the first's gallery."""
    first, second = LanceStore(tmp_path), LanceStore(tmp_path)
    refusals: list[type[Exception]] = []

    def put_second() -> None:
        try:
            second.put(["b"], vectors(1), space="model-2")
        except SpaceMismatch as error:
            refusals.append(type(error))

    with first.writing():
        thread = threading.Thread(target=put_second)
        thread.start()
        first.put(["a"], vectors(1), space=SPACE)
    thread.join()
    assert refusals == [SpaceMismatch]
    assert first.count() == 1


def test_tidying_merges_files_and_changes_no_row(tmp_path: Path) -> None:
    store = filled(tmp_path / "gallery", num_puts=12)
    store.drop(["3-3", "4-4"])
    store.index(num_partitions=2)
    ids = sorted(name for batch in store.scan() for name in batch.ids)
    before, hits = store.get(ids), store.search(vectors(3, 99), 5, space=SPACE)
    scan = store.scan(batch_rows=50)
    next(scan)
    table = lancedb.connect(tmp_path / "gallery").open_table("gallery")
    assert table.stats()["fragment_stats"]["num_fragments"] == 12
    store.tidy()
    table.checkout_latest()
    assert table.stats()["fragment_stats"]["num_fragments"] == 1
    assert sum(len(batch) for batch in scan) == 118 - 50
    np.testing.assert_array_equal(store.get(ids).vectors, before.vectors)
    assert store.search(vectors(3, 99), 5, space=SPACE).ids == hits.ids
    assert store.layout == LanceStore(tmp_path / "gallery").layout
    version = table.version
    store.tidy()
    table.checkout_latest()
    assert table.version == version
    with pytest.raises(StoreError, match="keep_s is 0"):
        store.tidy(keep_s=0.0)


def test_the_index_is_used(tmp_path: Path) -> None:
    """Of many lists it reads some: were it not used, nothing would ever be missed."""
    store = LanceStore(tmp_path)
    points = np.random.default_rng(0).standard_normal((3000, 32)).astype(np.float32)
    store.put([str(row) for row in range(3000)], points, space=SPACE)
    queries = np.random.default_rng(1).standard_normal((20, 32)).astype(np.float32)
    exact = store.search(queries, 20, space=SPACE)
    store.index(num_partitions=300)
    found = store.search(queries, 20, space=SPACE)
    assert found.ids != exact.ids
    for query in range(20):
        assert store.search(queries[query : query + 1], 20, space=SPACE).ids[0] == found.ids[query]


def test_nothing_to_index(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no gallery yet"):
        LanceStore(tmp_path).index()
    store = filled(tmp_path)
    store.drop([f"0-{row}" for row in range(10)])
    with pytest.raises(StoreError, match="no rows"):
        store.index()


def test_what_a_killed_first_put_leaves_is_an_empty_gallery(tmp_path: Path) -> None:
    for name in ("_transactions/0-half.txn", "_versions/1.manifest.tmp"):
        file = tmp_path / "gallery.lance" / name
        file.parent.mkdir(parents=True)
        file.write_bytes(b"LANCE")
    assert LanceStore(tmp_path).count() == 0
    assert filled(tmp_path).count() == 10


def test_the_first_put_commits_before_it_writes_rows(tmp_path: Path) -> None:
    """Else what a kill leaves of it could not be told from a gallery that lost its commits."""
    filled(tmp_path)
    table = lancedb.connect(tmp_path).open_table("gallery")
    table.checkout(1)
    assert table.count_rows() == 0


def remove_a_data_file(table: Path) -> None:
    next((table / "data").iterdir()).unlink()


def overwrite_a_data_file(table: Path) -> None:
    next((table / "data").iterdir()).write_bytes(b"not rows" * 50)


def empty_the_manifests(table: Path) -> None:
    for manifest in (table / "_versions").iterdir():
        manifest.write_bytes(b"")


def remove_the_manifests(table: Path) -> None:
    shutil.rmtree(table / "_versions")


DAMAGES = [remove_a_data_file, overwrite_a_data_file, empty_the_manifests, remove_the_manifests]
CALLS: dict[str, Callable[[LanceStore], object]] = {
    "put": lambda store: store.put(["0-1"], vectors(1), space=SPACE),
    "get": lambda store: store.get(["0-1"]),
    "search": lambda store: store.search(vectors(1), 3, space=SPACE),
    "scan": lambda store: list(store.scan()),
    "count": lambda store: store.count(origin="native"),
    "drop": lambda store: store.drop(["0-1"]),
    "index": lambda store: store.index(),
    "tidy": lambda store: store.tidy(),
}


@pytest.mark.parametrize("was_open", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_gallery_is_named_by_every_call(
    tmp_path: Path, damage: Callable[[Path], object], was_open: bool
) -> None:
    for name, call in CALLS.items():
        folder = tmp_path / name
        store = filled(folder, num_puts=2)
        damage(folder / "gallery.lance")
        with pytest.raises(
            StoreError, match=f"^Gallery {re.escape(str(folder))} (cannot be|is damaged)"
        ) as caught:
            call(store if was_open else LanceStore(folder))
        assert ".rs:" not in str(caught.value)


def test_a_gallery_without_manifests_stays_as_it_is(tmp_path: Path) -> None:
    filled(tmp_path)
    remove_the_manifests(tmp_path / "gallery.lance")
    before = sorted((tmp_path / "gallery.lance").rglob("*"))
    for space in (SPACE, "model-2"):
        with pytest.raises(StoreError, match=r"holds rows, but no commit says which"):
            LanceStore(tmp_path).put(["new"], vectors(1), space=space)
    assert sorted((tmp_path / "gallery.lance").rglob("*")) == before


def test_a_scan_whose_files_go_names_the_gallery(tmp_path: Path) -> None:
    batches = filled(tmp_path, num_puts=2).scan(batch_rows=10)
    shutil.rmtree(tmp_path / "gallery.lance" / "data")
    with pytest.raises(StoreError, match="cannot be read"):
        list(batches)


def test_an_index_whose_files_are_gone_is_named_and_can_be_built_anew(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.index(num_partitions=1)
    shutil.rmtree(tmp_path / "gallery.lance" / "_indices")
    with pytest.raises(StoreError, match="cannot be searched"):
        LanceStore(tmp_path).search(vectors(1), 3, space=SPACE)
    store.index(num_partitions=1)
    assert len(LanceStore(tmp_path).search(vectors(1), 3, space=SPACE).ids[0]) == 3


def test_the_rows_that_the_index_covers(tmp_path: Path) -> None:
    store = LanceStore(tmp_path)
    assert store.num_indexed is None
    filled(tmp_path)
    assert store.num_indexed is None
    store.index(num_partitions=1)
    store.put(["later"], vectors(1), space=SPACE)
    assert store.num_indexed == 10
    store.tidy()
    assert store.num_indexed == 11


def test_a_file_is_no_gallery(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"")
    with pytest.raises(StoreError, match="is a file"):
        LanceStore(tmp_path / "picture.png")
    with pytest.raises(StoreError, match="cannot be written"):
        LanceStore(tmp_path / "picture.png" / "gallery").put(["a"], vectors(1), space=SPACE)


@pytest.mark.parametrize(
    "schema", [pa.schema({"id": pa.string()}), pa.schema({"vector": pa.list_(pa.float32(), 4)})]
)
def test_another_programs_table_is_refused(tmp_path: Path, schema: pa.Schema) -> None:
    lancedb.connect(tmp_path).create_table("gallery", schema.empty_table())
    with pytest.raises(StoreError, match="Regraft did not write"):
        LanceStore(tmp_path).put(["a"], vectors(1), space=SPACE)


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    table = lancedb.connect(tmp_path).open_table("gallery")
    table.update_field_metadata({"path": "vector", "metadata": {"regraft.format": "3"}})
    with pytest.raises(StoreError, match="format '3'"):
        _ = LanceStore(tmp_path).layout


def test_a_write_that_changed_too_little_is_an_error() -> None:
    rows.confirm(5, expected=5)
    with pytest.raises(StoreError, match="write of 5 rows changed 0"):
        rows.confirm(0, expected=5)


def test_a_put_looks_at_how_many_rows_changed(tmp_path: Path) -> None:
    """Another program gave an id to two rows: LanceDB replaces both, and the counts differ."""
    store = filled(tmp_path)
    table = lancedb.connect(tmp_path).open_table("gallery")
    table.add(table.search().where("id = '0-1'").select(table.schema.names).to_arrow())
    with pytest.raises(StoreError, match="write of 2 rows changed 3"):
        store.put(["0-1", "0-2"], vectors(2), space=SPACE)


def test_the_key_stands_first(tmp_path: Path) -> None:
    filled(tmp_path)
    assert lancedb.connect(tmp_path).open_table("gallery").schema.names == [
        "id",
        "source",
        "vector",
        "origin",
    ]


# A gallery of the first format: one space, named again in every row.


def first_format(folder: Path, num_rows: int) -> np.ndarray:
    made = vectors(num_rows)
    dimension = made.shape[1]
    marks = {b"regraft.format": b"1", b"regraft.space": SPACE.encode()}
    schema = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), dimension), nullable=False, metadata=marks),
            pa.field("space", pa.string(), nullable=False),
            pa.field("origin", pa.string(), nullable=False),
            pa.field("source", pa.string()),
        ]
    )
    columns = [
        pa.array([f"0-{row}" for row in range(num_rows)]),
        pa.FixedSizeListArray.from_arrays(pa.array(made.ravel()), dimension),
        pa.array([SPACE] * num_rows),
        pa.array(["native"] * num_rows),
        pa.array([None] * num_rows, pa.string()),
    ]
    lancedb.connect(folder).create_table("gallery", pa.table(columns, schema=schema))
    return made


def test_the_first_format_is_read_as_it_is(tmp_path: Path) -> None:
    made = first_format(tmp_path, 10)
    store = LanceStore(tmp_path)
    assert store.spaces == (Layout(SPACE, made.shape[1]),)
    assert np.array_equal(store.get([f"0-{row}" for row in range(10)]).vectors, made)
    assert store.search(made, 1, space=SPACE).ids == [[f"0-{row}"] for row in range(10)]
    assert "space" in lancedb.connect(tmp_path).open_table("gallery").schema.names


def test_the_first_format_is_carried_over_by_the_first_write(tmp_path: Path) -> None:
    made = first_format(tmp_path, 10)
    store = LanceStore(tmp_path)
    store.put(["new"], made[:1] + 1, space=SPACE)
    assert lancedb.connect(tmp_path).open_table("gallery").schema.names == [
        "id",
        "vector",
        "origin",
        "source",
    ]
    store.open_space(Layout("next", 3))
    store.fill(["0-3"], np.ones((1, 3), np.float32), space="next", origin="native")
    assert np.array_equal(LanceStore(tmp_path).get(["0-3"]).vectors, made[3:4])
    assert LanceStore(tmp_path).find(["0-3"], space="next").origins == ["native"]


FIRST_COMMITS: list[Callable[[Table], object]] = [
    lambda table: table.alter_columns(
        {"path": "vector", "nullable": True}, {"path": "origin", "nullable": True}
    ),
    lambda table: table.update_field_metadata(
        {"path": "id", "metadata": {"regraft.served": "vector"}},
        {"path": "vector", "metadata": {"regraft.format": "2"}},
    ),
]


@pytest.mark.parametrize("num_done", [1, 2])
def test_a_carrying_over_that_was_killed_is_read_and_ended(tmp_path: Path, num_done: int) -> None:
    made = first_format(tmp_path, 10)
    for commit in FIRST_COMMITS[:num_done]:
        commit(lancedb.connect(tmp_path).open_table("gallery"))
    store = LanceStore(tmp_path)
    assert store.search(made, 1, space=SPACE).ids == [[f"0-{row}"] for row in range(10)]
    assert store.put(["0-1", "new"], made[:2] + 1, space=SPACE) == 2
    names = lancedb.connect(tmp_path).open_table("gallery").schema.names
    assert names == ["id", "vector", "origin", "source"]
    assert store.count() == 11


def test_a_gallery_of_the_first_format_keeps_its_index(tmp_path: Path) -> None:
    first_format(tmp_path, 10)
    store = LanceStore(tmp_path)
    store.index(num_partitions=1)
    store.open_space(Layout("next", 3))
    assert store.num_indexed == 10


# An upgrade of its own kind: tags, and an index for the space that comes.


def upgraded(folder: Path) -> LanceStore:
    store = filled(folder)
    ids = [name for batch in store.scan() for name in batch.ids]
    store.open_space(Layout("next", 3))
    made = np.random.default_rng(0).standard_normal((len(ids), 3)).astype(np.float32)
    store.fill(ids, made, space="next", origin="transformed")
    return store


def everything(store: LanceStore) -> dict[str, bytes]:
    return {
        name: values.tobytes()
        for batch in store.scan()
        for name, values in zip(batch.ids, batch.vectors, strict=True)
    }


def test_the_state_before_can_be_restored(tmp_path: Path) -> None:
    before = everything(filled(tmp_path / "same"))
    store = upgraded(tmp_path / "gallery")
    store.serve("next")
    store.drop(["0-1"])
    store.restore("next")
    assert everything(store) == everything(LanceStore(tmp_path / "gallery")) == before
    assert [layout.space for layout in store.spaces] == [SPACE]
    with pytest.raises(SpaceMismatch, match="not open"):
        store.restore("next")


@pytest.mark.parametrize("forget", [lambda store: store.close_space(SPACE), LanceStore.tidy])
def test_a_state_that_is_not_kept_cannot_be_restored(
    tmp_path: Path, forget: Callable[[LanceStore], None]
) -> None:
    store = upgraded(tmp_path)
    store.serve("next")
    forget(store)
    with pytest.raises(StoreError, match="does not keep"):
        store.restore("next")
    assert tags(tmp_path) == []


def tags(folder: Path) -> list[str]:
    return list(lancedb.connect(folder).open_table("gallery").tags.list())


def versions(folder: Path) -> list[int]:
    return [one["version"] for one in lancedb.connect(folder).open_table("gallery").list_versions()]


def tidied(store: LanceStore, folder: Path) -> bool:
    """Whether tidying leaves no version that was replaced before; its own commits may be too young to go."""
    *replaced, _ = versions(folder)
    assert replaced
    time.sleep(0.01)
    store.tidy(keep_s=0.001)
    return not set(replaced) & set(versions(folder))


def test_side_information_keeps_no_old_version(tmp_path: Path) -> None:
    """It stays open for years: every version since would stay with it."""
    store = filled(tmp_path, num_puts=3)
    store.open_space(Layout("side", 3, packed=True))
    assert tags(tmp_path) == []
    with pytest.raises(StoreError, match="never for a packed space"):
        store.restore("side")
    assert tidied(store, tmp_path)


def test_the_state_before_is_kept_while_there_is_a_way_back(tmp_path: Path) -> None:
    store = upgraded(tmp_path)
    store.open_space(Layout("side", 3, packed=True))
    store.serve("next")
    store.close_space("side")
    assert tags(tmp_path) == ["before-vector_1"]
    store.serve(SPACE)
    store.close_space("next")
    assert tags(tmp_path) == []


def test_a_tag_that_a_kill_left_holds_nothing_up(tmp_path: Path) -> None:
    store = filled(tmp_path)
    table = lancedb.connect(tmp_path).open_table("gallery")
    table.tags.create("before-vector_1", 1)
    assert tidied(store, tmp_path)
    assert tags(tmp_path) == []
    table.tags.create("before-vector_1", table.version)
    upgraded(tmp_path).restore("next")
    assert store.count() == 10


def test_the_space_that_comes_can_be_indexed_before_the_switch(tmp_path: Path) -> None:
    store = upgraded(tmp_path)
    store.index(space="next", num_partitions=1)
    assert store.num_indexed is None
    store.serve("next")
    assert store.num_indexed == store.count()
    query = store.get(["0-1"]).vectors
    assert store.search(query, 1, space="next").ids == [["0-1"]]
    store.serve(SPACE)
    store.close_space("next")
    assert store.num_indexed is None


def num_taken_in(store: LanceStore) -> int:
    snapshot = store._snapshot()
    assert snapshot is not None
    return snapshot.slots.served.taken_in


def test_a_space_is_indexed_where_another_is(tmp_path: Path) -> None:
    store = upgraded(tmp_path)
    store.tidy(space="next")
    store.serve("next")
    assert store.num_indexed is None
    store.index()
    store.tidy(space=SPACE)
    store.serve(SPACE)
    assert store.num_indexed == 10


def test_an_index_is_built_anew_when_half_of_its_rows_are_others(tmp_path: Path) -> None:
    """However many times it was brought up to date on the way."""
    store = filled(tmp_path)
    store.index(num_partitions=2)
    for number, taken_in in enumerate([2, 4, 0, 2]):
        store.fill(["0-1", "0-2"], vectors(2, number), space=SPACE, origin="native")
        if number == 2:
            store.fill(["0-3"], vectors(1), space=SPACE, origin="native")
        for _ in range(2):
            store.tidy()
            assert (store.num_indexed, num_taken_in(store)) == (10, taken_in)


def test_what_was_replaced_is_deleted_while_a_space_is_filled(tmp_path: Path) -> None:
    """Before it is served and afterwards: each merge writes all rows anew, which would fill the disk."""
    store = LanceStore(tmp_path)
    ids = [str(row) for row in range(4000)]
    made = np.random.default_rng(0).standard_normal((4000, 32)).astype(np.float32)
    store.put(ids, made, space=SPACE)
    store.open_space(Layout("next", 32))
    store.fill(ids, made, space="next", origin="transformed")
    num_bytes = 4000 * 2 * 32 * 4
    for merge in range(20):
        if merge == 10:
            store.serve("next")
        part = slice(200 * merge, 200 * (merge + 1))
        store.fill(ids[part], made[part], space="next", origin="native")
        time.sleep(0.002)
        store.tidy(keep_s=0.001)
        assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 3 * num_bytes
