"""Galleries of several spaces: what is added during an upgrade, side-information, and searches meanwhile."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import regraft
from regraft.errors import SpaceMismatch, StoreError
from regraft.recipes.encoders import keep, load_encoder, read_again
from regraft.recipes.gallery import ROWS_A_PUT, Status, add, status
from regraft.recipes.place import PLAN, place_of
from regraft.recipes.search import Searcher, search
from regraft.retrieval.store.lance import LanceStore
from regraft.retrieval.store.protocol import Layout
from regraft.vision.modelfile import ModelCard, save_model
from regraft.vision.preprocess import Preprocess

NUM_PICTURES = 30


def write_model(path: Path, seed: int, *, size_px: int = 16, num_classes: int = 3) -> Path:
    torch.manual_seed(seed)
    model = regraft.create_model("mobileone_mini", num_classes=num_classes).eval()
    preprocess = Preprocess(size_px=size_px, crop=1.0)
    card = ModelCard(architecture="mobileone_mini", num_classes=num_classes, preprocess=preprocess)
    save_model(path, regraft.fuse(model), card)
    return path


def write_pictures(folder: Path, num: int, *, seed: int = 0) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = [folder / f"{number:03}.png" for number in range(num)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(path)
    return paths


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "old": write_model(folder / "old.safetensors", 0),
        "new": write_model(folder / "new.safetensors", 1, size_px=24),
        "side": write_model(folder / "side.safetensors", 2, num_classes=0),
    }


@pytest.fixture
def gallery(tmp_path: Path, models: dict[str, Path]) -> Path:
    write_pictures(tmp_path / "pictures", NUM_PICTURES)
    add(tmp_path / "gallery", [tmp_path / "pictures"], model=models["old"])
    return tmp_path / "gallery"


def open_second(gallery: Path, model: Path) -> Layout:
    """Open the space of a second model, as an upgrade does."""
    encoder = load_encoder(model)
    keep(model, place_of(gallery).encoder(encoder.space))
    LanceStore(gallery).open_space(encoder.layout)
    return encoder.layout


def transform_all(gallery: Path, layout: Layout) -> None:
    """Give every row that lacks it a made-up vector in a space."""
    store = LanceStore(gallery)
    for rows in store.scan(lacking=layout.space):
        made = np.random.default_rng(0).normal(size=(len(rows), layout.dimension)).astype(np.float32)
        store.fill(rows.ids, made, space=layout.space, origin="transformed")


def encoded(model: Path, rows: LanceStore, ids: list[str]) -> np.ndarray:
    encoder = load_encoder(model)
    found = rows.find(ids)
    return encoder(read_again(found.ids, found.sources, encoder.preprocess).pictures)


def state_of(found: Status, layout: Layout) -> dict[str, int]:
    (space,) = [space for space in found.spaces if space.space == layout.space]
    return {**space.rows, "lacking": space.num_lacking}


def test_new_pictures_get_vectors_of_both_models(
    gallery: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    new = open_second(gallery, models["new"])
    more = write_pictures(tmp_path / "more", 5, seed=1)
    (place_of(gallery).upgrade).mkdir()
    (place_of(gallery).upgrade / PLAN).write_text(json.dumps({"new": {"space": new.space}}))
    added = add(gallery, more)
    assert (added.num_new, added.num_completed) == (5, 0)
    # The rows before are the upgrade's affair: encoding them all is what it is there to avoid.
    assert state_of(status(gallery), new) == {"native": 5, "transformed": 0, "lacking": NUM_PICTURES}
    store = LanceStore(gallery)
    ids = [name for rows in store.scan(space=new.space) for name in rows.ids]
    for model, layout in ((models["old"], None), (models["new"], new)):
        stored = store.find(ids, space=layout and layout.space)
        np.testing.assert_allclose(stored.vectors, encoded(model, store, stored.ids), atol=1e-5)


def test_the_switch_may_come_while_pictures_are_added(
    gallery: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    new = open_second(gallery, models["new"])
    old = LanceStore(gallery).layout
    assert old is not None
    num = 2 * ROWS_A_PUT + 10
    write_pictures(tmp_path / "more", num, seed=1)

    def switch(num_done: int, num_files: int) -> None:
        if num_done == ROWS_A_PUT + 50:
            transform_all(gallery, new)
            LanceStore(gallery).serve(new.space)

    added = add(gallery, [tmp_path / "more"], watch=switch)
    assert added.num_new == num
    found = status(gallery)
    assert found.space == new.space
    assert state_of(found, new) == {"native": num, "transformed": NUM_PICTURES, "lacking": 0}
    assert state_of(found, old) == {"native": num + NUM_PICTURES, "transformed": 0, "lacking": 0}


def test_the_old_space_may_be_closed_while_pictures_are_added(
    gallery: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    new = open_second(gallery, models["new"])
    old = LanceStore(gallery).layout
    assert old is not None
    write_pictures(tmp_path / "more", ROWS_A_PUT + 10, seed=1)

    def finish(num_done: int, num_files: int) -> None:
        if num_done == ROWS_A_PUT + 5:
            transform_all(gallery, new)
            LanceStore(gallery).serve(new.space)
            LanceStore(gallery).close_space(old.space)

    assert add(gallery, [tmp_path / "more"], model=models["old"], watch=finish).num_new == ROWS_A_PUT + 10
    assert [space.space for space in status(gallery).spaces] == [new.space]
    with pytest.raises(SpaceMismatch, match="two models"):
        add(gallery, [tmp_path / "more"], model=models["old"])


def test_side_information_is_stored_and_completed(
    gallery: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    more = write_pictures(tmp_path / "more", 5, seed=1)
    added = add(gallery, more, side=models["side"])
    assert (added.num_new, added.num_completed, added.incomplete) == (5, NUM_PICTURES, ())
    found = status(gallery)
    assert [(space.is_served, space.is_packed) for space in found.spaces] == [(True, False), (False, True)]
    assert found.spaces[1].rows == {"native": NUM_PICTURES + 5, "transformed": 0}
    store = LanceStore(gallery)
    rows = store.find([hit.id for hit in search(gallery, more[:1], 9)[0].hits], space=found.spaces[1].space)
    # Eight bits a number: half a step of the largest one.
    np.testing.assert_allclose(rows.vectors, encoded(models["side"], store, rows.ids), atol=0.5 / 127)
    # What is there stays: the side encoder need not be named again.
    again = add(gallery, write_pictures(tmp_path / "last", 2, seed=2))
    assert (again.num_new, again.num_completed) == (2, 0)
    assert status(gallery).spaces[1].num_lacking == 0


def test_a_new_gallery_can_begin_with_side_information(tmp_path: Path, models: dict[str, Path]) -> None:
    pictures = write_pictures(tmp_path / "pictures", 3)
    add(tmp_path / "gallery", pictures, model=models["old"], side=models["side"])
    assert [space.num_lacking for space in status(tmp_path / "gallery").spaces] == [0, 0]


def test_a_source_that_is_gone_or_another_is_named(gallery: Path, models: dict[str, Path]) -> None:
    pictures = sorted((gallery.parent / "pictures").iterdir())
    pictures[0].unlink()
    pictures[1].write_bytes(pictures[2].read_bytes())
    added = add(gallery, [], side=models["side"])
    assert (added.num_new, added.num_completed) == (0, NUM_PICTURES - 2)
    assert sorted(reason.rpartition(": ")[2] for _, reason in added.incomplete) == [
        "another picture now",
        "unreadable file (No such file or directory)",
    ]


KILLED_BETWEEN = """
import os, signal, sys
from pathlib import Path
from regraft.recipes.gallery import add
from regraft.retrieval.store.lance import LanceStore
class Killed(LanceStore):
    def fill(self, *arguments, **options):
        os.kill(os.getpid(), signal.SIGKILL)
