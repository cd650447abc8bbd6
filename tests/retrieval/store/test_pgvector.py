import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from pgvector_here import postgres_here, url_of

from regraft.errors import SpaceMismatch, StoreError
from regraft.retrieval.store.memory import MemoryStore
from regraft.retrieval.store.pgvector import PgVectorStore
from regraft.retrieval.store.pgvector_server import Address
from regraft.retrieval.store.protocol import Layout

SECRET = "s3cr%3At"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PgVectorStore]:
    opened = PgVectorStore(url_of(tmp_path))
    yield opened
    opened.close()


def vectors(num_rows: int, dimension: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_rows, dimension)).astype(np.float32)


def names(num_rows: int, kind: str = "item") -> list[str]:
    return [f"{kind}-{row}" for row in range(num_rows)]


# Where a gallery is.


def test_a_url_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "of the environment")
    address = Address.parse(f"postgresql://me:{SECRET}@db.example:6543/art?gallery=cats&sslmode=require")
    assert address == Address("cats", "me", "art", "db.example", 6543, "require", "s3cr:t")
    local = Address.parse("postgresql://me@/art?host=/run/postgresql&gallery=cats")
    assert local == Address("cats", "me", "art", "/run/postgresql", 5432, "prefer", "of the environment")
    assert Address.parse("postgresql://me@host?gallery=a%20b").database == "me"
    assert Address.parse("postgresql://me@host?gallery=a%20b").gallery == "a b"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}@host/db",
        f"postgresql://me:{SECRET}@host/db?gallery=",
        f"postgresql://me:{SECRET}@host/db?gallery=g&sslmode=maybe",
        f"postgresql://me:{SECRET}@host/db?gallery=g&sslrootcert=x",
        f"postgresql://me:{SECRET}@host:port/db?gallery=g",
        f"postgresql://me:{SECRET}@host:99999/db?gallery=g",
        f"postgresql://me:{SECRET}@host/db?gallery",
        f"postgresql://me:{SECRET}@host/db?gallery={'x' * 56}",
        f"postgresql://me:{SECRET}@host/db?gallery=%00",
        f"http://me:{SECRET}@host/db?gallery=g",
    ],
)
def test_other_urls_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(StoreError) as refused:
        PgVectorStore(url)
    assert "s3cr" not in str(refused.value)


@pytest.mark.parametrize("place", ["127.0.0.1:1/db?", "/db?host={folder}&"])
@pytest.mark.parametrize("call", [PgVectorStore.count, lambda store: store.put(["a"], vectors(1), space="m")])
def test_a_server_that_is_not_there_is_named_without_the_password(
    call: Callable[[PgVectorStore], object], place: str, tmp_path: Path
) -> None:
    gallery = PgVectorStore(f"postgresql://me:{SECRET}@{place.format(folder=tmp_path)}gallery=g")
    with pytest.raises(StoreError, match="'g' in me@") as refused:
        call(gallery)
    assert "hint" in str(refused.value)
    assert "s3cr" not in str(refused.value) + repr(gallery.address)


def test_what_the_server_refuses_is_said(tmp_path: Path) -> None:
    url = url_of(tmp_path)
    with pytest.raises(StoreError, match=r'"nowhere" does not exist(.|\n)*createdb'):
        PgVectorStore(url.replace("/postgres?", "/nowhere?")).count()
    with pytest.raises(StoreError, match='role "nobody" does not exist'):
        PgVectorStore(url.replace("postgres@", "nobody@")).count()
    with pytest.raises(StoreError, match=r"written: .*16000"):
        PgVectorStore(url).put(["a"], vectors(1, 16_001), space="m")
    assert PgVectorStore(url).layout is None


