"""The same upgrade where the rows are in Qdrant or PostgreSQL, and the files in a workspace."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from galleries import write_model, write_pictures

from regraft.errors import RunError, StoreError
from regraft.recipes import upgrade
from regraft.recipes.gallery import add, status
from regraft.recipes.pairing import FromGallery
from regraft.recipes.place import place_of
from regraft.recipes.search import search
from regraft.recipes.upgrade_plan import plan

sys.path.insert(0, str(Path(__file__).parents[1] / "retrieval" / "store"))
from pgvector_here import url_of

NUM_PICTURES = 40


def qdrant(folder: Path) -> str:
    pytest.importorskip("qdrant_edge", reason="needs the extra qdrant")
    return f"qdrant://{folder / 'qdrant'}"


@pytest.mark.parametrize("uri_of", [qdrant, url_of])
def test_there_and_back_and_there_for_good(uri_of: Callable[[Path], str], tmp_path: Path) -> None:
    old, new = write_model(tmp_path / "old.safetensors", 0), write_model(tmp_path / "new.safetensors", 1)
    pictures = write_pictures(tmp_path / "pictures", NUM_PICTURES)
    place = place_of(uri_of(tmp_path), tmp_path / "work")
    assert add(place, [tmp_path / "pictures"], model=old).num_new == NUM_PICTURES
    made = plan(place, new, pairs=FromGallery(20))
    assert upgrade.run(place, until=0.5).phase == "backfilling"
    assert search(place, pictures[:1])[0].space == made.new.space
    add(place, write_pictures(tmp_path / "more", 3, seed=1))
    assert upgrade.rollback(place).phase == "rolled_back"
    assert status(place).rows == {"native": NUM_PICTURES + 3, "transformed": 0}
    assert search(place, pictures[:1])[0].space == made.old.space

    # Another gallery of the same workspace is not led where this one is going.
    plan(place, new, pairs=FromGallery(20))
    (tmp_path / "other").mkdir()
    other = place_of(uri_of(tmp_path / "other"), tmp_path / "work")
    for verb in (upgrade.run, upgrade.status, upgrade.rollback):
        with pytest.raises(StoreError, match="holds no gallery yet"):
            verb(other)
    add(other, pictures, model=old)
    for verb in (upgrade.run, upgrade.status, upgrade.rollback):
        with pytest.raises(RunError, match="is that of"):
            verb(other)
    assert upgrade.run(place, until=1.0).num_native == NUM_PICTURES + 3
    upgrade.finish(place)
    assert [space.space for space in status(place).spaces] == [made.new.space]
    assert search(place, pictures[:1])[0].hits[0].source == str(pictures[0])
