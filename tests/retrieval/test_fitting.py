"""The ladder: which rungs apply, what they are worth, and which is chosen."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from space_pairs import NUM_CLASSES, made_pairs

from regraft.errors import RecipeError, ShapeError
from regraft.retrieval.fitting import Candidate, Ladder, choose, fit_ladder
from regraft.retrieval.head import Head
from regraft.retrieval.linear import least_squares
from regraft.retrieval.methods import Lesson, by_class, fct
from regraft.retrieval.objectives import SameClass
from regraft.retrieval.pairs import Pairs
from regraft.retrieval.training import PUBLISHED, Training
from regraft.retrieval.transform import Transformation

SHORT = Training(width=16, epochs=1, min_steps=40, batch_size=64)
TRAINED = {"near_orthogonal", "residual_mlp", "fct", "head_free", "label_free", "fastfill", "by_class"}


def head_of(pairs: Pairs) -> Head:
    assert pairs.labels is not None
    weight, bias = least_squares(pairs.new, 5 * np.eye(NUM_CLASSES)[pairs.labels], seed=0)
    return Head(torch.from_numpy(weight.T.copy()), torch.from_numpy(bias))


@pytest.fixture(scope="module")
def ladder() -> Ladder:
    pairs = made_pairs(400, side=2)
    return fit_ladder(pairs, head=head_of(pairs), training=SHORT)


def test_every_rung_applies_where_everything_is_known(ladder: Ladder):
    assert {one.name for one in ladder.candidates} == TRAINED | {"procrustes", "ridge"}
    for one in ladder.candidates:
        assert one.why_not is None
        assert one.transformation is not None
        assert one.curve is not None
        found = one.transformation.transform(*_inputs(one, ladder.judge.pairs))
        assert found.log_variance is not None
        assert one.quality["start"] == pytest.approx(one.curve.evaluations[0].mean_average_precision)
        assert one.quality["mean"] == pytest.approx(one.curve.auc)


def test_curves_end_where_everything_is_new(ladder: Ladder):
    assert ladder.judge.measure == "mean_average_precision"
    for one in ladder.candidates:
        assert one.curve is not None
        assert one.curve.evaluations[-1].mean_average_precision == pytest.approx(
            ladder.after.mean_average_precision
        )


def test_judged_pairs_were_not_learned_from(ladder: Ladder):
    pairs = made_pairs(400, side=2)
    again = fit_ladder(pairs, training=dataclasses.replace(SHORT, min_steps=1), seed=0)
    assert again.judge.pairs.ids == ladder.judge.pairs.ids
    assert len(again.judge.pairs) == 60


def _inputs(one: Candidate, pairs: Pairs) -> tuple[np.ndarray, np.ndarray | None]:
    assert one.transformation is not None
    return pairs.old, pairs.side if one.transformation.side_dimension else None


def test_without_labels_imitation_is_judged():
    pairs = dataclasses.replace(made_pairs(400), labels=None)
    ladder = fit_ladder(pairs, training=SHORT)
    assert ladder.judge.measure == "agreement@10"
    reasons = {one.name: one.why_not for one in ladder.candidates if one.why_not}
    assert (
        reasons["fastfill"]
        == reasons["label_free"]
        == "the new model's classifier, or how long its inputs are, is not known"
    )
    assert reasons["by_class"] == "the pairs have no labels"
    assert set(reasons) == {"fastfill", "label_free", "by_class"}
    for one in ladder.candidates:
        if one.curve is not None:
            assert ladder.judge.quality(one.curve.evaluations[-1]) == pytest.approx(1)
            assert 0 < one.quality["start"] < 1


def test_few_pairs_are_left_to_closed_forms():
    ladder = fit_ladder(made_pairs(30))
    fitted = {one.name for one in ladder.candidates if one.transformation is not None}
    assert fitted == {"procrustes", "ridge"}
    why = next(one.why_not for one in ladder.candidates if one.name == "fct")
    assert why == "21 pairs to fit on are fewer than 4 a dimension, which are 24"


def test_a_head_of_other_classes_is_not_asked_about_labels():
    pairs = made_pairs(400)
    smaller = Head(torch.randn(2, 5))
    ladder = fit_ladder(pairs, head=smaller, training=dataclasses.replace(SHORT, min_steps=1))
    reasons = {one.name: one.why_not for one in ladder.candidates if one.why_not}
    assert reasons == {"fastfill": "label 3 is none of the 2 classes of the new model's classifier"}


def test_a_head_for_other_vectors_is_refused():
    with pytest.raises(ShapeError, match="The head reads 7 numbers, but the new vectors have 5"):
        fit_ladder(made_pairs(400), head=Head(torch.randn(4, 7)))


def test_rungs_are_announced_before_they_are_fitted():
    announced = list[str]()
    ladder = fit_ladder(made_pairs(30), began=announced.append)
    assert announced == [one.name for one in ladder.candidates if one.transformation is not None]


def test_the_best_is_chosen_unless_a_simpler_one_is_as_good(ladder: Ladder):
    fitted = [one for one in ladder.candidates if one.transformation is not None]
    ranked = [dataclasses.replace(one, quality={"mean": 0.5, "start": 0.4}) for one in fitted[:3]]
    best, why = choose([ranked[0], ranked[1], dataclasses.replace(ranked[2], quality={"mean": 0.6})])
    assert best.name == ranked[2].name
    assert why == f"{best.name} is the best of 3 on held-out pairs: 60.0 on average over the upgrade."
    simpler, why = choose([ranked[0], dataclasses.replace(ranked[1], quality={"mean": 0.502})])
    assert simpler.name == ranked[0].name
    assert f"is simpler than {ranked[1].name}, which is better by only 0.2" in why


def test_an_interrupted_fit_goes_on_where_it_was(tmp_path: Path):
    pairs, held_out = made_pairs(200).split(0.2, 0)
    lesson = Lesson(pairs=pairs, held_out=held_out, training=SHORT, folder=tmp_path)
    first = fct(lesson)
    events = (tmp_path / "fct" / "events.jsonl").read_text()
    again = fct(lesson)
    assert (tmp_path / "fct" / "events.jsonl").read_text() == events, "a finished run is not run again"
    fresh = fct(dataclasses.replace(lesson, folder=None))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
        assert torch.equal(tensor, fresh.state_dict()[name])


def test_learning_by_class_turns_towards_the_class():
    pairs, held_out = made_pairs(300).split(0.3, 0)
    longer = dataclasses.replace(SHORT, min_steps=150, peak_lr=5e-3)
    lesson = Lesson(pairs=pairs, held_out=held_out, training=longer)
    errors = [_class_error(model, held_out) for model in (by_class(lesson), fct(lesson))]
    assert errors[0] < errors[1]


def _class_error(model: Transformation, pairs: Pairs) -> float:
    batch = {"new": torch.from_numpy(pairs.new), "label": torch.from_numpy(pairs.labels)}
    return float(SameClass()(torch.from_numpy(model.transform(pairs.old).vectors), batch).mean())


def test_numbers_of_a_training_are_checked():
    with pytest.raises(RecipeError, match="epochs is 0"):
        Training(epochs=0)
    assert PUBLISHED.steps(51_200) == 80 * 50
    assert Training().order(10, 0).batch_size == 2