import regraft.recipes.place
regraft.recipes.place.LanceStore = Killed
gallery, pictures = sys.argv[1:]
add(Path(gallery), [Path(pictures)])
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_kill_between_two_writes_is_mended(gallery: Path, models: dict[str, Path], tmp_path: Path) -> None:
    add(gallery, [], side=models["side"])
    write_pictures(tmp_path / "more", 5, seed=1)
    command = [sys.executable, "-c", KILLED_BETWEEN, str(gallery), str(tmp_path / "more")]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert status(gallery).spaces[1].num_lacking == 5
    added = add(gallery, [tmp_path / "more"])
    assert (added.num_new, added.num_present, added.num_completed) == (0, 5, 5)
    assert status(gallery).spaces[1].num_lacking == 0


def test_searches_follow_every_switch(gallery: Path, models: dict[str, Path]) -> None:
    new = open_second(gallery, models["new"])
    old = LanceStore(gallery).layout
    assert old is not None
    transform_all(gallery, new)
    query = sorted((gallery.parent / "pictures").iterdir())[:1]
    searcher = Searcher(gallery)
    expected = {}
    for layout in (new, old):
        LanceStore(gallery).serve(layout.space)
        (answer,) = searcher(query, 5)
        assert answer.space == layout.space
        expected[layout.space] = answer
    assert expected[new.space] != expected[old.space]

    stop = threading.Event()

    def keep_switching() -> None:
        store = LanceStore(gallery)
        while not stop.is_set():
            for layout in (new, old):
                store.serve(layout.space)

    switching = threading.Thread(target=keep_switching)
    switching.start()
    try:
        answers = [searcher(query, 5)[0] for _ in range(40)]
    finally:
        stop.set()
        switching.join()
    assert {answer.space for answer in answers} == {old.space, new.space}
    assert all(answer == expected[answer.space] for answer in answers)


def test_a_space_without_its_model_file_is_named(
    gallery: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    new = open_second(gallery, models["new"])
    place_of(gallery).encoder(new.space).unlink()
    assert add(gallery, write_pictures(tmp_path / "more", 2, seed=1)).num_new == 2
    assert status(gallery).spaces[1].architecture is None
    transform_all(gallery, new)
    LanceStore(gallery).serve(new.space)
    with pytest.raises(regraft.RegraftError, match=f"no file .*{new.space}"):
        add(gallery, write_pictures(tmp_path / "last", 2, seed=2))


def test_a_gallery_on_a_server_needs_a_workspace(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="--workspace"):
        place_of("postgresql://me:secret@host/base")
    place = place_of("postgresql://me:secret@host/base", tmp_path)
    assert place.encoder("a").parent == tmp_path / "encoders"
    assert "secret" not in place.name
    assert place_of(f"lance://{tmp_path}") == place_of(tmp_path)