def test_any_name_is_only_a_name() -> None:
    stores = []
    for name in ("it's", 'a"b', "a:b", "%25s", "x; DROP SCHEMA public; --", "漢字", "É", "é"):
        stores.append(PgVectorStore(postgres_here().url(name)))
        stores[-1].put(names(2), vectors(2, seed=len(stores)), space="m")
        stores[-1].open_space(Layout("n", 3))
        stores[-1].close_space("n")
        stores[-1].index()
        stores[-1].tidy()
    for number, store in enumerate(stores, start=1):
        np.testing.assert_array_equal(store.get(names(2)).vectors, vectors(2, seed=number))
        assert store.search(vectors(1, seed=number), 1, space="m").ids == [["item-0"]]
        store.close()


def test_the_driver_is_imported_only_when_asked_for() -> None:
    program = """
import sys
class Absent:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("pg8000", "qdrant_edge", "qdrant_client"):
            raise ModuleNotFoundError(name)
from regraft.retrieval.store.open import open_gallery
print([name for name in ("pg8000", "qdrant_edge", "qdrant_client") if name in sys.modules])
sys.meta_path.insert(0, Absent())
for uri in ("postgresql://me@host/db?gallery=g", "qdrant://folder", "qdrant+http://host:6333/g"):
    try:
        open_gallery(uri)
    except ImportError as error:
        print(type(error).__name__, error.hint)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    qdrant = "MissingExtra pip install 'regraft[qdrant]'"
    assert ran.stdout.splitlines() == ["[]", "MissingExtra pip install 'regraft[pgvector]'", qdrant, qdrant]


# Several at once.


def test_several_may_write_the_same_rows(tmp_path: Path) -> None:
    """From the first put on, which makes the gallery; in orders that would have them wait for each other."""
    url, failures = url_of(tmp_path), []

    def write(writer: int) -> None:
        store, draw = PgVectorStore(url), np.random.default_rng(writer)
        try:
            for number in range(20):
                ids = [f"item-{row}" for row in draw.permutation(30)]
                store.put(ids, np.full((30, 4), 1.0 + writer), space="m", sources=[f"{writer} {number}"] * 30)
                store.drop(ids[:3])
        except StoreError as error:
            failures.append(error)
        store.close()

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failures == []
    store = PgVectorStore(url)
    (batch,) = store.scan()
    # Each writer's last act is to drop three rows, and all three may do so after the last put.
    assert 21 <= len(batch) <= 27
    for vector, source in zip(batch.vectors, batch.sources, strict=True):
        assert source is not None
        assert vector.tolist() == [1 + int(source.split()[0])] * 4
    store.close()


def test_a_space_is_served_between_the_puts_of_another(store: PgVectorStore, tmp_path: Path) -> None:
    """Whenever the switch comes, no row is left without a vector in the space that is served then."""
    store.put(["first"], vectors(1), space="old")
    store.open_space(Layout("new", 4))
    store.fill(["first"], vectors(1), space="new", origin="native")
    num_put: list[list[str]] = []

    def add() -> None:
        adder = PgVectorStore(url_of(tmp_path))
        with suppress(SpaceMismatch):
            while True:
                name = [f"item-{len(num_put)}"]
                adder.put(name, vectors(1), space="old")
                num_put.append(name)
                adder.fill(name, vectors(1), space="new", origin="native")
        adder.close()

    adding = threading.Thread(target=add)
    adding.start()
    while store.layout != Layout("new", 4):
        with suppress(StoreError):  # a row that was just put has no vector yet
            store.serve("new")
    adding.join()
    assert store.count() == 1 + len(num_put)
    assert store.count(space="old", lacking="new") == 0


def num_tables(store: PgVectorStore) -> int:
    with store._server.transaction("BEGIN", done="read") as link:
        rows = link.run(
            "SELECT count(*) FROM pg_tables WHERE schemaname = :name AND tablename LIKE 'vectors%'",
            name=store.address.schema_name,
        )
    return rows[0][0]


def test_a_scan_stops_nobody(store: PgVectorStore) -> None:
    """A closed space stays on the server's disk until nobody reads it any more."""
    store.put(names(9), vectors(9), space="old")
    store.open_space(Layout("new", 5))
    store.fill(names(9), vectors(9, 5), space="new", origin="transformed")
    scan = store.scan(space="new", batch_rows=2)
    first = next(scan)
    store.open_space(Layout("side", 6, packed=True))
    store.drop(names(5))
    store.close_space("new")
    assert [layout.space for layout in store.spaces] == ["old", "side"]
    assert num_tables(store) == 3
    rest = list(scan)
    assert sorted(name for batch in (first, *rest) for name in batch.ids) == names(9)
    store.open_space(Layout("new", 7))
    assert num_tables(store) == 3
    assert store.count(space="new") == 0
    store.close_space("side")
    store.close_space("side")
    assert num_tables(store) == 2


