"""Teachers, tables and ranges on a GPU: what a CPU says, but for rounding."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reinforcing import PREPROCESS, Small, teacher, views, write_pictures

from regraft.recipes.recipe import Augmentation, Ranges
from regraft.recipes.reinforcement import SETTINGS, settings_of, views_of
from regraft.recipes.small import mobileone_mini
from regraft.recipes.training import grow
from regraft.train.journal import read_events
from regraft.vision.data import ImageSet
from regraft.vision.modelfile import load_model
from regraft.vision.range_policy import RangePolicy
from regraft.vision.reinforce import record
from regraft.vision.tasks import Distil
from regraft.vision.teachers import Ensemble, judge_of
from regraft.vision.verification import verify

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
RECIPE = replace(
    mobileone_mini(),
    batch_size=16,
    augment=Augmentation(pad_px=4, flip=True, rand_augment=9, cutmix=1.0),
    schedule=replace(mobileone_mini().schedule, steps=60, warmup_steps=5, evaluate_every=60, peak_lr=0.05),
)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return write_pictures(tmp_path_factory.mktemp("gpu") / "pictures", 12)


def on_gpu(samples: ImageSet, seed: int = 0):
    return judge_of(Small(seed).cuda(), PREPROCESS, samples.classes)


def test_a_teacher_answers_as_on_the_cpu_also_sent_elsewhere(samples: ImageSet) -> None:
    pixels = torch.randint(0, 256, (20, 3, 16, 16), dtype=torch.uint8)
    there, here = on_gpu(samples), teacher(samples)
    assert there.fingerprint == here.fingerprint
    sent = pickle.loads(pickle.dumps(there))
    assert sent(pixels).device.type == there(pixels).device.type == "cuda"
    torch.testing.assert_close(there(pixels).cpu(), here(pixels), rtol=1e-3, atol=1e-3)
    together = Ensemble([on_gpu(samples, 1), teacher(samples, 2)])
    assert together(pixels).device.type == "cuda"


def test_a_table_of_a_gpu_verifies_there_to_the_bit_and_elsewhere_by_its_answers(
    samples: ImageSet, tmp_path: Path
) -> None:
    made = record(tmp_path / "table", views(samples), on_gpu(samples), num_draws=30, top_k=3)
    assert verify(made, views(samples), on_gpu(samples), share=1.0).share_equal == 1
    elsewhere = verify(made, views(samples), teacher(samples), share=1.0)
    assert elsewhere.same_teacher
    assert elsewhere.excess < 1e-3


def test_students_of_all_kinds_learn(samples: ImageSet, tmp_path: Path) -> None:
    recipe = replace(RECIPE, schedule=replace(RECIPE.schedule, seed=1))
    table = record(
        tmp_path / "table",
        views_of(recipe, samples, seed=0),
        on_gpu(samples),
        num_draws=4,
        top_k=2,
        notes={SETTINGS: settings_of(recipe)},
    )
    long_enough = replace(RECIPE.schedule, steps=150)
    ranged = replace(RECIPE, ranges=Ranges(target_db=20.0), schedule=long_enough)
    grow(recipe, samples, samples, tmp_path / "reinforced", table=table)
    grow(ranged, samples, samples, tmp_path / "ranged")
    for name in ("reinforced", "ranged"):
        losses = [event.loss for event in read_events(tmp_path / name)]
        assert sum(losses[-10:]) < sum(losses[:10])
        assert next(load_model(tmp_path / name / "model.safetensors")[0].parameters()).device.type == "cpu"
    last = read_events(tmp_path / "ranged")[-1].evaluation
    assert last["range_psnr_db"] == pytest.approx(20, abs=1.5)
    assert RangePolicy.load(tmp_path / "ranged" / "policy.json").target_db == 20


def test_distilling_asks_on_the_gpu(samples: ImageSet) -> None:
    student = Small(3).cuda()
    task = Distil(student, list, on_gpu(samples), PREPROCESS)
    batch = {"image": torch.randn(8, 3, 16, 16, device="cuda"), "label": torch.zeros(8, device="cuda")}
    (loss,) = task.loss(batch, 0).values()
    loss.backward()
    assert loss.device.type == "cuda"
    assert all(parameter.grad is not None for parameter in student.parameters())
