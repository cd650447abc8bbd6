"""Recording a teacher: the same bytes however it is done, and training sees what the teacher saw."""

import itertools
import json
import random
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from reinforcing import NUM_CLASSES, PREPROCESS, VARIED, Small, teacher, views, write_pictures

from regraft.augment.compose import Compose
from regraft.data.stream import Order
from regraft.errors import RecipeError, SampleError, TableError
from regraft.tables.table import Table
from regraft.vision import reinforce
from regraft.vision.batches import ImageBatches
from regraft.vision.blocks import ANSWERS, BLOCK_VIEWS, PARAMETERS, Here
from regraft.vision.crops import Flip
from regraft.vision.data import ImageSet
from regraft.vision.recorded import Recorded
from regraft.vision.soft_targets import SoftTargets, sparse_kl
from regraft.vision.tasks import Distil, Imitate
from regraft.vision.teachers import Ensemble, Judge
from regraft.vision.variation import Variation
from regraft.vision.verification import verify

SCRIPT = Path(__file__).parent / "reinforcing.py"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return write_pictures(tmp_path_factory.mktemp("reinforce") / "pictures")


def recorded(out: Path, samples: ImageSet, **settings: object) -> Table:
    given = {"num_draws": 7, "top_k": 3} | settings
    return reinforce.record(out, views(samples), teacher(samples), **given)


@pytest.fixture(scope="module")
def table(samples: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Table:
    return recorded(tmp_path_factory.mktemp("table") / "table", samples)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_the_order_of_the_pictures_does_not_matter(samples: ImageSet, table: Table, tmp_path: Path) -> None:
    shuffled = samples.take(np.random.default_rng(1).permutation(len(samples)).tolist())
    assert contents(recorded(tmp_path / "table", shuffled).folder) == contents(table.folder)


def test_workers_change_nothing(samples: ImageSet, table: Table, tmp_path: Path) -> None:
    assert contents(recorded(tmp_path / "t", samples, run=Here(2)).folder) == contents(table.folder)


def test_a_record_is_what_the_teacher_says_of_that_view(samples: ImageSet, table: Table) -> None:
    made, told = views(samples), teacher(samples)
    column = table.columns[ANSWERS]
    ranks = table.ranks_of(samples.ids)
    apart: list[float] = []
    for index, draw in itertools.product((0, 9, 23), (0, 6)):
        seen = made(np.array([index]), np.array([draw])).pixels
        expected = told(seen).exp()[0].numpy()
        stored = column.decode(table.read(ANSWERS, ranks[[index]], np.array([draw]))).dense()[0]
        best = np.argsort(-expected)[:3]
        np.testing.assert_allclose(stored[best], expected[best], rtol=0.05)
        other = column.decode(table.read(ANSWERS, ranks[[index]], np.array([(draw + 3) % 7]))).dense()[0]
        apart.append(np.abs(stored - other).max())
    assert max(apart) > 0.2  # or the comparison could not fail


def test_batches_show_the_views_that_were_recorded(samples: ImageSet, table: Table) -> None:
    """The teacher, asked about what a batch shows, says what the batch says it said."""
    targets = Recorded(table, samples, share=1.0, seed=1)
    batches = ImageBatches(
        samples, Order(24, 8, seed=2), PREPROCESS, variation=VARIED, targets=targets, view_seed=5
    )
    told = teacher(samples)
    for batch in itertools.islice(batches(0), 6):
        answers = told(PREPROCESS.pixels_of(batch["image"]))
        stored = SoftTargets.of_batch(batch)
        assert sparse_kl(answers, stored) < 2e-3
        assert sparse_kl(answers.roll(1, 0), stored) > 0.05
    assert_resumes(batches)


def assert_resumes(batches: ImageBatches) -> None:
    whole = list(itertools.islice(batches(0), 8))
    for again, batch in zip(itertools.islice(batches(5), 3), whole[5:], strict=True):
        assert all(torch.equal(again[name], batch[name]) for name in batch)


def test_every_view_is_shown_once_before_any_again(samples: ImageSet, table: Table) -> None:
    targets = Recorded(table, samples, share=1.0, seed=1)
    everyone = np.arange(24)
    for cycle in range(2):
        shown = np.stack([targets.draws(everyone, 7 * cycle + place) for place in range(7)])
        assert (np.sort(shown, axis=0) == np.arange(7)[:, None]).all()
    assert len(set(targets.draws(everyone, 0).tolist())) > 3


def test_a_share_of_the_pictures_is_shown_afresh(samples: ImageSet, table: Table) -> None:
    targets = Recorded(table, samples, share=0.7, seed=1)
    shown = np.stack([targets.draws(np.arange(24), epoch) for epoch in range(60)])
    assert abs((shown < 7).mean() - 0.7) < 0.06
    fresh = shown[shown >= 7]
    assert len(set(fresh.tolist())) > 30  # another view every time
    batches = ImageBatches(
        samples, Order(24, 24, seed=2), PREPROCESS, variation=VARIED, targets=targets, view_seed=5
    )
    batch = next(iter(batches(0)))
    is_fresh = torch.from_numpy(targets.draws(Order(24, 24, seed=2).batch(0)[1], 0) >= 7)
    stored = SoftTargets.of_batch(batch)
    assert (stored.rest[is_fresh] == 0).all()
    dense = torch.zeros(24, NUM_CLASSES).scatter_add_(1, stored.ids, stored.probabilities)
    torch.testing.assert_close(dense[is_fresh], batch["label"][is_fresh])
    assert (dense[~is_fresh] - batch["label"][~is_fresh]).abs().amax(1).min() > 1e-3


def test_stored_parameters_are_those_drawn(samples: ImageSet, table: Table, tmp_path: Path) -> None:
    explicit = recorded(tmp_path / "table", samples, explicit=True)
    assert explicit.columns[PARAMETERS].dtype.itemsize == VARIED.dtype.itemsize
    assert contents(explicit.folder)["soft.bin"] == contents(table.folder)["soft.bin"]
    # Another seed draws other views, but what was stored is shown.
    shown = [
        next(
            iter(
                ImageBatches(
                    samples,
                    Order(24, 24, seed=2),
                    PREPROCESS,
                    variation=VARIED,
                    targets=Recorded(which, samples, share=1.0, seed=1),
                    view_seed=seed,
                )(0)
            )
        )["image"]
        for which, seed in ((table, 5), (explicit, 99), (table, 99))
    ]
    assert torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[0], shown[2])


