"""Areas by hand, against scikit-learn, and their intervals against drawing by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from napari_histomil.review.intervals import draws, interval
from napari_histomil.review.ranking import auroc, average_precision, ranked_intervals


def test_areas_by_hand() -> None:
    truth = np.array([False, True, False, True])
    score = np.array([0.1, 0.2, 0.3, 0.4])
    assert auroc(truth, score) == 0.75  # three of four pairs are in order
    assert average_precision(truth, score) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert auroc(truth, np.zeros(4)) == 0.5
    assert math.isnan(auroc(np.array([True, True]), np.array([0.1, 0.2])))
    assert math.isnan(average_precision(np.array([False]), np.array([0.1])))
    assert math.isnan(auroc(np.zeros(0, bool), np.zeros(0)))


@pytest.mark.parametrize("decimals", [1, 8])
def test_areas_are_those_of_scikit_learn(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    truth = rng.random(400) < 0.3
    score = np.round(rng.normal(truth * 0.8, 1), decimals)  # with few decimals many are equal
    assert auroc(truth, score) == pytest.approx(sk.roc_auc_score(truth, score))
    assert average_precision(truth, score) == pytest.approx(
        sk.average_precision_score(truth, score)
    )


def test_an_interval_is_that_of_drawing_groups_one_by_one() -> None:
    rng = np.random.default_rng(3)
    group = rng.integers(6, size=120).astype(str)
    truth = rng.random(120) < 0.5
    runs = [rng.normal(truth, 1), np.round(rng.normal(truth, 2), 1)]
    names, index = np.unique(group, return_inverse=True)
    values = []
    for times in draws(len(names), 40):
        rows = np.concatenate(
            [np.flatnonzero(index == g) for g in range(6) for _ in range(int(times[g]))]
        )
        values.append(np.mean([auroc(truth[rows], run[rows]) for run in runs]))
    found = ranked_intervals(truth, runs, group, rounds=40)["auroc"]
    assert found == pytest.approx(interval(np.array(values)))


def test_draws_repeat_and_add_up() -> None:
    times = draws(7, 20)
    np.testing.assert_array_equal(times, draws(7, 20))
    assert (times.sum(axis=1) == 7).all()
    assert (draws(7, 20, seed=1) != times).any()


def test_no_round_gives_no_interval() -> None:
    assert all(map(math.isnan, interval(np.array([np.nan]))))
    none = ranked_intervals(np.array([True]), [np.zeros(1)], np.array(["a"]), rounds=20)
    assert all(map(math.isnan, none["auroc"]))
