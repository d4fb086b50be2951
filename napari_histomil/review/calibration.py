"""Whether probabilities are what they say: Brier score, calibration error, curve, temperature.

Of a case that is asked for a probability p, the outcome is 1 or 0, or a share between (how much of
a cell is tumour). Sources: Brier, Mon. Weather Rev. 78 (1950) 1; Naeini et al., AAAI 2015 (ECE);
Nixon et al., CVPR-W 2019 (bins of equal mass); Guo et al., ICML 2017 (temperature).

An error over 15 bins says little of few independent cases: bins are then empty or of one slide,
and the error is biased upwards. Below `LEAST_CASES` groups there are the Brier score and the
curve with its intervals, and the reason why not more.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from napari_histomil.review.intervals import draws, interval, per_group

Floats = NDArray[np.float64]

BINS = 15

LEAST_CASES = 100
"""Independent cases (groups: patients, slides, abutting pieces) that an ECE needs."""

CURVE_BINS = 10
"""Bins of the curve where there are too few cases for an ECE."""

TEMPERATURES = 0.25, 8.0
"""Range in which a temperature is looked for."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Cases of like probability."""

    low: float
    high: float
    """It holds low < p <= high; the first bin also its low end."""
    count: int
    groups: int
    mean: float | None
    """Of the probabilities; None where the bin is empty."""
    observed: float | None
    """Mean outcome."""
    interval: tuple[float, float] | None
    """95 % of `observed`, by bootstrap over groups; None where one group makes the bin."""


def brier(probability: Floats, outcome: Floats, weight: Floats | None = None) -> float:
    """Return the mean squared difference of probability and outcome.

    Of [n], p of one class: (p - y)², 0 to 1. Of [n, K], all classes: their sum, 0 to 2, as Brier
    defined it. A row counts as often as its weight says, once by default.
    """
    squares = (probability - outcome) ** 2
    return float(np.average(squares if squares.ndim == 1 else squares.sum(axis=1), weights=weight))


def top_label(probability: Floats, outcome: Floats) -> tuple[Floats, Floats]:
    """Return the probability of the likeliest class [n], and what of it came true [n].

    That is what the calibration error of several classes is defined on (Guo et al.). On a tie the
    first class is the likeliest.
    """
    rows, best = np.arange(len(probability)), probability.argmax(axis=1)
    return probability[rows, best], outcome[rows, best]


def equal_width(bins: int = BINS) -> Floats:
    """Return the edges [bins + 1] of bins of equal width from 0 to 1."""
    return np.linspace(0, 1, bins + 1)