def test_temperature_softens(samples: ImageSet, table: Table) -> None:
    everyone, first = np.arange(24), np.zeros(24, np.int64)
    labels = torch.tensor(samples.labels)
    sharp, soft = (
        SoftTargets.of_batch(dict(Recorded(table, samples, temperature=t, seed=0)(everyone, first, labels)))
        for t in (1.0, 3.0)
    )
    assert torch.equal(sharp.ids, soft.ids)
    assert (soft.probabilities[:, 0] < sharp.probabilities[:, 0]).all()


def test_killed_recordings_go_on(samples: ImageSet, tmp_path: Path) -> None:
    pictures = Path(str(samples.sources[0])).parents[1]
    whole = tmp_path / "whole"
    started_s = time.monotonic()
    subprocess.run([sys.executable, SCRIPT, pictures, whole], check=True)
    lasts_s = time.monotonic() - started_s
    drawn = random.Random(0)
    killed = tmp_path / "killed"
    for _ in range(3):
        process = subprocess.Popen([sys.executable, SCRIPT, pictures, killed])
        time.sleep(lasts_s * drawn.uniform(0.5, 1.0))
        process.kill()
        process.wait()
    subprocess.run([sys.executable, SCRIPT, pictures, killed], check=True)
    assert contents(killed) == contents(whole)


