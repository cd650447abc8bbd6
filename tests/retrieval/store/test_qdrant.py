"""What is Qdrant's own: one process, lengths, the graph, and folders that its engine would refuse."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from calls import replay
from qdrant_client import QdrantClient, models

from regraft.errors import StoreError
from regraft.retrieval.store import qdrant, qdrant_edge
from regraft.retrieval.store.memory import MemoryStore
from regraft.retrieval.store.open import open_gallery
from regraft.retrieval.store.protocol import Layout
from regraft.retrieval.store.qdrant import QdrantStore
from regraft.retrieval.store.qdrant_edge import EdgeEngine
from regraft.retrieval.store.qdrant_server import ServerEngine

SERVER = os.environ.get("REGRAFT_QDRANT_URL")
on_client_alone = pytest.mark.filterwarnings(
    "ignore:Payload indexes have no effect", "ignore:Local mode performs exact"
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[QdrantStore]:
    opened = QdrantStore(EdgeEngine(tmp_path / "gallery"))
    yield opened
    opened.close()


def vectors(num_rows: int, dimension: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_rows, dimension)).astype(np.float32)


def names(num_rows: int) -> list[str]:
    return [f"item-{row}" for row in range(num_rows)]


# One process.


def test_another_process_waits_and_is_told_why(store: QdrantStore, tmp_path: Path) -> None:
    program = f"""
