"""What is read off a curve, worked by hand."""

import json

import numpy as np
import pytest

from regraft.errors import RecipeError, ShapeError
from regraft.retrieval.curve import (
    auc,
    auc_trapezoid,
    backfilling_curve,
    beta95,
    recommended_stop,
    worst_dip,
)
from regraft.retrieval.metrics import MAP_KEY
from regraft.retrieval.relevance import Relevance

SHARES = np.array([0.0, 0.25, 0.5, 0.75, 1.0])


def test_areas() -> None:
    values = np.array([0.0, 0.4, 0.4, 0.4, 0.8])
    assert auc(values) == pytest.approx(2.0 / 5)
    assert auc_trapezoid(SHARES, values) == pytest.approx((0.2 + 0.4 + 0.4 + 0.6) / 4)
    assert auc_trapezoid(SHARES[:2], values[:2]) == pytest.approx(0.2)
    with pytest.raises(RecipeError, match="from share 0 to 0"):
        auc_trapezoid(SHARES[:1], values[:1])


def test_beta95() -> None:
    values = np.array([0.3, 0.4, 0.57, 0.58, 0.6])
    assert beta95(SHARES, values, old=0.2) == 0.75  # 0.58 is 95 % of the way from 0.2 to 0.6
    assert beta95(SHARES, values, old=0.0) == 0.5
    assert beta95(SHARES, values, old=0.6) is None


def test_worst_dip() -> None:
    values = np.array([0.3, 0.28, 0.5, 0.55, 0.6])
    assert worst_dip(values, old=0.2) == pytest.approx(-0.02)
    assert worst_dip(values, old=0.4) == pytest.approx(-0.12)
    assert worst_dip(values[2:], old=0.2) == 0


def test_the_stop_looks_at_all_that_follows() -> None:
    flat_then_rising = np.array([0.5, 0.5, 0.5, 0.6, 0.6])
    assert recommended_stop(SHARES, flat_then_rising) == 0.75
    peaked = np.array([0.5, 0.55, 0.62, 0.61, 0.6])
    assert recommended_stop(SHARES, peaked) == 0.5
    assert recommended_stop(SHARES, peaked, tolerance=0.2) == 0
    with pytest.raises(ShapeError, match="5 shares and 2 values"):
        recommended_stop(SHARES, peaked[:2])


def test_a_curve_is_fastfills() -> None:
    """22 points of floor(i n / 21) native rows, and the area is their plain mean."""
    draw = np.random.default_rng(0)
    native = draw.standard_normal((50, 8)).astype(np.float32)
    transformed = native + draw.standard_normal((50, 8)).astype(np.float32)
    ids = [f"item-{row}" for row in range(50)]
    labels = draw.integers(0, 5, 50)
    relevance = Relevance.by_labels(ids, ids, labels, labels)
    curve = backfilling_curve(native, transformed, native, np.arange(50), relevance)
    assert curve.num_native.tolist() == [i * 50 // 21 for i in range(22)]
    np.testing.assert_allclose(curve.shares, np.arange(22) / 21)
    assert curve.auc == pytest.approx(curve.mean_average_precision.sum() / 22)
    assert curve.auc == pytest.approx(curve.average_precision_auc.mean())
    assert curve.cmc(1)[-1] == curve.evaluations[-1].cmc(1)
    data = json.loads(json.dumps(curve.to_json()))
    assert data["auc_" + MAP_KEY] == curve.auc
    assert [point["num_native"] for point in data["points"]] == curve.num_native.tolist()
    chosen = backfilling_curve(native, transformed, native, np.arange(50), relevance, stops=[0, 5, 50])
    assert chosen.shares.tolist() == [0, 0.1, 1]
