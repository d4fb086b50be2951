from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from napari_histomil.manifest import ClassSpec
from napari_histomil.training.mil.config import MilConfig, read_mil_config
from napari_histomil.training.mil.scores import BagAnswers, area, join, score, temperature_of
from napari_histomil.training.mil.table import Case


@pytest.fixture
def config(toy: Path) -> MilConfig:
    return read_mil_config(toy / "train.toml")


def answers_of(truth: np.ndarray, logits: np.ndarray, patients: int) -> BagAnswers:
    cases = [Case(str(n), int(t), f"p{n % patients}") for n, t in enumerate(truth)]
    return BagAnswers(tuple(cases), logits, np.ones(len(truth)), "softmax")


def drawn(classes: int, n: int = 60, noise: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.integers(classes, size=n)
    return truth, np.eye(classes)[truth] + rng.normal(0, noise, (n, classes))


def test_figures_are_those_of_scikit_learn(config: MilConfig) -> None:
    truth, logits = drawn(2)
    answers = answers_of(truth, logits, 20)
    found = score(config, [answers], rounds=200)
    p = answers.probabilities
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(truth, p[:, 1]), abs=1e-4)
    assert found["kappa"]["value"] == pytest.approx(
        cohen_kappa_score(truth, p.argmax(1)), abs=1e-4
    )
    assert found["accuracy"]["value"] == pytest.approx((truth == p.argmax(1)).mean(), abs=1e-4)
    low, high = found["auroc"]["interval"]
    assert low < found["auroc"]["value"] < high
    assert (found["bags"], found["patients"]) == (60, 20)


def test_grades_are_weighted_by_their_distance(config: MilConfig) -> None:
    grades = tuple(ClassSpec(name, (0, 0, 0)) for name in "abc")
    config = replace(config, classes=grades, positive_class="c")
    config = replace(config, validation=replace(config.validation, ordered=True))
    truth, logits = drawn(3)
    found = score(config, [answers_of(truth, logits, 60)], rounds=50)
    assert found["kappa"]["value"] == pytest.approx(
        cohen_kappa_score(truth, logits.argmax(1), weights="quadratic"), abs=1e-4
    )
    p = answers_of(truth, logits, 60).probabilities
    assert found["auroc"]["value"] == pytest.approx(
        roc_auc_score(truth, p, multi_class="ovr"), abs=1e-4
    )


def test_intervals_are_over_patients_not_bags(config: MilConfig) -> None:
    truth, logits = drawn(2, 40)
    each = score(config, [answers_of(truth, logits, 40)], rounds=500)["accuracy"]["interval"]
    repeated = answers_of(np.tile(truth, 4), np.tile(logits, (4, 1)), 40)
    again = score(config, [repeated], rounds=500)["accuracy"]["interval"]
    assert again == pytest.approx(each, abs=1e-9)


def test_several_runs_have_a_spread(config: MilConfig) -> None:
    truth, logits = drawn(2)
    worse = drawn(2, noise=3)[1]
    runs = [answers_of(truth, x, 20) for x in (logits, worse)]
    found = score(config, runs, rounds=50)
    areas = [area(truth, run.probabilities) for run in runs]
    assert found["auroc"]["value"] == pytest.approx(np.mean(areas), abs=1e-4)
    assert found["auroc"]["spread"] == pytest.approx(np.std(areas, ddof=1), abs=1e-4)


def test_a_temperature_takes_back_what_is_too_sure() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (4000, 2))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (rng.random(4000) < p[:, 1]).astype(int)
    sure = answers_of(truth, 3 * logits, 4000)
    assert temperature_of(sure) == pytest.approx(3, rel=0.1)
    assert np.isnan(area(np.zeros(3, int), logits[:3]))
    both = join([sure, replace(sure, temperature=np.full(4000, 3.0))])
    np.testing.assert_allclose(both.probabilities[4000:], p)
