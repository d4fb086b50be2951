"""Scores against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histomil.training.answers import join
from napari_histomil.training.cells import Answers
from napari_histomil.training.figures import summarise
from napari_histomil.training.scores import fit_temperature, score


def answers(share: list[float], logit: list[float], group: list[str] | None = None) -> Answers:
    names = np.array(group or [str(i) for i in range(len(share))])
    shares, odds = np.array(share, float), np.array(logit, float)
    return Answers(
        names,
        names,
        np.zeros((len(names), 2), np.int32),
        np.stack([1 - shares, shares], axis=1),
        np.stack([np.zeros_like(odds), odds], axis=1),
    )


def test_unmixed_cells_are_those_of_one_side() -> None:
    some = answers([0, 0.05, 0.06, 0.5, 0.95, 1], [0] * 6).unmixed(0.05)
    assert some.share.tolist() == [0, 0.05, 0.95, 1]


def test_the_bootstrap_draws_whole_groups() -> None:
    # Within a group all is in order, between groups nothing is: drawing cells would never give 1.
    run = answers([0, 1, 0, 1], [0, 1, 10, 11], ["a", "a", "b", "b"])
    found = summarise([run], rounds=60)
    assert found["auroc_95"] == [0.75, 1.0]  # a and b; one of them twice
    assert summarise([run], rounds=60) == found


def test_a_summary_is_the_mean_over_seeds() -> None:
    good = answers([0, 0, 1, 1], [-2, -1, 1, 2])
    poor = answers([0, 0, 1, 1], [-2, 1.5, 1, 2])
    summary = summarise([good, poor], rounds=20)
    assert summary["auroc_each_seed"] == [1.0, 0.75]
    assert summary["auroc"] == 0.875
    assert (summary["cells"], summary["positive"], summary["groups"]) == (4, 2, 4)
    assert join([good, poor]).share.tolist() == [0, 0, 1, 1] * 2


def test_temperature_undoes_overconfidence() -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, 20_000)
    truth = rng.random(20_000) < 1 / (1 + np.exp(-honest))
    run = answers(truth.astype(float).tolist(), (3 * honest).tolist())
    assert fit_temperature(run) == pytest.approx(3, rel=0.05)


def test_kappa_is_of_the_likeliest_class() -> None:
    found = summarise([answers([0, 0, 1, 1, 1], [-1, 1, 1, 1, -1])], rounds=0)
    # agreement 3/5, by chance 2/5 * 2/5 + 3/5 * 3/5
    assert found["kappa"] == pytest.approx((0.6 - 0.52) / 0.48, abs=1e-4)
    assert found["balanced_accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 2, abs=1e-4)
    assert found["kappa_95"] == [None, None]


def test_several_classes_have_an_area_each() -> None:
    names, hot = np.array(list("abcd")), np.eye(3)[[0, 1, 2, 2]]
    logits = np.array([[3.0, 0, 0], [0, 3, 1], [0, 0, 3], [0, 4, 0]])
    run = Answers(names, names, np.zeros((4, 2), np.int32), hot, logits, positive=2)
    found = summarise([run], rounds=0)
    assert found["auroc_each_class"] == [1.0, 0.6667, 0.5]
    said = score([run], rounds=0)["calibration"]
    assert said["answers"] == 4
    assert sum(b["count"] for b in said["curve"]) == 4


def test_calibration_is_that_of_the_positive_class_after_the_temperature() -> None:
    run = answers([0, 1], [-2, 2])
    said = score([run], rounds=0, temperature=2.0)["calibration"]
    assert said["temperature"] == 2.0
    assert said["brier_before"] == pytest.approx(0.0142, abs=1e-4)  # (1 - 1 / (1 + e^-2))²
    assert said["brier"] == pytest.approx(0.0723, abs=1e-4)  # of e^-1
    assert said["cases"] == 2
    assert "2 independent cases" in said["reason"]
