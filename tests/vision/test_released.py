"""Published reinforcements as tables: the views and the answers are those that were published."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from releasing import (
    NUM_DRAWS,
    PIPELINES,
    SIZE_PX,
    SQUARE,
    TOP_K,
    Release,
    read,
    save,
    write_pictures,
    write_release,
)
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms import functional as F

from regraft.errors import RegraftError, SampleError, TableError
from regraft.recipes.augmentation import variation_of
from regraft.recipes.catalogue import find_recipe
from regraft.recipes.recipe import Recipe
from regraft.recipes.reinforcement import targets_of, views_of, with_views_of
from regraft.recipes.released import import_released
from regraft.recipes.training import grow
from regraft.tables.table import Table
from regraft.vision import reinforce, released_blocks
from regraft.vision.blocks import ANSWERS
from regraft.vision.data import ImageSet, from_folder
from regraft.vision.reinforce import describe_views
from regraft.vision.released_folder import folder_order

Made = tuple[Release, ImageSet, Table]


@pytest.fixture(scope="module", name="made", params=PIPELINES)
def _made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    place = tmp_path_factory.mktemp(request.param)
    pictures = write_pictures(place / "pictures", square=request.param == "shift")
    release = write_release(place / "release", pictures, PIPELINES[request.param])
    # In no order at all, neither that of their numbers nor that of their ids.
    samples = from_folder(pictures)
    samples = samples.take(np.random.default_rng(1).permutation(len(samples)).tolist())
    return release, samples, import_released(release.folder, place / "table", samples)


def trained_on(table: Table) -> Recipe:
    return with_views_of(find_recipe("mobileone_mini"), table)


def shown(table: Table, samples: ImageSet, recipe: Recipe) -> Tensor:
    """Every recorded view as training shows it, by picture in the order of the samples, and by draw."""
    targets, seed = targets_of(recipe, samples, table, seed=3)
    views = views_of(recipe, samples, seed=seed)
    indices = np.repeat(np.arange(len(samples)), table.num_draws)
    draws = np.tile(np.arange(table.num_draws), len(samples))
    params = targets.parameters(indices, draws, views.sample(indices, draws))
    viewed = views.show(indices, params, views.seeds(indices, draws), recipe.size_px)
    assert len(viewed.kept) == len(indices)
    return viewed.pixels.unflatten(0, (len(samples), -1))


def test_numbers_are_those_of_torchvisions_folder(made: Made) -> None:
    release, samples, _ = made
    theirs = [Path(file) for file, _ in ImageFolder(str(release.pictures)).samples]
    for which in (samples, from_folder(release.pictures)):
        assert [which.sources[index] for index in folder_order(which)] == theirs
        assert list(which.sources) != theirs


def assert_like(view: Tensor, expected: Tensor) -> None:
    """Equal but for rounding.

    A blend is rounded to a grey level here, and is not there. Three of the operations are rounded here and
    cut off there, one level apart, which the second of two may spread: 4 levels were seen, on few pixels.
    """
    difference = (view - expected).abs()
    assert difference.max() <= 4
    assert difference.mean() < 0.5


def test_views_are_those_that_were_published(made: Made) -> None:
    release, samples, table = made
    seen = shown(table, samples, trained_on(table))
    order = folder_order(samples)
    num_far = num_exact = 0
    for number, index in enumerate(order):
        for draw in range(NUM_DRAWS):
            expected = release.replay(number, draw)
            assert_like(seen[index, draw], expected)
            num_exact += bool((seen[index, draw] - expected).abs().max() <= 0.501)
            num_far += bool((seen[index - 1, draw] - expected).abs().max() > 20)
    num_views = len(order) * NUM_DRAWS
    assert num_exact >= num_views * (0.7 if "rand_augment" in release.stages else 1)
    assert num_far > 0.9 * num_views  # another picture's view is not like it


def test_answers_are_those_that_were_published(made: Made) -> None:
    release, samples, table = made
    column = table.columns[ANSWERS]
    order = folder_order(samples)
    assert (column.k, table.num_draws) == (TOP_K, NUM_DRAWS)
    ranks = np.repeat(table.ranks_of([samples.ids[index] for index in order]), NUM_DRAWS)
    draws = np.tile(np.arange(NUM_DRAWS), len(order))
    stored = column.decode(table.read(ANSWERS, ranks, draws)).dense()
    # All classes but one are listed, so the rest is that one's. A code is 2.2 % off at most, and scaling to a
    # sum of 1 may double that; below 2^-15.9 all is the same.
    np.testing.assert_allclose(stored, release.answers.reshape(len(ranks), -1), rtol=0.06, atol=2e-5)


def test_recipes_show_what_is_recorded(made: Made) -> None:
    release, samples, table = made
    recipe = trained_on(table)
    assert table.origin["views"] == describe_views(views_of(recipe, samples, seed=0))
    assert table.origin["teacher"] == "imported"
    assert table.origin["released"]["reinforce"]["topk"] == TOP_K
    variation = variation_of(recipe)
    assert (variation.mix is not None) == ("mixup" in release.stages)
    assert (variation.crop is not None) == ("random_resized_crop" in release.stages)


def test_networks_train_on_it(made: Made, tmp_path: Path) -> None:
    _, samples, table = made
    recipe = trained_on(table)
    schedule = replace(recipe.schedule, steps=2, warmup_steps=1)
    recipe = replace(recipe, schedule=schedule, batch_size=8)
    grow(recipe, samples, samples, tmp_path / "run", table=table)
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_pillows_crops_are_nearly_the_same(tmp_path: Path) -> None:
    """The published views were cut by Pillow, whose resizing differs from that of tensors by its rounding."""
    release = write_release(tmp_path / "release", write_pictures(tmp_path / "pictures"), SQUARE)
    samples = from_folder(release.pictures)
    table = import_released(release.folder, tmp_path / "table", samples)
    seen = shown(table, samples, trained_on(table))
    files = ImageFolder(str(release.pictures)).samples
    for number, index in enumerate(folder_order(samples)):
        box, flipped = release.records[number][0]["params"]
        view = F.resized_crop(read(files[number][0]), *box, [SIZE_PX, SIZE_PX])
        expected = F.pil_to_tensor(F.hflip(view) if flipped else view)
        assert (seen[index, 0].int() - expected.int()).abs().max() <= 1


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_a_stopped_import_goes_on(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release, samples, _ = made
    monkeypatch.setattr(released_blocks, "BLOCK_VIEWS", 5 * NUM_DRAWS)
    monkeypatch.setattr(reinforce, "ROWS_TOGETHER", 10 * NUM_DRAWS)
    whole = import_released(release.folder, tmp_path / "whole", samples, workers=2)

    def stop(num_done: int, num_all: int) -> None:
        assert num_all == len(samples) * NUM_DRAWS
        if num_done == 15 * NUM_DRAWS:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_released(release.folder, tmp_path / "stopped", samples, watch=stop)
    told: list[int] = []
    table = import_released(release.folder, tmp_path / "stopped", samples, watch=lambda n, _: told.append(n))
    assert told[0] == 10 * NUM_DRAWS
    assert contents(table.folder) == contents(whole.folder)


@pytest.fixture(name="release")
def _release(tmp_path: Path) -> Release:
    pictures = write_pictures(tmp_path / "pictures")
    return write_release(tmp_path / "release", pictures, PIPELINES["strong_mix"])


def tear(release: Release) -> None:
    file = release.folder / "7.pth.tar"
    file.write_bytes(file.read_bytes()[:-40])


def lie(release: Release) -> None:
    shutil.copy(release.folder / "6.pth.tar", release.folder / "7.pth.tar")


def shorten(release: Release) -> None:
    save(release.folder, 7, release.records[7][:-1])


def cut_outside(release: Release) -> None:
    release.records[7][2]["params"] = [None, (0, 0, 91, 1), False, None, None, None, None]
    save(release.folder, 7, release.records[7])


def mix_with_nobody(release: Release) -> None:
    release.records[7][2]["params"] = [None, (0, 0, 1, 1), False, None, None, 0.3, None]
    save(release.folder, 7, release.records[7])


def mix_with_a_stranger(release: Release) -> None:
    release.records[7][2]["params"] = [
        24,
        *([each, each] for each in ((0, 0, 1, 1), False, None, None)),
        0.3,
        None,
    ]
    save(release.folder, 7, release.records[7])


def name_an_unknown_operation(release: Release) -> None:
    release.records[7][2]["params"] = [None, (0, 0, 1, 1), False, [(14, 0.0), (0, 0.0)], None, None, None]
    save(release.folder, 7, release.records[7])


def forget_an_entry(release: Release) -> None:
    release.records[7][2]["params"].pop()
    save(release.folder, 7, release.records[7])


def list_a_class_twice(release: Release) -> None:
    release.records[7][2]["prob"] = ([0.3, 0.3, 0.3], [1, 1, 2])
    save(release.folder, 7, release.records[7])


def write_words(release: Release) -> None:
    release.records[7][2]["params"][1] = ["left", "right"]
    save(release.folder, 7, release.records[7])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (tear, r"7\.pth\.tar is no whole pickle"),
        (lie, r"7\.pth\.tar says that it is of picture 6, expected 7"),
        (shorten, r"7\.pth\.tar has 5 records of 3 classes, expected 6 of 3"),
        (cut_outside, r"picture 7: A part of 91 x 1 pixels begins at 0, 0, expected one inside"),
        (mix_with_nobody, "picture 7: A view is mixed with no picture"),
        (mix_with_a_stranger, "picture 7: A partner is picture 24, expected 0 to 23"),
        (name_an_unknown_operation, "picture 7: An operation is 14, expected 0 to 13"),
        (forget_an_entry, r"7\.pth\.tar does not hold records of .*: one has 6 parameters, expected 7"),
        (list_a_class_twice, "picture 7: Row 2 lists class 1 twice"),
        (write_words, r"7\.pth\.tar does not hold records"),
        (lambda release: (release.folder / "7.pth.tar").unlink(), r"and 7\.pth\.tar is not there"),
        (lambda release: (release.folder / "23.pth.tar").unlink(), "of 23 pictures, and there are 24"),
        (lambda release: (release.pictures / "b" / "1.png").unlink(), "of 24 pictures, and there are 23"),
        (lambda release: (release.pictures / "b" / "1.png").write_bytes(b"no"), "1.png cannot be read"),
        (lambda release: (release.folder / "config.pth.tar").unlink(), "has no config"),
        (
            lambda release: (release.pictures / "a").rename(release.pictures / "e"),
            "may be of another picture",
        ),
        (lambda release: shutil.rmtree(release.folder), "is no folder"),
    ],
)
def test_what_is_wrong_is_named(
    spoil: Callable[[Release], None], message: str, release: Release, tmp_path: Path
) -> None:
    spoil(release)
    with pytest.raises(RegraftError, match=message):
        import_released(release.folder, tmp_path / "table", from_folder(release.pictures))
    assert not (tmp_path / "table" / "table.json").exists()


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"center_crop": {"size": 32}}, "the stage 'center_crop'"),
        ({"rand_augment": {"num_ops": 3}}, "rand_augment.num_ops = 3, expected 2"),
        ({"rand_augment": {"interpolation": "bilinear"}}, "sets rand_augment.interpolation"),
        ({"mixup": {"alpha": "much"}}, "mixup.alpha = 'much', expected 1.0"),
        ({"random_resized_crop": {"enable": False}}, "expected random_resized_crop, or resize"),
        ({"random_crop": {"size": 32, "padding": 4}}, "expected random_resized_crop, or resize"),
        ({"random_resized_crop": {}}, "random_resized_crop.size = None, expected a number of pixels"),
        ({"random_resized_crop": None}, "says nothing of 'random_resized_crop'"),
    ],
)
def test_pipelines_that_cannot_be_repeated_are_refused(
    stages: dict[str, object], message: str, release: Release, tmp_path: Path
) -> None:
    config = {"reinforce": {"compress": True, "image_augmentation": release.stages | stages}}
    torch.save(config, release.folder / "config.pth.tar")
    with pytest.raises(TableError, match=message):
        import_released(release.folder, tmp_path / "table", from_folder(release.pictures))


def test_a_misspelt_crop_is_a_crop(release: Release, tmp_path: Path) -> None:
    stages = {name.replace("resized", "resize"): settings for name, settings in release.stages.items()}
    config = {"reinforce": {"compress": True, "image_augmentation": stages}}
    torch.save(config, release.folder / "config.pth.tar")
    samples = from_folder(release.pictures)
    table = import_released(release.folder, tmp_path / "table", samples)
    seen = shown(table, samples, trained_on(table))
    assert_like(seen[folder_order(samples)[5], 1], release.replay(5, 1))


def test_pictures_that_are_read_otherwise_are_counted_and_named(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures")
    turned = pictures / "b" / "2.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    read(turned).save(turned, exif=exif)
    see_through = pictures / "c" / "B.png"
    read(see_through).convert("RGBA").save(see_through)
    release = write_release(
        tmp_path / "release", pictures, {"random_resized_crop": {"size": SIZE_PX}} | SQUARE
    )
    for records in release.records:
        for record in records:
            record["params"][1] = False
    for number, records in enumerate(release.records):
        save(release.folder, number, records)
    samples = from_folder(pictures)
    with pytest.raises(SampleError, match=r"2 of 24 pictures .*such as b/2.png, c/B.png.*at most 0.1%"):
        import_released(release.folder, tmp_path / "table", samples)
    table = import_released(release.folder, tmp_path / "table", samples, largest_odd_share=0.1)
    assert table.origin["read_otherwise"] == ["b/2.png", "c/B.png"]
    seen = shown(table, samples, trained_on(table))
    for number, index in enumerate(folder_order(samples)):
        expected = release.replay(number, 2)
        if samples.ids[index] == "b/2.png":
            expected = expected.rot90(-1, (1, 2))
        # Rows and columns of what is turned are resized in another order.
        assert (seen[index, 2] - expected).abs().max() <= 1


def test_pictures_without_files_have_no_numbers(release: Release, tmp_path: Path) -> None:
    samples = from_folder(release.pictures)
    loose = replace(samples, sources=(Image.new("RGB", (9, 9)), *samples.sources[1:]))
    with pytest.raises(SampleError, match="1 of the pictures are no files"):
        import_released(release.folder, tmp_path / "table", loose)


def test_fewer_classes_than_the_teacher_knows_are_refused(release: Release, tmp_path: Path) -> None:
    shutil.rmtree(release.pictures / "d")
    for number in range(18, 24):
        (release.folder / f"{number}.pth.tar").unlink()
    for number, records in enumerate(release.records[:18]):
        for record in records:
            record["params"] = [None, (0, 0, 1, 1), False, None, None, None, None]
        save(release.folder, number, records)
    with pytest.raises(RegraftError, match="lists class 3, expected 0 to 2"):
        import_released(release.folder, tmp_path / "table", from_folder(release.pictures))
