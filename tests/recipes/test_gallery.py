"""Galleries on disk: what is added, found, refused, and what a kill leaves."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import regraft
from regraft.errors import RecipeError, SampleError, SpaceMismatch, StoreError, VectorError, WeightsError
from regraft.nn.encoder import Encoder
from regraft.recipes.answers import write_answers
from regraft.recipes.gallery import ROWS_A_PUT, add, status
from regraft.recipes.intake import picture_files
from regraft.recipes.pages import thumbnail
from regraft.recipes.search import search
from regraft.retrieval.store.lance import LanceStore
from regraft.vision.backbone import embedder
from regraft.vision.images import BadImage, read_image
from regraft.vision.modelfile import ModelCard, load_model, save_model
from regraft.vision.preprocess import Preprocess

NUM_PICTURES = 40


def write_model(
    path: Path, seed: int, *, change: Callable[[torch.nn.Module], object] = lambda model: None
) -> Path:
    torch.manual_seed(seed)
    model = regraft.create_model("mobileone_mini", num_classes=3).eval()
    change(model)
    card = ModelCard(
        architecture="mobileone_mini", num_classes=3, preprocess=Preprocess(size_px=16, crop=1.0)
    )
    save_model(path, regraft.fuse(model), card)
    return path


def write_pictures(folder: Path, num: int, *, seed: int = 0) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = [folder / f"{number:03}.png" for number in range(num)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(path)
    return paths


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(gallery: Path) -> dict[str, np.ndarray]:
    batches = LanceStore(gallery).scan()
    return {name: vector for rows in batches for name, vector in zip(rows.ids, rows.vectors, strict=True)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.safetensors", seed=0)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    return write_pictures(tmp_path / "pictures", NUM_PICTURES)


@pytest.fixture
def gallery(tmp_path: Path, model: Path, pictures: list[Path]) -> Path:
    add(tmp_path / "gallery", [tmp_path / "pictures"], model=model)
    return tmp_path / "gallery"


def test_a_picture_finds_itself_first(gallery: Path, pictures: list[Path]) -> None:
    answers = search(gallery, pictures[:3], 5)
    for answer, picture in zip(answers, pictures, strict=False):
        assert answer.query == picture
        assert len(answer.hits) == 5
        assert answer.hits[0].source == str(picture.absolute())
        assert answer.hits[0].score == pytest.approx(1, abs=1e-6)
        scores = [hit.score for hit in answer.hits]
        assert scores == sorted(scores, reverse=True)


def test_the_library_opens_what_was_added(gallery: Path, pictures: list[Path]) -> None:
    store = regraft.open_gallery(gallery)
    assert store.count() == NUM_PICTURES
    assert store.layout is not None
    (answer,) = search(gallery, pictures[:1], 5)
    query = store.get([answer.hits[0].id])
    found = store.search(query.vectors, 5, space=store.layout.space)
    assert found.ids == [[hit.id for hit in answer.hits]]
    assert query.sources == [str(pictures[0])]


def test_the_query_itself_can_be_left_out(gallery: Path, pictures: list[Path], tmp_path: Path) -> None:
    elsewhere = tmp_path / "copy.png"
    elsewhere.write_bytes(pictures[0].read_bytes())
    with_itself, without = (
        search(gallery, [elsewhere], 5, exclude_itself=exclude)[0].hits for exclude in (False, True)
    )
    assert without[:4] == with_itself[1:]
    assert len(without) == 5
    stranger = write_pictures(tmp_path / "more", 1, seed=1)
    assert search(gallery, stranger, 5) == search(gallery, stranger, 5, exclude_itself=True)


def test_rows_hold_what_the_encoder_says(
    gallery: Path, pictures: list[Path], model: Path, tmp_path: Path
) -> None:
    network, card = load_model(model)
    encoder = Encoder(embedder(network), card.preprocess)
    rows = LanceStore(gallery).get([hit.id for hit in search(gallery, pictures[:1], 9)[0].hits])
    expected = encoder([read_image(source) for source in rows.sources if source])
    # Only the batches differ, and with them the order of float32 sums.
    np.testing.assert_allclose(rows.vectors, expected, atol=1e-5)
    assert set(rows.spaces) == {encoder.fingerprint}

    other, card = load_model(write_model(tmp_path / "other.safetensors", seed=1))
    strangers = Encoder(embedder(other), card.preprocess)(
        [read_image(source) for source in rows.sources if source]
    )
    assert np.abs(rows.vectors - strangers).max() > 1e-2


def test_a_search_needs_nothing_but_the_gallery(gallery: Path, pictures: list[Path], tmp_path: Path) -> None:
    query = pictures[0].rename(tmp_path / "query.png")
    for path in pictures[1:]:
        path.unlink()
    moved = gallery.rename(tmp_path / "moved")
    assert search(moved, [query], 1)[0].hits[0].source == str(pictures[0])
    assert sorted(status(moved, check_sources=True).missing or ()) == sorted(map(str, pictures))


def test_status(gallery: Path, model: Path) -> None:
    state = status(gallery)
    assert (state.rows, state.dimension) == ({"native": NUM_PICTURES, "transformed": 0}, 256)
    assert (state.architecture, state.is_fused) == ("mobileone_mini", True)
    assert state.num_indexed is None
    assert state.missing is None
    assert state.size_bytes > model.stat().st_size
    assert status(gallery, check_sources=True).missing == ()


def test_what_is_there_is_not_encoded_again(gallery: Path, pictures: list[Path], tmp_path: Path) -> None:
    before = rows_of(gallery)
    copy = tmp_path / "pictures" / "copy.png"
    copy.write_bytes(pictures[3].read_bytes())
    write_pictures(tmp_path / "pictures" / "more", 2, seed=1)
    (tmp_path / "pictures" / "notes.txt").write_text("not a picture")
    calls: list[tuple[int, int]] = []
    added = add(gallery, [tmp_path / "pictures"], watch=lambda *numbers: calls.append(numbers))
    assert (added.num_new, added.num_present) == (2, NUM_PICTURES)
    assert (added.num_duplicates, added.num_skipped) == (1, 1)
    assert (added.bad, added.num_rows) == ((), NUM_PICTURES + 2)
    assert calls[0] == (0, NUM_PICTURES + 3)
    assert calls[-1] == (NUM_PICTURES + 3, NUM_PICTURES + 3)
    after = rows_of(gallery)
    assert all((after[name] == vector).all() for name, vector in before.items())


def test_another_model_is_refused(gallery: Path, tmp_path: Path) -> None:
    before = tree(gallery)
    more = write_pictures(tmp_path / "more", 2, seed=1)
    with pytest.raises(SpaceMismatch, match="two models"):
        add(gallery, more, model=write_model(tmp_path / "other.safetensors", seed=1))
    assert tree(gallery) == before


@pytest.mark.parametrize("places", [["nowhere"], ["pictures", "nowhere"], ["empty"], []])
def test_what_is_not_there_is_refused(
    tmp_path: Path, model: Path, pictures: list[Path], places: list[str]
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SampleError):
        add(tmp_path / "gallery", [tmp_path / place for place in places], model=model)
    assert not (tmp_path / "gallery").exists()


def test_a_new_gallery_needs_a_model(tmp_path: Path, pictures: list[Path]) -> None:
    with pytest.raises(StoreError, match="no gallery yet"):
        add(tmp_path / "gallery", pictures)
    with pytest.raises(WeightsError, match="no file"):
        add(tmp_path / "gallery", pictures, model=tmp_path / "nothing.safetensors")
    with pytest.raises(StoreError, match="no gallery yet"):
        search(tmp_path / "gallery", pictures)
    assert not (tmp_path / "gallery").exists()


def test_a_damaged_encoder_is_noticed(gallery: Path, pictures: list[Path], tmp_path: Path) -> None:
    (copy,) = (gallery / "encoders").iterdir()
    copy.write_bytes(write_model(tmp_path / "other.safetensors", seed=1).read_bytes())
    with pytest.raises(StoreError, match="damaged"):
        search(gallery, pictures[:1])
    with pytest.raises(StoreError, match="damaged"):
        add(gallery, pictures)


def remove_rows(table: Path) -> None:
    next((table / "data").iterdir()).unlink()


def overwrite_rows(table: Path) -> None:
    next((table / "data").iterdir()).write_bytes(b"not rows" * 50)


def remove_manifests(table: Path) -> None:
    shutil.rmtree(table / "_versions")


@pytest.mark.parametrize("damage", [remove_rows, overwrite_rows, remove_manifests])
def test_damaged_rows_are_noticed(
    gallery: Path, pictures: list[Path], tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    damage(gallery / "gallery.lance")
    other = write_model(tmp_path / "other.safetensors", seed=1)
    rows = tree(gallery / "gallery.lance")
    for call in (
        lambda: search(gallery, pictures[:1]),
        lambda: status(gallery),
        lambda: add(gallery, pictures),
        lambda: add(gallery, pictures, model=other),
    ):
        with pytest.raises(StoreError) as caught:
            call()
        assert str(gallery) in str(caught.value) or isinstance(caught.value, SpaceMismatch)
        assert "no gallery yet" not in str(caught.value)
    assert tree(gallery / "gallery.lance") == rows


def spoil(folder: Path) -> dict[Path, str]:
    """Bad files of several kinds, each with a word that its reason must hold."""
    whole = write_pictures(folder, 1, seed=9)[0]
    data = whole.read_bytes()
    whole.unlink()
    contents = {"cut": data[: len(data) // 2], "text": b"hello", "empty": b"", "empty_too": b""}
    for name, content in contents.items():
        (folder / f"{name}.png").write_bytes(content)
    words = {"cut": "truncated", "text": "not an image", "empty": "empty file", "empty_too": "empty file"}
    (folder / "dangling.png").symlink_to(folder / "gone.png")
    return {folder / f"{name}.png": word for name, word in (words | {"dangling": "No such file"}).items()}


def test_bad_pictures_are_named_and_counted(gallery: Path, pictures: list[Path], tmp_path: Path) -> None:
    reasons = spoil(tmp_path / "bad")
    added = add(gallery, [*pictures, tmp_path / "bad"], max_bad_share=0.2)
    assert {path for path, _ in added.bad} == reasons.keys()
    assert all(reasons[path] in reason for path, reason in added.bad)
    assert (added.num_new, added.num_present, added.num_duplicates) == (0, NUM_PICTURES, 0)


def test_too_many_bad_pictures_stop_it(tmp_path: Path, model: Path, pictures: list[Path]) -> None:
    spoil(tmp_path / "bad")
    gallery, places = tmp_path / "gallery", [*pictures, tmp_path / "bad"]
    with pytest.raises(SampleError, match=r"3 of 45 pictures cannot be added, more than the 5.0% allowed"):
        add(gallery, places, model=model)
    assert add(gallery, places, model=model, max_bad_share=5 / 45).num_rows == NUM_PICTURES


@pytest.mark.parametrize(
    ("option", "value"), [("max_bad_share", 2.0), ("max_bad_share", np.nan), ("min_rows_for_index", 0)]
)
def test_a_mistaken_option_leaves_nothing(
    tmp_path: Path, model: Path, pictures: list[Path], option: str, value: float
) -> None:
    with pytest.raises(RecipeError, match=option):
        add(tmp_path / "gallery", pictures, model=model, **{option: value})
    assert not (tmp_path / "gallery").exists()


@pytest.mark.parametrize("exclude", [False, True])
def test_a_search_for_no_hits_is_refused(gallery: Path, pictures: list[Path], exclude: bool) -> None:
    with pytest.raises(VectorError, match="0 hits"):
        search(gallery, pictures[:1], 0, exclude_itself=exclude)


def test_a_path_that_is_no_text_is_bad(gallery: Path, pictures: list[Path], tmp_path: Path) -> None:
    strange = Path(os.fsdecode(bytes(tmp_path) + b"/\xff.png"))
    strange.write_bytes(write_pictures(tmp_path / "more", 1, seed=1)[0].read_bytes())
    added = add(gallery, [*pictures, strange])
    assert [path for path, _ in added.bad] == [strange]
    assert "Unicode" in added.bad[0][1]


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_an_embedding_without_direction_is_bad(tmp_path: Path, pictures: list[Path], value: float) -> None:
    def spoiled(model: torch.nn.Module) -> None:
        for parameter in model.parameters():
            torch.nn.init.constant_(parameter, value)

    broken = write_model(tmp_path / "broken.safetensors", 0, change=spoiled)
    with pytest.raises(SampleError, match="no embedding"):
        add(tmp_path / "gallery", pictures, model=broken)
    added = add(tmp_path / "gallery", pictures, model=broken, max_bad_share=1.0)
    assert (added.num_rows, len(added.bad)) == (0, NUM_PICTURES)
    with pytest.raises(StoreError, match="no gallery yet"):
        status(tmp_path / "gallery")


KILLED_ADD = """
import os, signal, sys
from pathlib import Path
from regraft.recipes.gallery import add
gallery, pictures, model, last = sys.argv[1:]
def watch(num_done, num_files):
    if num_done == int(last):
        os.kill(os.getpid(), signal.SIGKILL)