from regraft.retrieval.store.qdrant import QdrantStore
from regraft.retrieval.store.qdrant_edge import EdgeEngine
print(QdrantStore(EdgeEngine({str(tmp_path / "gallery")!r}, wait_s=0.1)).count())
"""

    def elsewhere() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    store.put(names(3), vectors(3), space="m")
    assert store.count() == 3
    refused = elsewhere()
    assert "is open in another process; waited 0.1 s" in refused.stderr
    store.close()
    assert elsewhere().stdout == "3\n"
    assert store.count() == 3


def test_galleries_of_a_process_share_a_folder(store: QdrantStore, tmp_path: Path) -> None:
    """Two that write at once, from two threads, lose nothing of each other's."""
    other = open_gallery(f"qdrant://{tmp_path / 'gallery'}")
    store.put(names(40), vectors(40), space="m")
    for space in ("a", "b"):
        other.open_space(Layout(space, 3))

    def fill(gallery: QdrantStore, space: str) -> None:
        for name in names(40):
            gallery.fill([name], vectors(1, 3), space=space, origin="native")

    threads = [threading.Thread(target=fill, args=each) for each in ((store, "a"), (other, "b"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.count(space=space) for space in ("a", "b", "m")] == [40, 40, 40]


# What Qdrant makes of vectors.


def test_vectors_come_back_as_they_were_put(store: QdrantStore) -> None:
    """Qdrant would bring them to length one, except for those that it takes for zero."""
    lengths = np.float32([1e-14, 1e-8, 1e-4, 1, 1 + 1e-6, 1e8, 1e14])[:, None]
    put = vectors(7, 16) / np.linalg.norm(vectors(7, 16), axis=1, keepdims=True) * lengths
    exact = MemoryStore()
    for each in (store, exact):
        each.put(names(7), put, space="m")
    np.testing.assert_array_equal(store.get(names(7)).vectors, put)
    found, wanted = (each.search(put[::-1], 7, space="m") for each in (store, exact))
    assert found.ids == wanted.ids
    np.testing.assert_array_equal(found.scores, wanted.scores)


def test_more_ties_than_asked_for_are_settled_by_their_ids(store: QdrantStore) -> None:
    row = vectors(1)[0]
    store.put(names(300), np.stack([row * (1 + number) for number in range(300)]), space="m")
    assert store.search(row[None], 5, space="m").ids == [sorted(names(300))[:5]]


def test_a_graph_finds_nearly_all(store: QdrantStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """On clustered data, with exact scores; rows put later are found beside it, and taken in when asked."""
    monkeypatch.setattr(qdrant_edge, "INDEXED_FROM_KB", 20)
    monkeypatch.setattr(qdrant_edge, "WALKED_FROM_KB", 20)
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
    assert num_in_graph(store) == 1500
    for each in (store, exact):
        each.put(names(2000)[1000:], made[1000:], space="m")
    for _ in range(2):
        found, wanted = (each.search(queries, 10, space="m") for each in (store, exact))
        common = [len(set(mine) & set(theirs)) for mine, theirs in zip(found.ids, wanted.ids, strict=True)]
        assert sum(common) >= 0.95 * 300
        scores = [dict(zip(*answer, strict=True)) for answer in zip(wanted.ids, wanted.scores, strict=True)]
        for ids, mine, theirs in zip(found.ids, found.scores, scores, strict=True):
            assert all(theirs.get(name, score) == score for name, score in zip(ids, mine, strict=True))
        store.open_space(Layout("n", 3))
        store.index()
    store.fill(names(2000), vectors(2000, 3), space="n", origin="native")
    store.serve("n")
    assert store.search(vectors(1, 3), 1, space="n").ids == [["item-0"]]


def test_tidying_takes_in_what_came_later(store: QdrantStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every space, with the graph's settings, and only where there are graphs."""
    monkeypatch.setattr(qdrant_edge, "INDEXED_FROM_KB", 20)
    store.put(names(2000), vectors(2000, 16), space="old")
    store.tidy()
    assert num_in_graph(store) == 0
    store.index(neighbours=5, build_candidates=33)
    store.open_space(Layout("new", 16))
    store.fill(names(2000), vectors(2000, 16, seed=1), space="new", origin="transformed")
    assert num_in_graph(store) == 2000
    store.tidy(space="new")
    assert num_in_graph(store) == 4000
    store.close()
    settings = json.loads((store.engine.path / "shard" / "edge_config.json").read_text())["hnsw_config"]
    assert (settings["m"], settings["ef_construct"]) == (5, 33)


def num_in_graph(store: QdrantStore) -> int:
    assert isinstance(store.engine, EdgeEngine)
    shard = store.engine._open()
    assert shard is not None
    return shard.info().indexed_vectors_count


# What is on the disk.


def test_a_long_scan_goes_through_a_file(store: QdrantStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qdrant, "SPOOLED_BYTES", 100)
    store.put(names(50), vectors(50), space="m")
    scan = store.scan(batch_rows=7)
    store.drop(names(50))
    batches = list(scan)
    assert [len(batch) for batch in batches] == [7] * 7 + [1]
    assert sorted(name for batch in batches for name in batch.ids) == sorted(names(50))
    next(store.scan(), None)  # left alone, it leaves nothing open


def test_settings_at_odds_with_the_vectors_are_made_anew(store: QdrantStore, tmp_path: Path) -> None:
    """The engine writes its settings after the vectors; killed in between, it refuses its own folder."""
    store.put(names(5), vectors(5), space="old")
    store.open_space(Layout("new", 3))
    store.fill(names(5), vectors(5, 3), space="new", origin="native")
    settings = tmp_path / "gallery" / "shard" / "edge_config.json"
    for change in (
        lambda known: known.pop("vector_1"),
        lambda known: known.update(vector_2=known["vector_0"]),
    ):
        store.close()
        written = json.loads(settings.read_text())
        change(written["vectors"])
        settings.write_text(json.dumps(written))
        np.testing.assert_array_equal(store.get(names(5), space="new").vectors, vectors(5, 3))
        store.open_space(Layout("more", 4))
        store.close_space("more")
        store.index()


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        EdgeEngine(tmp_path / "file")
    (tmp_path / "odd" / "shard").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"cannot be read: .*no segments"):
        QdrantStore(EdgeEngine(tmp_path / "odd")).count()
    with pytest.raises(StoreError, match="path is empty"):
        open_gallery("qdrant://")


# A server.


@pytest.mark.parametrize(
    "url",
    [
        "qdrant+http://host:6333",
        "qdrant+http:///g",
        "qdrant+http://h/a/b",
        "qdrant+http://key@h/g",
        "qdrant+ftp://h/g",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(StoreError, match=r"expected qdrant.http://HOST:6333/COLLECTION"):
        ServerEngine.at(url)


def test_a_server_that_is_not_there_is_named() -> None:
    gallery = QdrantStore(ServerEngine.at("qdrant+http://127.0.0.1:1/g"))
    with pytest.raises(
        StoreError, match=r"http://127.0.0.1:1/g cannot be read: (.|\n)*hint: Is a Qdrant server"
    ):
        gallery.count()


@on_client_alone
def test_many_rows_go_in_several_commands() -> None:
    store = QdrantStore(ServerEngine(QdrantClient(":memory:"), "g", place="g"))
    store.put(names(600), vectors(600), space="m")
    store.open_space(Layout("n", 3))
    assert store.fill(names(700), vectors(700, 3), space="n", origin="native") == 600
    assert sum(len(batch) for batch in store.scan(space="n", batch_rows=250)) == 600
    assert store.drop(names(700)) == 600


@on_client_alone
def test_points_of_others_are_left_alone() -> None:
    client = QdrantClient(":memory:")
    client.create_collection("g", {})
    client.upsert("g", [models.PointStruct(id=1, vector={}, payload={})])
    with pytest.raises(StoreError, match="points that Regraft did not write"):
        QdrantStore(ServerEngine(client, "g", place="g")).put(["a"], vectors(1), space="m")
    assert client.count("g").count == 1


@pytest.mark.skipif(SERVER is None, reason="needs the URL of a Qdrant server in REGRAFT_QDRANT_URL")
@pytest.mark.parametrize("seed", range(3))
def test_a_server_answers_as_memory_does(seed: int) -> None:
    store = QdrantStore(ServerEngine.at(f"{SERVER}/regraft-{uuid4().hex}"))
    for number, (mine, theirs) in enumerate(
        zip(replay(store, seed, 60), replay(MemoryStore(), seed, 60), strict=True)
    ):
        assert mine == theirs, f"answer {number}"