# The index.


def test_an_index_answers_without_reading_every_row(store: PgVectorStore) -> None:
    """On clustered data with scores exact to the bit; rows put later are in it at once."""
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((30, 16))
    made, queries = (
        (centres[draw.integers(0, 30, rows)] + 0.3 * draw.standard_normal((rows, 16))).astype(np.float32)
        for rows in (2000, 30)
    )
    exact = MemoryStore()
    for each in (store, exact):
        each.put(names(1500), made[:1500], space="m")
    store.index()
    for each in (store, exact):
        each.put(names(2000)[1500:], made[1500:], space="m")
    found, wanted = (each.search(queries, 10, space="m") for each in (store, exact))
    common = [len(set(mine) & set(theirs)) for mine, theirs in zip(found.ids, wanted.ids, strict=True)]
    assert sum(common) >= 0.95 * 300
    scores = [dict(zip(*answer, strict=True)) for answer in zip(wanted.ids, wanted.scores, strict=True)]
    for ids, mine, theirs in zip(found.ids, found.scores, scores, strict=True):
        assert all(theirs.get(name, score) == score for name, score in zip(ids, mine, strict=True))
    assert num_index_scans(store) > 0
    before = num_index_scans(store)
    store.search(queries[:1], 990, space="m")  # more than an index keeps in sight
    assert num_index_scans(store) == before


def recall(store: PgVectorStore, exact: MemoryStore, k: int) -> float:
    """The share of the true hits that is found, where none is lacking."""
    queries = np.random.default_rng(9).standard_normal((20, 16)).astype(np.float32)
    found, wanted = (each.search(queries, k, space="m") for each in (store, exact))
    common = [len(set(mine) & set(theirs)) for mine, theirs in zip(found.ids, wanted.ids, strict=True)]
    assert [len(ids) for ids in found.ids] == [len(ids) for ids in wanted.ids]
    return sum(common) / sum(map(len, wanted.ids))


def test_rows_that_are_gone_take_no_places_among_the_hits(store: PgVectorStore) -> None:
    """They stay in the index until VACUUM: here most of what it holds is dead, and tidying removes it."""
    made, exact = np.random.default_rng(0).standard_normal((900, 16)).astype(np.float32), MemoryStore()
    for each in (store, exact):
        each.put(names(900), made, space="m")
    store.index()
    no_vacuum_of_the_server(store)
    for number in range(3):
        other = made + 0.01 * vectors(900, 16, seed=number)
        for each in (store, exact):
            each.fill(names(900), other, space="m", origin="native")
    for k in (10, 60, 300):
        assert recall(store, exact, k) >= 0.97
    for each in (store, exact):
        each.drop(names(600))
    for k in (10, 60, 300):
        assert recall(store, exact, k) >= 0.97
    assert num_vacuums(store) == 0
    store.tidy()
    assert num_vacuums(store) == 1
    for k in (10, 60, 300, 301):
        assert recall(store, exact, k) >= 0.97


def no_vacuum_of_the_server(store: PgVectorStore) -> None:
    with store._server.transaction("BEGIN", done="written") as link:
        link.run(f"ALTER TABLE {store.address.schema}.vectors_1 SET (autovacuum_enabled = false)")


