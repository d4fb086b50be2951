"""Calibration against values worked out by hand and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from napari_histomil.review.calibration import (
    Bin,
    brier,
    cross_entropies,
    equal_mass,
    equal_width,
    expected_error,
    fit_temperature,
    reliability,
    report,
    tempered,
    top_label,
)
from napari_histomil.review.ranking import auroc

P = np.array([0.1, 0.2, 0.4, 0.6, 0.9, 0.9])
Y = np.array([0.0, 0, 1, 0, 1, 1])
ALONE = np.array(list("abcdef"))


def drawn(n=4002, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.beta(0.7, 0.9, n)
    return p, (rng.random(n) < p**1.5).astype(float), np.arange(n).astype(str)


def test_brier_by_hand() -> None:
    assert brier(P, Y) == pytest.approx((0.01 + 0.04 + 0.36 + 0.36 + 0.01 + 0.01) / 6)
    three = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    truth = np.array([[1.0, 0, 0], [0, 1, 0]])
    assert brier(three, truth) == pytest.approx((0.09 + 0.04 + 0.01 + 0.01 + 0.49 + 0.36) / 2)


def test_error_by_hand() -> None:
    bins = reliability(P, Y, ALONE, equal_width(2))
    assert [b.count for b in bins] == [3, 3]
    assert [b.mean for b in bins] == pytest.approx([0.7 / 3, 0.8])
    assert [b.observed for b in bins] == pytest.approx([1 / 3, 2 / 3])
    assert expected_error(bins) == pytest.approx(0.5 * 0.1 + 0.5 * (0.8 - 2 / 3))


def test_a_bin_holds_its_upper_edge_and_the_first_both() -> None:
    p = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    bins = reliability(p, p, np.array(list("abcde")), equal_width(4))
    assert [b.count for b in bins] == [2, 1, 1, 1]


def test_bins_of_equal_mass_never_part_equals() -> None:
    p = np.array([0.1] * 6 + [0.5, 0.7, 0.9])
    bins = reliability(p, p, np.arange(9).astype(str), equal_mass(p, 3))
    assert [b.count for b in bins] == [6, 3]
    flat = np.full(5, 0.3)
    (only,) = reliability(flat, np.ones(5), np.arange(5).astype(str), equal_mass(flat))
    assert (only.count, only.observed) == (5, 1.0)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_the_curve_is_that_of_scikit_learn(strategy: str) -> None:
    theirs = pytest.importorskip("sklearn.calibration")
    p, y, alone = drawn()
    edges = equal_width(15) if strategy == "uniform" else equal_mass(p, 15)
    bins = [b for b in reliability(p, y, alone, edges) if b.count]
    observed, mean = theirs.calibration_curve(y, p, n_bins=15, strategy=strategy)
    np.testing.assert_allclose([b.observed for b in bins], observed)
    np.testing.assert_allclose([b.mean for b in bins], mean)
    metrics = pytest.importorskip("sklearn.metrics")
    assert brier(p, y) == pytest.approx(metrics.brier_score_loss(y, p))


def test_few_cases_have_a_curve_and_no_error() -> None:
    p, y, _ = drawn(600)
    few = report(p, y, (np.arange(600) % 99).astype(str), rounds=50)
    assert few["cases"] == 99
    assert "ece_width" not in few
    assert "99 independent cases" in few["reason"]
    assert len(few["curve"]) == 10
    assert all(b["interval"][0] <= b["observed"] <= b["interval"][1] for b in few["curve"])
    many = report(p, y, (np.arange(600) % 100).astype(str), rounds=50)
    assert "reason" not in many
    assert sum(b["count"] for b in many["curve"]) == sum(b["count"] for b in many["mass_bins"])
    assert many["brier"] == few["brier"] == pytest.approx(brier(p, y))
    assert many["ece_mass"] == pytest.approx(
        expected_error(reliability(p, y, np.arange(600).astype(str), equal_mass(p)))
    )


def test_intervals_draw_whole_groups() -> None:
    # two groups that disagree: whatever is drawn is 0, a half or 1
    p, group = np.full(40, 0.5), np.repeat(["a", "b"], 20)
    (found,) = reliability(p, np.repeat([0.0, 1], 20), group, np.array([0.0, 1]), rounds=200)
    assert found.interval == (0.0, 1.0)
    (lonely,) = reliability(p, p, np.repeat(["a"], 40), np.array([0.0, 1]), rounds=20)
    assert lonely.interval is None


def test_an_empty_bin_says_so() -> None:
    empty, full = reliability(np.array([0.9]), np.ones(1), np.array(["a"]), equal_width(2))
    assert empty == Bin(0.0, 0.5, 0, 0, None, None, None)
    assert full.count == 1


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_temperature_is_found_and_moves_no_order(activation: str) -> None:
    rng = np.random.default_rng(1)
    honest = rng.normal(0, 2, (20_000, 3))
    p = tempered(honest, 1.0, activation)
    if activation == "softmax":
        shares = np.eye(3)[(p.cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)]
    else:
        shares = (rng.random(p.shape) < p).astype(float)
    loud = 3 * honest
    found = fit_temperature(loud, shares, activation)
    assert found == pytest.approx(3, rel=0.05)
    before, after = tempered(loud, 1.0, activation), tempered(loud, found, activation)
    np.testing.assert_array_equal(before.argmax(axis=1), after.argmax(axis=1))
    assert cross_entropies(loud / found, shares, activation).mean() < (
        cross_entropies(loud, shares, activation).mean()
    )
    ours = report(after, shares, np.arange(20_000).astype(str), rounds=0)
    theirs = report(before, shares, np.arange(20_000).astype(str), rounds=0)
    assert ours["ece_width"] < theirs["ece_width"] / 3


def test_temperature_leaves_the_area_of_two_classes() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 3, (500, 2))
    truth = rng.random(500) < 0.4
    assert auroc(truth, tempered(logits, 1.0, "softmax")[:, 1]) == pytest.approx(
        auroc(truth, tempered(logits, 2.7, "softmax")[:, 1]), abs=1e-12
    )


def test_the_likeliest_class_is_what_several_classes_are_judged_by() -> None:
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    confidence, right = top_label(p, np.array([[0.0, 1, 0], [0, 0, 1]]))
    assert confidence.tolist() == [0.5, 0.8]
    assert right.tolist() == [0, 1]


def test_entropies_by_hand() -> None:
    assert cross_entropies(np.zeros((1, 4)), np.eye(4)[:1], "softmax")[0] == pytest.approx(
        math.log(4)
    )
    assert cross_entropies(np.array([[2.0]]), np.ones((1, 1)), "sigmoid")[0] == pytest.approx(
        math.log(1 + math.exp(-2))
    )
