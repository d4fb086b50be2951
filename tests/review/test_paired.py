"""Paired tests against brute force, and Wilson's interval against Newcombe's table."""

from __future__ import annotations

import math

import numpy as np
import pytest

from napari_histomil.errors import RunError
from napari_histomil.review.paired import delong, mcnemar, paired_bootstrap, wilson
from napari_histomil.review.ranking import auroc
from napari_histomil.review.scored import Scored


def two_models(count=60, seed=1, decimals=1):
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.4
    common = rng.normal(truth, 1)
    return (
        truth,
        np.round(common + rng.normal(0, 0.4, count), decimals),
        np.round(0.5 * common + rng.normal(0, 1, count), decimals),
        np.arange(count).astype(str),
    )


def brute(truth, first, second):
    """DeLong's formulas pair by pair: the areas, and the variance of their difference."""
    areas, v10, v01 = [], [], []
    for score in (first, second):
        one, two = score[truth], score[~truth]
        psi = np.array([[1.0 if x > y else 0.5 if x == y else 0.0 for y in two] for x in one])
        areas.append(psi.mean())
        v10.append(psi.mean(axis=1))
        v01.append(psi.mean(axis=0))
    s = np.cov(v10) / truth.sum() + np.cov(v01) / (~truth).sum()
    return areas, s[0, 0] + s[1, 1] - 2 * s[0, 1]


@pytest.mark.parametrize("decimals", [1, 8])
def test_delong_is_that_of_all_pairs(decimals: int) -> None:
    truth, first, second, patients = two_models(decimals=decimals)
    found = delong(truth, first, second, patients)
    areas, variance = brute(truth, first, second)
    assert (found.first, found.second) == pytest.approx(areas)
    assert found.first == pytest.approx(auroc(truth, first))
    z = (areas[0] - areas[1]) / math.sqrt(variance)
    assert found.z == pytest.approx(z)
    assert found.p == pytest.approx(math.erfc(abs(z) / math.sqrt(2)))
    half = 1.96 * math.sqrt(variance)
    assert found.high - found.low == pytest.approx(2 * half, rel=1e-3)


def test_the_same_model_twice_does_not_differ() -> None:
    truth, first, _, patients = two_models()
    found = delong(truth, first, first, patients)
    assert (found.z, found.p) == (0, 1)
    assert mcnemar(first > 0, first > 0, patients) == 1


def test_mcnemar_is_a_fair_coin() -> None:
    first = np.array([True] * 20 + [True] * 9 + [False] * 2 + [False] * 4)
    second = np.array([True] * 20 + [False] * 9 + [True] * 2 + [False] * 4)
    tail = sum(math.comb(11, k) for k in range(3)) / 2**11
    assert mcnemar(first, second, np.arange(35).astype(str)) == pytest.approx(2 * tail)


def test_cases_of_one_patient_are_not_independent() -> None:
    truth, first, second, patients = two_models()
    patients[3] = patients[7]
    for test in (
        lambda: delong(truth, first, second, patients),
        lambda: mcnemar(first > 0, second > 0, patients),
    ):
        with pytest.raises(RunError, match="7 has 2: use the bootstrap over patients"):
            test()
    with pytest.raises(RunError, match="two cases of each side"):
        delong(truth[:1], first[:1], second[:1], patients[:1])


@pytest.mark.parametrize(
    ("found", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611),
     (1, 29, 0.0061, 0.1718)],
)  # fmt: skip
def test_wilson_is_that_of_newcombe(found: int, total: int, low: float, high: float) -> None:
    """Table I of Newcombe, Stat. Med. 17 (1998) 857, method 3."""
    assert wilson(found, total) == pytest.approx((low, high), abs=5e-5)
    assert math.isnan(wilson(0, 0)[0])


def test_a_paired_bootstrap_draws_the_same_patients_for_both() -> None:
    truth, first, second, _ = two_models(200, decimals=2)
    patients = (np.arange(200) // 10).astype(str)
    one = Scored("tile", first, truth.astype(float), 1.0 - truth, patients)
    found = paired_bootstrap(one, one.with_scores(second), threshold=0.5, rounds=300)
    better = found.figures["auroc"]
    assert better.value == pytest.approx(auroc(truth, first) - auroc(truth, second))
    assert better.low is not None
    assert better.high is not None
    assert better.p is not None
    assert 0 < better.low < better.value < better.high
    assert better.p < 0.05
    assert found.patients == 20
    same = paired_bootstrap(one, one, rounds=100).figures["f1"]
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    with pytest.raises(RunError, match="not scored on the same cases"):
        paired_bootstrap(one, Scored("tile", first[:3], one.positive[:3], one.negative[:3],
                                     patients[:3]))  # fmt: skip
