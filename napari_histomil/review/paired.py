"""Two models on the same cases: how far their scores differ, and whether that may be chance.

The bootstrap draws whole patients, and the same ones for both models. DeLong's and McNemar's tests
count every case as independent: they are refused where a patient has several.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from napari_histomil.errors import RunError
from napari_histomil.review.intervals import ROUNDS, interval
from napari_histomil.review.metrics import Score
from napari_histomil.review.scored import Scored
from napari_histomil.review.scoring import draw, plain_figures, resample
from napari_histomil.review.truth import Bools, Floats


@dataclass(frozen=True, slots=True)
class Difference:
    """A score of two models, the first less the second."""

    first: Score
    second: Score
    value: float | None
    low: float | None = None
    high: float | None = None
    """95 % interval of the difference; None with fewer than two patients."""
    p: float | None = None
    """Share of the rounds on the other side of no difference, both ways; at least 1 / rounds."""


@dataclass(frozen=True, slots=True)
class Paired:
    """What a paired bootstrap gave."""

    figures: Mapping[str, Difference]
    patients: int
    rounds: int
    redrawn: int


@dataclass(frozen=True, slots=True)
class DeLong:
    """Two AUROCs of the same cases."""

    first: float
    second: float
    low: float
    high: float
    """95 % interval of the difference."""
    z: float
    p: float


def paired_bootstrap(
    first: Scored,
    second: Scored,
    *,
    threshold: float = 0.5,
    second_threshold: float | None = None,
    rounds: int = ROUNDS,
) -> Paired:
    """Return the difference of every score of two models on the same cases.

    Parameters
    ----------
    first, second
        The same cases in the same order, with the answers of each model.
    threshold, second_threshold
        Of each model; the same by default.
    rounds
        Of the bootstrap over patients.

    Raises
    ------
    RunError
        If the cases are not the same.
    """
    _same(first, second)
    thresholds = threshold, threshold if second_threshold is None else second_threshold
    drawn = draw(first, rounds)
    plain = [
        plain_figures(c.counts(), t) for c, t in zip((first, second), thresholds, strict=True)
    ]
    spread = [resample(c, t, drawn) for c, t in zip((first, second), thresholds, strict=True)]
    figures = {
        name: _difference(plain[0][name], plain[1][name], spread[0][name] - spread[1][name])
        for name in plain[0]
    }
    return Paired(figures, first.patients, len(drawn.times), drawn.redrawn)


def delong(truth: Bools, first: Floats, second: Floats, patients: NDArray[np.str_]) -> DeLong:
    """Compare two AUROCs of the same independent cases.

    DeLong, DeLong & Clarke-Pearson, Biometrics 44 (1988) 837, by the ranks of Sun & Xu, IEEE
    Signal Process. Lett. 21 (2014) 1389.

    Parameters
    ----------
    truth
        bool [n].
    first, second
        float64 [n], scores of each model.
    patients
        [n]

    Raises
    ------
    RunError
        If a patient has several cases, or there are fewer than two on either side.
    """
    check_independent(patients, "DeLong's test")
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if min(positives, negatives) < 2:
        raise RunError(
            f"DeLong's test needs two cases of each side or more, and there are {positives} "
            f"positive and {negatives} negative ones."
        )
    of_positive, of_negative = [], []
    for score in (first, second):
        every = stats.rankdata(score)
        # share of the other side that each case is rightly above (or below), ties half
        above = (every[truth] - stats.rankdata(score[truth])) / negatives
        below = 1 - (every[~truth] - stats.rankdata(score[~truth])) / positives
        of_positive.append(above)
        of_negative.append(below)
    one, two = (float(values.mean()) for values in of_positive)
    gaps = of_positive[0] - of_positive[1], of_negative[0] - of_negative[1]
    variance = float(gaps[0].var(ddof=1) / positives + gaps[1].var(ddof=1) / negatives)
    difference, deviation = one - two, math.sqrt(variance)
    # the same order on both sides leaves nothing to chance
    z = difference / deviation if deviation else math.copysign(math.inf, difference)
    if not deviation and not difference:
        z = 0.0
    half = 1.959963984540054 * deviation
    p = float(2 * stats.norm.sf(abs(z)))
    return DeLong(one, two, difference - half, difference + half, z, p)


def mcnemar(first: Bools, second: Bools, patients: NDArray[np.str_]) -> float:
    """Return the exact two-sided p of McNemar's test.

    Of the cases that only one model answers rightly, each has them by a fair coin (McNemar,
    Psychometrika 12 (1947) 153; exact: the binomial distribution).

    Parameters
    ----------
    first, second
        bool [n], whether each model's answer is right.
    patients
        [n]

    Raises
    ------
    RunError
        If a patient has several cases.
    """
    check_independent(patients, "McNemar's test")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if not only_first + only_second:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second, 0.5).pvalue)


def wilson(found: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of few independent cases; NaN of none.

    Wilson, J. Am. Stat. Assoc. 22 (1927) 209.
    """
    if not total:
        return math.nan, math.nan
    z2 = 1.959963984540054**2
    middle = (found + z2 / 2) / (total + z2)
    half = math.sqrt(z2 * (found * (total - found) / total + z2 / 4)) / (total + z2)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def check_independent(patients: NDArray[np.str_], test: str) -> None:
    """Refuse cases of which several belong to one patient; raises `RunError`."""
    names, times = np.unique(patients, return_counts=True)
    if len(times) and times.max() > 1:
        raise RunError(
            f"{test} takes every case for independent, and {names[times.argmax()]} has "
            f"{times.max()}: use the bootstrap over patients, or one case of each."
        )


def _same(first: Scored, second: Scored) -> None:
    if not (
        len(first) == len(second)
        and (first.positive == second.positive).all()
        and (first.negative == second.negative).all()
        and (first.patient == second.patient).all()
    ):
        raise RunError(
            "The two models were not scored on the same cases: compare runs over the same tiles."
        )


def _difference(first: Score, second: Score, rounds: Floats) -> Difference:
    if first.value is None or second.value is None:
        return Difference(first, second, None)
    value = first.value - second.value
    finite = rounds[np.isfinite(rounds)]
    if not len(finite):
        return Difference(first, second, value)
    low, high = interval(finite)
    tail = min((finite <= 0).mean(), (finite >= 0).mean())
    p = min(max(2 * float(tail), 1 / len(finite)), 1.0)
    return Difference(first, second, value, low, high, p)