def test_asking_again_finds_the_teacher_or_another(samples: ImageSet, table: Table) -> None:
    found = verify(table, views(samples), teacher(samples), share=1.0)
    assert (found.num_rows, found.share_equal) == (24 * 7, 1.0)
    assert found.excess == 0.0
    assert 0 <= found.mean_kl_of_storing < 0.05
    other = verify(table, views(samples), teacher(samples, seed=1), share=0.01)
    assert other.excess > 0.1
    with pytest.raises(TableError, match="views"):
        verify(table, views(samples, seed=6), teacher(samples))


def test_stored_parameters_are_asked_about_again(samples: ImageSet, tmp_path: Path) -> None:
    """Views of another seed, whose parameters were stored, are those that were judged."""
    explicit = recorded(tmp_path / "explicit", samples, explicit=True)
    manifest = json.loads((explicit.folder / "table.json").read_bytes())
    assert manifest["origin"]["views"]["seed"] == 5
    others = views(samples)
    others.sample = lambda indices, draws: views(samples, seed=99).sample(indices, draws)
    assert verify(explicit, others, teacher(samples), share=1.0).share_equal == 1.0
    plain = recorded(tmp_path / "plain", samples)
    assert verify(plain, others, teacher(samples), share=1.0).share_equal < 0.5


def test_an_ensemble_averages_probabilities(samples: ImageSet) -> None:
    members = [teacher(samples, seed) for seed in range(3)]
    pixels = views(samples)(np.arange(5), np.zeros(5, np.int64)).pixels
    mean = torch.stack([member(pixels).exp() for member in members]).mean(0)
    torch.testing.assert_close(Ensemble(members)(pixels).exp(), mean)
    assert Ensemble(members).fingerprint != Ensemble(members[:2]).fingerprint
    with pytest.raises(RecipeError, match="no teacher"):
        Ensemble([])