add(Path(gallery), [Path(pictures)], model=Path(model), watch=watch)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.parametrize("num_puts", [0, 2])
def test_a_killed_add_goes_on(tmp_path: Path, model: Path, num_puts: int) -> None:
    num_pictures, last = 3 * ROWS_A_PUT, num_puts * ROWS_A_PUT + 5
    folder, gallery = tmp_path / "pictures", tmp_path / "gallery"
    write_pictures(folder, num_pictures)
    arguments = [str(gallery), str(folder), str(model), str(last)]
    done = subprocess.run([sys.executable, "-c", KILLED_ADD, *arguments], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    survivors = rows_of(gallery)
    assert len(survivors) == num_puts * ROWS_A_PUT

    added = add(gallery, [folder], model=model)
    assert (added.num_present, added.num_new) == (len(survivors), num_pictures - len(survivors))
    add(tmp_path / "whole", [folder], model=model)
    whole, continued = rows_of(tmp_path / "whole"), rows_of(gallery)
    assert whole.keys() == continued.keys()
    assert all((continued[name] == vector).all() for name, vector in survivors.items())
    # Another process and the same batches, on a number of threads that may differ.
    assert all(np.allclose(continued[name], whole[name], atol=1e-5) for name in whole)


def test_a_large_gallery_gets_an_index(tmp_path: Path, model: Path, pictures: list[Path]) -> None:
    plain, indexed = tmp_path / "plain", tmp_path / "indexed"
    half = NUM_PICTURES // 2
    add(plain, pictures, model=model)
    assert status(plain).num_indexed is None
    add(indexed, pictures[: half - 1], model=model, min_rows_for_index=half)
    assert status(indexed).num_indexed is None
    add(indexed, pictures[: half + 1], min_rows_for_index=half)
    assert status(indexed).num_indexed == half + 1
    add(indexed, pictures[: half + 2], min_rows_for_index=half)
    assert status(indexed).num_indexed == half + 2
    add(indexed, pictures, min_rows_for_index=half)
    assert status(indexed).num_indexed == NUM_PICTURES
    for with_index, without in zip(search(indexed, pictures), search(plain, pictures), strict=True):
        assert [hit.id for hit in with_index.hits] == [hit.id for hit in without.hits]


def test_a_query_that_cannot_be_read_is_named(gallery: Path, tmp_path: Path) -> None:
    query = tmp_path / "text.png"
    query.write_text("hello")
    with pytest.raises(BadImage, match=r"text\.png: not an image"):
        search(gallery, [query])


def test_folders_are_searched_the_same_way_each_time(tmp_path: Path) -> None:
    names = ["b/2.JPG", "b/1.png", "a/c/3.webp", "a/.hidden.png", ".cache/4.png", "notes.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "circle").symlink_to(tmp_path)
    named = tmp_path / "notes.txt"
    found = [path.relative_to(tmp_path).as_posix() for path in picture_files([tmp_path, named])]
    assert found == ["a/c/3.webp", "b/1.png", "b/2.JPG", "notes.txt"]


def test_the_page_is_one_file(gallery: Path, pictures: list[Path], tmp_path: Path) -> None:
    out, marked = tmp_path / "page" / "out.html", tmp_path / "<b>.png"
    marked.write_bytes(pictures[0].read_bytes())
    answers = search(gallery, [marked], 3)
    pictures[0].unlink()
    write_answers(answers, out, subtitle="to <look> at")
    page = out.read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 3
    assert page.count("missing file") == 1
    assert "http" not in page.replace("http-equiv", "")
    assert "src=" not in page.replace('src="data:', "")
    assert "<b>" not in page
    assert "<look>" not in page
    assert f"{answers[0].hits[1].score:.3f}" in page


def test_thumbnails_are_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    large = thumbnail(Image.fromarray(rng.integers(0, 256, (900, 300, 3), np.uint8)))
    assert large.uri is not None
    assert large.uri.startswith("data:image/jpeg;base64,")
    assert len(large.uri) < 50_000
    assert not large.is_tiny
    assert thumbnail(Image.new("RGB", (8, 8))).is_tiny
    assert thumbnail(tmp_path / "gone.png").defect == "missing file"