def num_vacuums(store: PgVectorStore) -> int:
    with store._server.no_transaction(done="read") as link:
        rows = link.run(
            "SELECT vacuum_count FROM pg_stat_all_tables WHERE schemaname = :name AND relname = 'vectors_1'",
            name=store.address.schema_name,
        )
    return rows[0][0]


def test_a_few_rows_that_are_gone_are_left_where_they_are(store: PgVectorStore) -> None:
    """For what it costs to remove them depends little on how many they are."""
    store.put(names(100), vectors(100), space="m")
    no_vacuum_of_the_server(store)
    store.drop(names(5))
    store.tidy()
    assert num_vacuums(store) == 0
    store.drop(names(50))
    for _ in range(2):
        store.tidy()
        assert num_vacuums(store) == 1


def test_a_space_is_indexed_like_the_one_before(store: PgVectorStore) -> None:
    store.put(names(3), vectors(3), space="old")
    store.open_space(Layout("new", 5))
    store.open_space(Layout("wide", 4001))
    store.fill(names(3), vectors(3, 5), space="new", origin="native")
    store.tidy(space="new")
    assert indexes(store) == {}
    store.index(neighbours=5, build_candidates=33)
    for _ in range(2):
        store.tidy(space="new")
        store.tidy(space="wide")
    options = ["m=5", "ef_construction=33"]
    assert indexes(store) == {"index_1": options, "index_2": options}
    store.serve("new")
    store.close_space("old")
    store.tidy()
    assert indexes(store) == {"index_2": options}


def indexes(store: PgVectorStore) -> dict[str, list[str]]:
    with store._server.transaction("BEGIN", done="read") as link:
        rows = link.run(
            "SELECT c.relname, c.reloptions FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = :name AND c.relname LIKE 'index_%' AND c.relkind = 'i'",
            name=store.address.schema_name,
        )
    return dict(rows or [])


def test_tidying_waits_for_no_scan(store: PgVectorStore) -> None:
    store.put(names(9), vectors(9), space="m")
    scan = store.scan(batch_rows=2)
    next(scan)
    store.drop(names(5))
    store.tidy()
    assert sum(len(batch) for batch in scan) == 7


def num_index_scans(store: PgVectorStore) -> int:
    with store._server.transaction("BEGIN", done="read") as link:
        link.run("SELECT pg_stat_force_next_flush()")
    store.close()  # what a connection did is counted when it ends
    with store._server.transaction("BEGIN", done="read") as link:
        rows = link.run(
            "SELECT idx_scan FROM pg_stat_user_indexes WHERE schemaname = :name AND indexrelname = 'index_1'",
            name=store.address.schema_name,
        )
    return rows[0][0]


def test_an_index_is_there_from_the_first_query_after_the_switch(store: PgVectorStore) -> None:
    store.put(names(3), vectors(3), space="old")
    store.open_space(Layout("new", 2001))
    store.fill(names(3), 1e12 * vectors(3, 2001), space="new", origin="native")
    store.index(space="new", memory_mb=16)
    store.serve("new")
    assert store.search(vectors(3, 2001), 1, space="new").ids == [["item-0"], ["item-1"], ["item-2"]]
    store.index(neighbours=4, build_candidates=8)
    assert store.search(vectors(1, 2001), 2, space="new").ids[0][0] == "item-0"


def test_what_cannot_be_indexed_is_refused(store: PgVectorStore) -> None:
    with pytest.raises(StoreError, match="holds nothing yet"):
        store.index()
    store.put(["a"], vectors(1, 4001), space="m")
    with pytest.raises(StoreError, match=r"4001 dimensions.*at most 4000"):
        store.index()
    with pytest.raises(SpaceMismatch):
        store.index(space="n")
    assert store.search(vectors(1, 4001), 1, space="m").ids == [["a"]]