def test_answers_reach_the_disk_several_blocks_at_once(
    samples: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which blocks these are does not depend on where a recording was stopped."""
    monkeypatch.setattr(reinforce, "ROWS_TOGETHER", 1200)  # 300 rows are a block here
    sizes = {"num_draws": 300, "top_k": 3}
    whole = recorded(tmp_path / "whole", samples, **sizes)
    journal = [json.loads(line) for line in (whole.folder / "blocks.jsonl").read_bytes().splitlines()]
    assert [line["block"]["num_rows"] for line in journal] == [1200] * 6

    class Stop(Exception):
        pass

    def stopping(num_done: int, num_total: int) -> None:
        if num_done > 2000:
            raise Stop

    with pytest.raises(Stop):
        recorded(tmp_path / "halved", samples, **sizes, watch=stopping)
    assert contents(recorded(tmp_path / "halved", samples, **sizes).folder) == contents(whole.folder)


def test_mixed_views_want_two_classes(samples: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="mixed of two pictures"):
        recorded(tmp_path / "t", samples, top_k=1)


def with_a_bad_one(samples: ImageSet, folder: Path) -> ImageSet:
    """The same pictures elsewhere, one of them an empty file."""
    pictures = folder / "pictures"
    shutil.copytree(Path(str(samples.sources[0])).parents[1], pictures)
    (pictures / "c" / "3.png").write_bytes(b"")
    return replace(samples, sources=tuple(pictures / name for name in samples.ids))


def test_errors_of_workers_arrive_as_they_are(samples: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(SampleError) as found:
        recorded(tmp_path / "table", with_a_bad_one(samples, tmp_path), run=Here(workers=1))
    assert "Traceback" not in str(found.value)
    assert "record into another place" in str(found.value)


def test_other_versions_are_named(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not reinforce.other_versions(table)
    recorded_with = reinforce.versions()
    monkeypatch.setattr(reinforce, "versions", lambda: recorded_with | {"pillow": "0.1"})
    assert reinforce.other_versions(table) == {"pillow": (recorded_with["pillow"], "0.1")}


def test_a_class_that_is_ruled_out_is_no_divergence(samples: ImageSet, tmp_path: Path) -> None:
    def masked(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(x.mean((2, 3)), (0, 1), value=-torch.inf)

    told = Judge(masked, PREPROCESS, "masked", labels=samples.classes)
    made = reinforce.record(tmp_path / "t", views(samples), told, num_draws=3, top_k=3)
    found = verify(made, views(samples), told, share=1.0)
    assert found.share_equal == 1.0
    assert 0 <= found.mean_kl < 0.05


def test_a_teacher_sees_no_more_at_once_than_a_block_has_views(samples: ImageSet, tmp_path: Path) -> None:
    seen: list[int] = []
    whole = teacher(samples)

    def counting(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return whole.classifier(x)

    few = samples.take(range(2))
    told = Judge(counting, PREPROCESS, "counting", labels=samples.classes)
    reinforce.record(tmp_path / "t", views(few), told, num_draws=BLOCK_VIEWS + 9, top_k=2)
    assert seen == [BLOCK_VIEWS, 9] * 2


def test_others_are_refused(samples: ImageSet, table: Table, tmp_path: Path) -> None:
    fewer = samples.take(range(5))
    Recorded(table, fewer, seed=0)  # a part is fine
    stranger = replace(samples, ids=tuple(f"x{name}" for name in samples.ids))
    with pytest.raises(TableError, match="24"):
        Recorded(table, stranger, seed=0)
    with pytest.raises(TableError, match="classes"):
        Recorded(table, replace(samples, classes=("a", "b", "c", "e")), seed=0)
    with pytest.raises(TableError, match="another table"):
        recorded(table.folder, samples, num_draws=8)
    told = teacher(replace(samples, classes=("a", "b", "c", "x")))
    with pytest.raises(RecipeError, match="not known to both"):
        reinforce.record(tmp_path / "t", views(samples), told, num_draws=2, top_k=2)
    with pytest.raises(RecipeError, match="temperature"):
        Recorded(table, samples, temperature=0.0, seed=0)
    with pytest.raises(RecipeError, match="expected at least 1"):
        recorded(tmp_path / "t", samples, num_draws=0)


def test_a_picture_that_turned_bad_stops_a_recording(samples: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="turned bad"):
        recorded(tmp_path / "table", with_a_bad_one(samples, tmp_path))


def test_learning_from_a_table_is_learning_from_its_teacher(samples: ImageSet, table: Table) -> None:
    """Both losses of one network on one batch, but for what storing loses."""
    batches = ImageBatches(
        samples,
        Order(24, 24, seed=2),
        PREPROCESS,
        variation=VARIED,
        targets=Recorded(table, samples, share=1.0, seed=1),
        view_seed=5,
    )
    batch = next(iter(batches(0)))
    model = Small(9)
    asked = Distil(model, list, teacher(samples), PREPROCESS).loss(batch, 0)["distillation"]
    stored = Imitate(model, list).loss(batch, 0)["imitation"]
    torch.testing.assert_close(stored, asked, rtol=0.02, atol=1e-3)
    both = Imitate(model, list, label_weight=0.5, hard=True).loss(batch, 0)
    first = batch["target_ids"].gather(1, batch["target_probabilities"].argmax(1, keepdim=True))[:, 0]
    logits = model(batch["image"])
    torch.testing.assert_close(both["imitation"], 0.5 * torch.nn.functional.cross_entropy(logits, first))
    assert set(both) == {"imitation", "cross_entropy"}
    smooth = Imitate(model, list, label_weight=0.5, label_smoothing=0.1).loss(batch, 0)["cross_entropy"]
    expected = torch.nn.functional.cross_entropy(logits, batch["label"], label_smoothing=0.1)
    torch.testing.assert_close(smooth, 0.5 * expected)
    with pytest.raises(RecipeError, match="label_weight"):
        Imitate(model, list, label_weight=1.5)


def test_views_without_a_crop_are_kept_in_memory(samples: ImageSet, tmp_path: Path) -> None:
    flipped = Variation(steps=Compose((Flip(),)))
    kept = reinforce.record(tmp_path / "a", views(samples, flipped), teacher(samples), num_draws=3, top_k=9)
    column = kept.columns[ANSWERS]
    assert column.k == NUM_CLASSES
    assert column.dtype.itemsize == 3 * NUM_CLASSES + 1
