"""How well scores put truth before untruth: AUROC and average precision, and their intervals.

Both depend on the order of scores only. They are worked out from counts at each distinct score, so
ties count as they should (half a pair; one threshold), and a bootstrap over groups adds up rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_histomil.review.intervals import draws, interval

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MAX_VALUES = 2**22
"""Numbers of a bootstrap that are worked on at a time, 32 MB."""


def auroc(truth: Bools, score: Floats) -> float:
    """Return the area under the ROC curve; NaN where only one side is there.

    It is the chance that a true one scores higher than an untrue one, half for equal scores
    (Hanley & McNeil, Radiology 143 (1982) 29).
    """
    return float(auroc_of(*_histograms(truth, score))[0])


def average_precision(truth: Bools, score: Floats) -> float:
    """Return the average precision; NaN where only one side is there.

    The sum over thresholds of precision times the recall that is gained, as scikit-learn has it.
    """
    return float(average_precision_of(*_histograms(truth, score))[0])


def auroc_of(positive: Floats, negative: Floats) -> Floats:
    """Return the AUROC of each row of counts [..., scores], scores ascending."""
    below = np.cumsum(negative, axis=-1) - negative
    ordered = (positive * (below + negative / 2)).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        area: Floats = ordered / (positive.sum(axis=-1) * negative.sum(axis=-1))
    return area


def average_precision_of(positive: Floats, negative: Floats) -> Floats:
    """Return the average precision of each row of counts [..., scores], scores ascending."""
    found = np.cumsum(positive[..., ::-1], axis=-1)
    called = found + np.cumsum(negative[..., ::-1], axis=-1)
    total, rest = found[..., -1], negative.sum(axis=-1)
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        average: Floats = (precision * positive[..., ::-1]).sum(axis=-1) / total
    return np.where(rest > 0, average, np.nan)


FIGURES = {"auroc": auroc_of, "average_precision": average_precision_of}
"""Name -> figure of counts."""


def ranked_intervals(
    truth: Bools, scores: Sequence[Floats], group: NDArray[np.str_], *, rounds: int
) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval of each of `FIGURES` over groups.

    Parameters
    ----------
    truth
        bool [n].
    scores
        Of one or more trainings, each [n]; the figure's mean over them counts.
    group
        [n], what may not be torn apart.
    rounds
        Of the bootstrap; 0 gives NaN.
    """
    names, index = np.unique(group, return_inverse=True)
    times = draws(len(names), rounds)
    sums = {name: np.zeros(rounds) for name in FIGURES}
    for score in scores:
        distinct, place = np.unique(score, return_inverse=True)
        table = np.zeros((2, len(names), len(distinct)))
        np.add.at(table, (truth.astype(int), index, place), 1)
        step = max(MAX_VALUES // max(len(distinct), 1), 1)
        for start in range(0, rounds, step):
            some = times[start : start + step]
            negative, positive = some @ table[0], some @ table[1]
            for name, figure in FIGURES.items():
                sums[name][start : start + step] += figure(positive, negative)
    return {name: interval(total / max(len(scores), 1)) for name, total in sums.items()}


def _histograms(truth: Bools, score: Floats) -> tuple[Floats, Floats]:
    """Return how many true and untrue ones each distinct score has: two times [1, scores]."""
    distinct, place = np.unique(score, return_inverse=True)
    if not len(distinct):
        return np.zeros((1, 1)), np.zeros((1, 1))
    positive = np.bincount(place[truth], minlength=len(distinct)).astype(float)
    negative = np.bincount(place[~truth], minlength=len(distinct)).astype(float)
    return positive[None], negative[None]
