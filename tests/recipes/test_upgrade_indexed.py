"""An indexed gallery is indexed in the new space too, from its first query, wherever it is kept."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from galleries import write_model, write_pictures

from regraft.recipes import upgrade
from regraft.recipes.gallery import add
from regraft.recipes.pairing import FromGallery
from regraft.recipes.place import Place, place_of
from regraft.recipes.upgrade_plan import plan
from regraft.retrieval.store import qdrant_edge
from regraft.retrieval.store.lance import LanceStore
from regraft.retrieval.store.pgvector import PgVectorStore
from regraft.retrieval.store.protocol import VectorStore
from regraft.retrieval.store.qdrant import QdrantStore

sys.path.insert(0, str(Path(__file__).parents[1] / "retrieval" / "store"))
from pgvector_here import url_of

NUM_PICTURES = 40
PLACES: dict[str, Callable[[Path], str]] = {
    "lance": lambda folder: str(folder / "gallery"),
    "qdrant": lambda folder: f"qdrant://{folder / 'qdrant'}",
    "pgvector": url_of,
}


def num_indexed(store: VectorStore) -> int:
    """Rows that an index holds of the space that is served, or in Qdrant of all spaces."""
    if isinstance(store, LanceStore):
        return store.num_indexed or 0
    if isinstance(store, QdrantStore):
        assert isinstance(store.engine, qdrant_edge.EdgeEngine)
        shard = store.engine._open()
        assert shard is not None
        return shard.info().indexed_vectors_count
    assert isinstance(store, PgVectorStore)
    with store._server.transaction("BEGIN", done="read") as link:
        served, *_ = store._tables.listed(link)
    return store.count() if served.indexed else 0


def planned(uri: str, folder: Path) -> Place:
    place = place_of(uri, folder / "work")
    write_pictures(folder / "pictures", NUM_PICTURES)
    add(place, [folder / "pictures"], model=write_model(folder / "old.safetensors", 0))
    store = place.open()
    assert isinstance(store, LanceStore | QdrantStore | PgVectorStore)
    store.index()
    plan(place, write_model(folder / "new.safetensors", 1), pairs=FromGallery(20))
    return place


@pytest.mark.parametrize("kind", PLACES)
def test_the_new_space_is_indexed_where_the_old_one_was(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant_edge, "INDEXED_FROM_KB", 1)
    place = planned(PLACES[kind](tmp_path), tmp_path)
    assert num_indexed(place.open()) == NUM_PICTURES
    upgrade.run(place, until=0.0)
    assert num_indexed(place.open()) == NUM_PICTURES * (2 if kind == "qdrant" else 1)
    upgrade.run(place, until=1.0)
    upgrade.finish(place)
    assert num_indexed(place.open()) == NUM_PICTURES
