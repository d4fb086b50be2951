"""Scores against cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from napari_histomil.training.answers import Answers, join
from napari_histomil.training.scores import (
    auroc,
    average_precision,
    bootstrap,
    fit_temperature,
    summarise,
)


def answers(share: list[float], logit: list[float], group: list[str] | None = None) -> Answers:
    names = np.array(group or [str(i) for i in range(len(share))])
    return Answers(names, names, np.array(share, float), np.array(logit, float))


def test_areas_by_hand() -> None:
    truth = np.array([False, True, False, True])
    score = np.array([0.1, 0.2, 0.3, 0.4])
    assert auroc(truth, score) == 0.75  # three of four pairs are in order
    assert average_precision(truth, score) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert math.isnan(auroc(np.array([True, True]), np.array([0.1, 0.2])))
    assert math.isnan(average_precision(np.array([False]), np.array([0.1])))


def test_unmixed_cells_are_those_of_one_side() -> None:
    some = answers([0, 0.05, 0.06, 0.5, 0.95, 1], [0] * 6).unmixed(0.05)
    assert some.share.tolist() == [0, 0.05, 0.95, 1]


def test_the_bootstrap_draws_whole_groups() -> None:
    # Within a group all is in order, between groups nothing is: drawing cells would never give 1.
    run = answers([0, 1, 0, 1], [0, 1, 10, 11], ["a", "a", "b", "b"])
    low, high = bootstrap(auroc, [run], rounds=60)
    assert high == 1.0  # a twice, or b twice
    assert low == 0.75  # a and b
    assert bootstrap(auroc, [run], rounds=60) == (low, high)


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