def equal_mass(
    probability: Floats, bins: int = BINS, weight: NDArray[np.int64] | None = None
) -> Floats:
    """Return edges [at most bins + 1] between which equally many cases lie.

    Equal probabilities are never torn apart: where many are equal there are fewer bins.

    Parameters
    ----------
    probability
        [n], of a case each, or of as many as `weight` [n] says.
    bins
        How many, at most.
    weight
        Whole numbers.
    """
    order = np.argsort(probability, kind="stable")
    ranked = probability[order]
    ends = np.arange(1, len(ranked) + 1) if weight is None else np.cumsum(weight[order])
    last = int(ends[-1]) - 1
    # whole numbers: no rounding decides about a case
    below = ends.searchsorted(np.arange(bins + 1) * last // bins, side="right")
    above = ends.searchsorted(-(-np.arange(bins + 1) * last // bins), side="right")
    edges = np.unique((ranked[below] + ranked[above]) / 2)
    return edges if len(edges) > 1 else np.array([edges[0], edges[0]])


def reliability(
    probability: Floats,
    outcome: Floats,
    group: NDArray[np.str_],
    edges: Floats,
    *,
    rounds: int = 0,
    weight: Floats | None = None,
) -> list[Bin]:
    """Return the reliability curve, bin by bin.

    Parameters
    ----------
    probability, outcome
        [n], each 0 to 1.
    group
        [n], what each case belongs to.
    edges
        [bins + 1], as `equal_width` and `equal_mass` give them.
    rounds
        Of the bootstrap over groups; 0 for no intervals.
    weight
        [n], how many cases each row stands for; one by default.
    """
    names, index = np.unique(group, return_inverse=True)
    weight = np.ones(len(probability)) if weight is None else weight
    place = np.searchsorted(edges[1:-1], probability)
    times = draws(len(names), rounds)
    found = []
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        mine = place == number
        cases = weight[mine]
        count = round(float(cases.sum()))
        table = per_group(index[mine], len(names), cases, cases * outcome[mine])
        groups = int((table[:, 0] > 0).sum())
        spread = None
        if rounds and groups > 1:
            drawn = times @ table  # (rounds, 2)
            with np.errstate(invalid="ignore"):
                spread = interval(drawn[:, 1] / drawn[:, 0])
        found.append(
            Bin(
                float(low),
                float(high),
                count,
                groups,
                float(np.average(probability[mine], weights=cases)) if count else None,
                float(np.average(outcome[mine], weights=cases)) if count else None,
                spread,
            )
        )
    return found


def expected_error(bins: list[Bin]) -> float:
    """Return the expected calibration error: |mean p - observed| of bins, weighted by count."""
    total = sum(b.count for b in bins)
    gaps = (b.count * abs(b.mean - b.observed) for b in bins if b.mean is not None
            and b.observed is not None)  # fmt: skip
    return sum(gaps) / total if total else float("nan")


def report(
    probability: Floats, outcome: Floats, group: NDArray[np.str_], *, rounds: int = 1000
) -> dict[str, Any]:
    """Return what is said of the calibration of a model, as JSON takes it.

    Parameters
    ----------
    probability, outcome
        float64 [n] of one class, or [n, K] of all: the curve is then that of the likeliest.
    group
        [n]; groups are the independent cases.
    rounds
        Of the bootstrap over groups.

    Returns
    -------
    dict
        ``cases``, ``answers``, ``brier``, ``curve`` (list of bins); with `LEAST_CASES` or more
        groups ``ece_width``, ``ece_mass`` and ``mass_bins``, else ``reason``.
    """
    cases = len(np.unique(group))
    said: dict[str, Any] = {
        "cases": cases,
        "answers": len(group),
        "brier": brier(probability, outcome),
    }
    if probability.ndim == 2:
        probability, outcome = top_label(probability, outcome)
    enough = cases >= LEAST_CASES
    edges = equal_width(BINS if enough else CURVE_BINS)
    curve = reliability(probability, outcome, group, edges, rounds=rounds)
    if enough:
        mass = reliability(probability, outcome, group, equal_mass(probability))
        said |= {"ece_width": expected_error(curve), "ece_mass": expected_error(mass)}
        said["mass_bins"] = [asdict(b) for b in mass]
    else:
        said["reason"] = (
            f"{cases} independent cases: below {LEAST_CASES} a calibration error over bins would "
            f"say more than is known"
        )
    return said | {"curve": [asdict(b) for b in curve]}


def tempered(logits: Floats, temperature: float | Floats, activation: str) -> Floats:
    """Return the probabilities [n, K] of logits [n, K] divided by a temperature.

    Parameters
    ----------
    logits
        float64 [n, K].
    temperature
        Above 0: one, or one for each row. It moves no row's order of classes, and one temperature
        for all moves no order of two classes' rows either: argmax and AUROC stay.
    activation
        ``softmax`` or ``sigmoid``.
    """
    z = logits / np.reshape(temperature, (-1, 1))
    if activation == "sigmoid":
        chances: Floats = np.exp(-np.logaddexp(0, -z))
        return chances
    exp = np.exp(z - z.max(axis=1, keepdims=True))
    shares: Floats = exp / exp.sum(axis=1, keepdims=True)
    return shares


def cross_entropies(logits: Floats, shares: Floats, activation: str) -> Floats:
    """Return the cross-entropy of each row [n] against its shares [n, K]."""
    if activation == "sigmoid":
        bits: Floats = (np.logaddexp(0, logits) - shares * logits).sum(axis=1)
        return bits
    top = logits.max(axis=1, keepdims=True)
    log = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    entropies: Floats = -(shares * log).sum(axis=1)
    return entropies


def fit_temperature(logits: Floats, shares: Floats, activation: str = "softmax") -> float:
    """Return the temperature that makes the probabilities fit the true shares best.

    The cross-entropy against the shares is minimised; fit it on answers that no weight was fitted
    on.

    Parameters
    ----------
    logits, shares
        float64 [n, K].
    activation
        ``softmax`` or ``sigmoid``.
    """

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(np.mean(cross_entropies(scaled, shares, activation)))

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded")
    return float(np.exp(found.x))
