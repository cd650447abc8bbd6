"""Upgrades of real galleries: what a plan says, what each verb changes, and what is refused."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from galleries import CLASSES, tree, write_model, write_pictures

from regraft.errors import RecipeError, RegraftError, RunError, SampleError, StoreError, WeightsError
from regraft.recipes import upgrade
from regraft.recipes.encoders import Encoders, load_encoder, read_again
from regraft.recipes.gallery import add, status
from regraft.recipes.known import read_known
from regraft.recipes.labels import FolderLabels, TableLabels, classify, labels_from
from regraft.recipes.pairing import FromGallery, FromPictures
from regraft.recipes.pairing import Given as GivenPairs
from regraft.recipes.place import place_of
from regraft.recipes.search import search
from regraft.recipes.upgrade_plan import plan, read_plan
from regraft.retrieval.backfill_order import Given
from regraft.retrieval.ledger import Ledger
from regraft.retrieval.ledger_entries import Progress
from regraft.retrieval.pairs import from_arrays
from regraft.retrieval.store.lance import LanceStore

NUM_PICTURES = 60


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "old": write_model(folder / "old.safetensors", 0),
        "new": write_model(folder / "new.safetensors", 1, size_px=24),
        "third": write_model(folder / "third.safetensors", 3),
        "side": write_model(folder / "side.safetensors", 2, num_classes=0),
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, models: dict[str, Path]) -> Path:
    """A folder with pictures, a gallery of them, and the same gallery with an upgrade planned."""
    folder = tmp_path_factory.mktemp("home")
    write_pictures(folder / "pictures", NUM_PICTURES)
    add(folder / "gallery", [folder / "pictures"], model=models["old"])
    shutil.copytree(folder / "gallery", folder / "planned")
    plan(folder / "planned", models["new"], pairs=FromGallery(20))
    return folder


@pytest.fixture
def gallery(home: Path, tmp_path: Path) -> Path:
    return shutil.copytree(home / "gallery", tmp_path / "gallery")


@pytest.fixture
def planned(home: Path, tmp_path: Path) -> Path:
    return shutil.copytree(home / "planned", tmp_path / "planned")


def rows_of(gallery: Path, space: str) -> dict[str, tuple[np.ndarray, str]]:
    batches = LanceStore(gallery).scan(space=space)
    return {
        name: (vector, origin)
        for rows in batches
        for name, vector, origin in zip(rows.ids, rows.vectors, rows.origins, strict=True)
    }


def test_a_plan_touches_no_row(gallery: Path, models: dict[str, Path]) -> None:
    before = tree(gallery)
    told: list[str] = []
    made = plan(
        gallery, models["new"], labels=FolderLabels(), watch=lambda what, done, total: told.append(what)
    )
    after = tree(gallery)
    assert {path: after[path] for path in before} == before
    assert all(str(place_of(gallery).upgrade) in path for path in after.keys() - before.keys())
    assert read_plan(place_of(gallery)) == made
    assert made.num_pairs == NUM_PICTURES
    assert {"encoding random pictures", "fitting procrustes"} <= set(told)

    forecast, cost = made.forecast, made.cost
    assert forecast.measure == "mean_average_precision"
    assert [point.share for point in forecast.points] == [step / 20 for step in range(21)]
    assert all(point.low <= point.mean <= point.high for point in (forecast.before, *forecast.points))
    assert 0 <= forecast.stop <= 1
    assert (cost.num_rows, cost.num_encoded) == (NUM_PICTURES, NUM_PICTURES)
    assert cost.transform_bytes == NUM_PICTURES * 256 * 4
    assert cost.encode_s is not None
    assert cost.backfill_s(1.0) == 0.0, "every row was encoded to learn from"
    page = (place_of(gallery).upgrade / "plan.html").read_text()
    assert "<svg" in page
    assert "src=" not in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    networks = {rung.name: rung.why_not for rung in made.rungs}
    assert networks["procrustes"] is None
    assert "fewer than" in str(networks["fct"])


def test_without_labels_the_measure_is_imitation(gallery: Path, models: dict[str, Path]) -> None:
    made = plan(gallery, models["new"])
    assert made.forecast.is_imitation
    assert "imitation" in made.forecast.name
    assert made.forecast.points[-1].mean == 1.0
    assert "imitation" in (place_of(gallery).upgrade / "plan.html").read_text()


def test_from_plan_to_finish(planned: Path, home: Path, models: dict[str, Path]) -> None:
    gallery, made = planned, read_plan(place_of(planned))
    query = sorted((home / "pictures").rglob("*.png"))[:1]
    assert search(gallery, query)[0].space == made.old.space
    assert upgrade.status(gallery).phase == "planned"

    half = upgrade.run(gallery, until=0.5)
    assert (half.phase, half.served) == ("backfilling", made.new.space)
    # Whole batches are done, so more than half may be.
    assert NUM_PICTURES / 2 <= half.num_native <= NUM_PICTURES
    assert half.ending == ("budget" if half.num_transformed else "done")
    assert half.num_native + half.num_transformed == NUM_PICTURES
    assert search(gallery, query)[0].space == made.new.space
    old = rows_of(gallery, made.old.space)
    assert len(old) == NUM_PICTURES

    done = upgrade.run(gallery, until=1.0)
    assert (done.num_native, done.ending) == (NUM_PICTURES, "done")
    assert upgrade.run(gallery, until=1.0).num_native == NUM_PICTURES, "done again, it does nothing"
    store, encoder = LanceStore(gallery), load_encoder(models["new"])
    rows = store.get(sorted(rows_of(gallery, made.new.space)))
    expected = encoder(read_again(rows.ids, rows.sources, encoder.preprocess).pictures)
    np.testing.assert_allclose(rows.vectors, expected, atol=1e-5)

    for _ in range(2):
        assert upgrade.finish(gallery).phase == "finished"
    assert [space.space for space in status(gallery).spaces] == [made.new.space]
    with pytest.raises(RunError, match="finished"):
        upgrade.rollback(gallery)
    with pytest.raises(RunError):
        upgrade.run(gallery)


def test_until_nothing_only_switches(planned: Path) -> None:
    gallery = planned
    state = upgrade.run(gallery, until=0.0)
    assert (state.phase, state.num_native, state.num_lacking) == ("backfilling", 20, 0)
    made_for_the_plan = [
        name for name, (_, origin) in rows_of(gallery, state.new_space).items() if origin == "native"
    ]
    known = read_known(place_of(gallery))
    assert known is not None
    assert sorted(known.rows.ids) == sorted(made_for_the_plan)


def foretell(gallery: Path, before: float, values: Sequence[float]) -> None:
    """Write another forecast into a plan."""
    path = place_of(gallery).upgrade / "plan.json"
    made = json.loads(path.read_text())
    shares = np.linspace(0, 1, len(values)).tolist()
    points = [
        {"share": share, "mean": value, "low": value, "high": value}
        for share, value in zip(shares, values, strict=True)
    ]
    told = {"points": points, "before": points[0] | {"mean": before}, "stop": 0.75}
    path.write_text(json.dumps(made | {"forecast": made["forecast"] | told}))


def test_where_computed_vectors_are_worse_the_old_model_answers_longer(planned: Path) -> None:
    foretell(planned, 0.5, [0.3, 0.4, 0.55, 0.6, 0.6])
    made = read_plan(place_of(planned))
    assert made.forecast.switch == 0.5
    served: list[tuple[int, str]] = []

    def watch(progress: Progress) -> None:
        store = LanceStore(planned)
        assert store.layout is not None
        served.append((store.count(space=made.new.space, origin="native"), store.layout.space))

    state = upgrade.run(planned, watch=watch)
    assert state.phase == "backfilling"
    backfilled = [space for num_native, space in served if num_native > 20]
    assert backfilled[0] == made.old.space, "the first batch came before the switch"


def test_a_plan_without_gain_is_not_carried_out_by_itself(planned: Path) -> None:
    foretell(planned, 0.9, [0.3, 0.4, 0.5])
    assert read_plan(place_of(planned)).forecast.switch is None
    with pytest.raises(RunError, match="not expected to make"):
        upgrade.run(planned)
    assert upgrade.status(planned).served == read_plan(place_of(planned)).old.space
    assert upgrade.run(planned, until=1.0).num_native == NUM_PICTURES


def test_a_rollback_gives_back_what_was(planned: Path, models: dict[str, Path], tmp_path: Path) -> None:
    gallery, made = planned, read_plan(place_of(planned))
    before = rows_of(gallery, status(gallery).space)
    upgrade.run(gallery, until=0.5)
    more = write_pictures(tmp_path / "more", 4, seed=1)
    add(gallery, more)
    for _ in range(2):
        assert upgrade.rollback(gallery).phase == "rolled_back"
    after = rows_of(gallery, made.old.space)
    assert len(after) == NUM_PICTURES + 4
    assert all((after[name][0] == vector).all() for name, (vector, _) in before.items())
    assert [space.space for space in status(gallery).spaces] == [made.old.space]
    assert search(gallery, more[:1])[0].hits[0].source == str(more[0])
    # The next plan puts this one aside.
    plan(gallery, models["new"], pairs=FromGallery(20))
    assert (gallery / "past_upgrades" / "001" / "ledger.sqlite").is_file()
    assert upgrade.status(gallery).phase == "planned"


def test_rows_may_be_added_at_any_time(planned: Path, tmp_path: Path) -> None:
    gallery, made = planned, read_plan(place_of(planned))
    add(gallery, write_pictures(tmp_path / "after the plan", 5, seed=1))
    upgrade.run(gallery, until=0.5)
    add(gallery, write_pictures(tmp_path / "after the switch", 5, seed=2))
    new = rows_of(gallery, made.new.space)
    assert len(new) == NUM_PICTURES + 10
    assert len(rows_of(gallery, made.old.space)) == NUM_PICTURES + 10
    state = upgrade.run(gallery, until=1.0)
    assert state.num_native == state.num_rows == NUM_PICTURES + 10


def test_what_is_gone_keeps_its_computed_vector(planned: Path, tmp_path: Path) -> None:
    more = write_pictures(tmp_path / "more", 5, seed=1)
    add(planned, more)
    for path in more:
        path.unlink()
    state = upgrade.run(planned, until=1.0)
    assert (state.num_native, state.num_transformed, len(state.gone)) == (NUM_PICTURES, 5, 5)
    assert all("No such file" in reason for reason in state.gone.values())
    assert upgrade.finish(planned).num_transformed == 5


def test_side_information_is_used_where_it_helps(gallery: Path, models: dict[str, Path]) -> None:
    add(gallery, [], side=models["side"])
    side = status(gallery).spaces[1].space
    draw = np.random.default_rng(0)
    # What the old vectors do not tell, and side-information does: six numbers an item.
    content, maps = draw.normal(size=(300, 6)), draw.normal(size=(2, 6, 256))
    pairs = GivenPairs(from_arrays(draw.normal(size=(300, 256)), content @ maps[0], side=content @ maps[1]))
    assert plan(gallery, models["new"], pairs=pairs, use_side=False).side is None
    assert plan(gallery, models["new"], pairs=pairs).side == side
    assert upgrade.run(gallery, until=1.0).num_native == NUM_PICTURES
    upgrade.finish(gallery)
    # It is there for the upgrade after this one too.
    assert status(gallery).spaces[1].space == side


def test_pairs_can_come_from_elsewhere(gallery: Path, models: dict[str, Path], tmp_path: Path) -> None:
    place = place_of(gallery)
    write_pictures(tmp_path / "training", 40, seed=4)
    (tmp_path / "training" / "broken.png").write_bytes(b"")
    store = place.open()
    source = FromPictures([tmp_path / "training"], Encoders(place).of(place.served(store)))
    made = plan(gallery, models["new"], pairs=source, labels=FolderLabels())
    assert (made.num_pairs, made.cost.num_encoded) == (40, 0)
    assert list(made.gone) == [str(tmp_path / "training" / "broken.png")]
    assert "empty" in made.gone[str(tmp_path / "training" / "broken.png")]
    assert made.cost.backfill_s(1.0) != 0.0
    assert upgrade.run(gallery, until=0.0).num_native == 0

    draw = np.random.default_rng(0)
    old, new = draw.normal(size=(2, 30, 256)).astype(np.float32)
    upgrade.rollback(gallery)
    assert plan(gallery, models["new"], pairs=GivenPairs(from_arrays(old, new))).num_pairs == 30
    with pytest.raises(SampleError, match="old vectors of the pairs have 9 numbers"):
        plan(gallery, models["new"], pairs=GivenPairs(from_arrays(old[:, :9], new)))
    add(gallery, [], side=models["side"])
    with pytest.raises(SampleError, match="no side-information"):
        plan(gallery, models["new"], pairs=GivenPairs(from_arrays(old, new)))


def test_a_row_that_has_changed_since_the_plan_is_encoded(gallery: Path, models: dict[str, Path]) -> None:
    """The vector that was made for the plan is not put in for another picture of the same name."""
    store = LanceStore(gallery)
    ids = sorted(rows_of(gallery, status(gallery).space))
    rows = store.get(ids)
    named = [f"item {number}" for number in range(len(ids))]
    store.put(named, rows.vectors, space=rows.spaces[0], sources=rows.sources)
    store.drop(ids)
    made = plan(gallery, models["new"])
    assert made.num_pairs == NUM_PICTURES
    store.put(named[:1], rows.vectors[1:2], space=rows.spaces[0], sources=rows.sources[1:2])
    upgrade.run(gallery, until=0.0)
    found = rows_of(gallery, made.new.space)
    assert [name for name in named if found[name][1] == "transformed"] == named[:1]
    upgrade.run(gallery, until=1.0)
    found = rows_of(gallery, made.new.space)
    np.testing.assert_allclose(found[named[0]][0], found[named[1]][0], atol=1e-5)


def test_a_share_is_reached_although_sources_are_gone(planned: Path, home: Path, tmp_path: Path) -> None:
    """Items that cannot be encoded do not count for the share that was asked for."""
    shutil.copytree(home / "pictures", tmp_path / "pictures")
    store = LanceStore(planned)
    records = store.get(sorted(rows_of(planned, status(planned).space)))
    moved = [str(tmp_path / Path(str(source)).relative_to(home)) for source in records.sources]
    store.put(records.ids, records.vectors, space=records.spaces[0], sources=moved)
    for path in moved[::4]:
        Path(path).unlink()
    state = upgrade.run(planned, until=0.7)
    assert 0.7 <= state.share <= 0.75


def test_rows_are_encoded_in_the_order_that_is_asked_for(planned: Path) -> None:
    backwards = Given(sorted(rows_of(planned, status(planned).space), reverse=True))
    upgrade.run(planned, until=0.5, order=backwards)
    with Ledger(place_of(planned).upgrade / "ledger.sqlite") as ledger:
        assert ledger.order == backwards.name


def test_a_plan_does_not_push_aside_an_upgrade_that_has_begun(planned: Path, models: dict[str, Path]) -> None:
    """It had not begun when the planning did."""
    begun: list[str] = []

    def begin(what: str, num_done: int, num_total: int) -> None:
        if what == "fitting ridge" and not begun:
            begun.append(upgrade.run(planned, until=0.0).phase)

    with pytest.raises(RunError, match="is under way"):
        plan(planned, models["third"], pairs=FromGallery(20), watch=begin)
    assert begun == ["backfilling"]
    assert upgrade.rollback(planned).phase == "rolled_back"


def test_a_ledger_that_was_never_made_whole_is_none(planned: Path, models: dict[str, Path]) -> None:
    """As a process leaves it that dies after the first call of SQLite."""
    (place_of(planned).upgrade / "ledger.sqlite").touch()
    assert upgrade.status(planned).phase == "planned"
    with pytest.raises(RunError, match="was not begun"):
        upgrade.pause(planned)
    plan(planned, models["new"], pairs=FromGallery(20))
    (place_of(planned).upgrade / "ledger.sqlite").touch()
    assert upgrade.run(planned, until=0.0).phase == "backfilling"


def test_a_plan_says_why_something_is_not_used(
    gallery: Path, home: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    add(gallery, [], side=models["side"])
    store = LanceStore(gallery)
    records = store.get(sorted(rows_of(gallery, status(gallery).space)))
    # A program put a row anew, which has no side-information until somebody completes it.
    store.put(records.ids[:1], records.vectors[:1], space=records.spaces[0], sources=records.sources[:1])
    made = plan(gallery, models["new"], labels=FolderLabels())
    assert (made.side, made.num_without_side) == (None, 1)
    # Without a source nothing can be encoded, and nobody knows how long the classifier's inputs are.
    store.put(records.ids, records.vectors, space=records.spaces[0])
    draw = np.random.default_rng(0)
    old, new = draw.normal(size=(2, 1500, 256)).astype(np.float32)
    labels = np.arange(1500) % 3
    made = plan(
        gallery, models["new"], pairs=GivenPairs(from_arrays(old, new, labels=labels)), use_side=False
    )
    reasons = {rung.name: rung.why_not for rung in made.rungs}
    assert "how long its inputs are" in str(reasons["fastfill"])
    assert reasons["by_class"] is None
    assert made.cost.encode_s is None


def test_a_damaged_upgrade_is_found_before_anything_is_written(
    planned: Path, models: dict[str, Path]
) -> None:
    """The gallery must not switch to a space that nothing can ask in."""
    folder, space = place_of(planned).upgrade, status(planned).space
    whole = {file.name: file.read_bytes() for file in folder.iterdir()}
    for name, wrong, error, message in (
        ("new.safetensors", whole["new.safetensors"][:2000], WeightsError, "safetensors"),
        ("new.safetensors", models["third"].read_bytes(), RunError, "another model"),
        ("new.safetensors", None, RunError, "is gone"),
        ("known.npz", whole["known.npz"][:500], RunError, "is damaged"),
        ("transformation.safetensors", whole["transformation.safetensors"][:90], RegraftError, "safetensors"),
        ("plan.json", b"[]", RunError, "cannot be read as a plan"),
    ):
        if wrong is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(wrong)
        with pytest.raises(error, match=message):
            upgrade.run(planned)
        assert [layout.space for layout in LanceStore(planned).spaces] == [space], name
        (folder / name).write_bytes(whole[name])
    # A damaged copy in the gallery is replaced.
    copy = place_of(planned).encoder(read_plan(place_of(planned)).new.space)
    copy.write_bytes(b"no model")
    upgrade.run(planned, until=0.0)
    assert copy.read_bytes() == models["new"].read_bytes()


def test_what_has_ended_is_not_paused(planned: Path) -> None:
    upgrade.run(planned, until=0.0)
    upgrade.rollback(planned)
    with pytest.raises(RunError, match="An upgrade that is rolled back cannot be paused"):
        upgrade.pause(planned)
    with pytest.raises(RunError, match="cannot be finished"):
        upgrade.finish(planned)


def test_a_model_of_an_ended_upgrade_can_be_side_information(planned: Path, models: dict[str, Path]) -> None:
    upgrade.run(planned, until=0.0)
    upgrade.rollback(planned)
    add(planned, [], side=models["new"])
    served, side = status(planned).spaces
    assert (side.is_packed, side.num_lacking, served.num_lacking) == (True, 0, 0)


def test_what_cannot_be_judged_is_not_planned(gallery: Path, models: dict[str, Path]) -> None:
    each_its_own = TableLabels({name: name for name in rows_of(gallery, status(gallery).space)})
    with pytest.raises(SampleError, match="have the same label"):
        plan(gallery, models["new"], labels=each_its_own)
    LanceStore(gallery).drop(list(rows_of(gallery, status(gallery).space)))
    old, new = np.random.default_rng(0).normal(size=(2, 30, 256)).astype(np.float32)
    with pytest.raises(StoreError, match="holds no rows"):
        plan(gallery, models["new"], pairs=GivenPairs(from_arrays(old, new)))


def test_labels_from_a_table(gallery: Path, home: Path, models: dict[str, Path], tmp_path: Path) -> None:
    pictures = sorted((home / "pictures").rglob("*.png"))
    lines = [f"{path},{path.parent.name}" for path in pictures[:40]]
    (tmp_path / "labels.csv").write_text("path,label\n" + "\n".join(lines))
    made = plan(gallery, models["new"], labels=labels_from(str(tmp_path / "labels.csv")))
    assert (made.num_pairs, made.num_unlabelled) == (40, NUM_PICTURES - 40)
    with pytest.raises(SampleError, match="None of the 60 pairs has a label"):
        plan(gallery, models["new"], labels=TableLabels({"somebody": "cat"}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id\n1\n", "has the columns id"),
        ("name,label\n1,cat\n", "has the columns name, label"),
        ("id,label\n", "lists no items"),
        ("id,label\n1,cat\n1,dog\n", "another label further up"),
    ],
)
def test_labels_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(SampleError, match=message):
        labels_from(str(tmp_path / "labels.csv"))
    with pytest.raises(SampleError, match="is not a file"):
        labels_from(str(tmp_path / "none.csv"))


def test_classes_keep_the_numbers_of_the_model() -> None:
    assert classify(["cat", "ant"], CLASSES).labels.tolist() == [2, 0]
    strangers = classify(["cat", "dog", "ape"], CLASSES)
    # Beyond the classifier's logits, where no method that reads them mistakes one class for another.
    assert strangers.labels.tolist() == [2, 4, 3]
    assert strangers.classes == (*CLASSES, "ape", "dog")


def test_what_is_refused(gallery: Path, models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"No upgrade .* is planned"):
        upgrade.run(gallery)
    with pytest.raises(RunError, match="this very model"):
        plan(gallery, models["old"])
    with pytest.raises(StoreError, match="no gallery yet"):
        plan(tmp_path / "nowhere", models["new"])
    assert not (gallery / "upgrade").exists()

    plan(gallery, models["new"], pairs=FromGallery(20))
    with pytest.raises(RecipeError, match="until is 2"):
        upgrade.run(gallery, until=2.0)
    for verb in (upgrade.pause, upgrade.rollback, upgrade.finish):
        with pytest.raises(RunError, match="was not begun"):
            verb(gallery)
    upgrade.run(gallery, until=0.0)
    with pytest.raises(RunError, match=r"Another upgrade .* is backfilling"):
        plan(gallery, models["third"])
    (place_of(gallery).upgrade / "plan.json").write_text("{}")
    with pytest.raises(RunError, match="cannot be read"):
        upgrade.run(gallery)


def test_a_plan_for_another_state_is_refused(planned: Path, models: dict[str, Path]) -> None:
    gallery, made = planned, read_plan(place_of(planned))
    store, third = LanceStore(gallery), load_encoder(models["third"])
    store.open_space(third.layout)
    rows = store.get(sorted(rows_of(gallery, made.old.space)))
    store.fill(rows.ids, rows.vectors, space=third.space, origin="native")
    store.serve(third.space)
    with pytest.raises(RunError, match="answers in"):
        upgrade.run(gallery)


def test_an_upgrade_is_paused_from_elsewhere(planned: Path) -> None:
    gallery = planned
    paused: list[str] = []

    def watch(progress: object) -> None:
        paused.append(upgrade.pause(gallery).phase)

    state = upgrade.run(gallery, until=1.0, watch=watch)
    assert (state.ending, state.is_paused, len(paused)) == ("paused", True, 1)
    assert upgrade.status(gallery).is_paused
    assert upgrade.run(gallery, until=1.0).ending == "done"


def test_the_state_can_be_written_down(planned: Path) -> None:
    gallery = planned
    state = upgrade.run(gallery, until=0.0)
    assert replace(state, ending=None) == upgrade.status(gallery)
    json.dumps({"phase": state.phase, "gone": dict(state.gone)})
