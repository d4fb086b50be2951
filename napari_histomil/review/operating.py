"""What a threshold does: counts at all of them at once, and thresholds with a name.

Counted once, a slider is a lookup: `Counts.at` is a binary search, whatever the number of tiles.
A case is called positive where its score is the threshold or more.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_histomil.review.metrics import Confusion

Floats = NDArray[np.float64]

SENSITIVITIES = (0.95, 0.99)
"""Fixed sensitivities that are shown."""

SIDES = ("positive", "negative")


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """How many cases are called positive from each threshold on."""

    thresholds: Floats = field(repr=False)
    """float64 [T], the distinct scores, ascending."""
    true: Floats = field(repr=False)
    """float64 [T + 1], positive ones with that score or more; the last is that of no case."""
    false: Floats = field(repr=False)
    """float64 [T + 1], negative ones with that score or more."""

    @property
    def positives(self) -> float:
        """All positive cases."""
        return self._all[0]

    @property
    def negatives(self) -> float:
        """All negative cases."""
        return self._all[1]

    @property
    def _all(self) -> tuple[float, float]:
        return float(self.true[0]), float(self.false[0])

    def at(self, threshold: float) -> tuple[float, float, float, float]:
        """Return true positives, false positives, false negatives, true negatives."""
        index = int(np.searchsorted(self.thresholds, threshold, side="left"))
        tp, fp = float(self.true[index]), float(self.false[index])
        return tp, fp, self.positives - tp, self.negatives - fp

    def confusion(self, threshold: float) -> Confusion:
        """Return the 2 x 2 matrix, the positive class first."""
        tp, fp, fn, tn = self.at(threshold)
        return two_by_two(tp, fp, fn, tn)

    @property
    def roc(self) -> tuple[Floats, Floats]:
        """(1 - specificity, sensitivity), float64 [T + 1] each, from (0, 0) to (1, 1)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.false[::-1] / self.negatives, self.true[::-1] / self.positives

    @property
    def precision_recall(self) -> tuple[Floats, Floats]:
        """(recall, precision), float64 [T] each, from the highest threshold to the lowest."""
        true, false = self.true[:-1][::-1], self.false[:-1][::-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            return true / self.positives, true / (true + false)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold with its name."""

    name: str
    how: str
    """What it was chosen by, in words."""
    threshold: float
    sensitivity: float
    specificity: float


def count_all(score: Floats, positive: Floats, negative: Floats) -> Counts:
    """Count positive and negative cases at every threshold.

    Parameters
    ----------
    score
        [n]; cases of -inf are called positive by no threshold that is a number.
    positive, negative
        [n], how many positive and negative ones have this score: 0 and 1, or pixels.
    """
    distinct, place = np.unique(score, return_inverse=True)
    true = np.bincount(place, positive, minlength=len(distinct))[::-1].cumsum()[::-1]
    false = np.bincount(place, negative, minlength=len(distinct))[::-1].cumsum()[::-1]
    return Counts(distinct, np.append(true, 0.0), np.append(false, 0.0))


def two_by_two(tp: float, fp: float, fn: float, tn: float) -> Confusion:
    """Return counts as a matrix of truth and answer, the positive class first."""
    counts = np.rint([[tp, fn], [fp, tn]]).astype(np.int64)
    return Confusion(counts, SIDES, ("the truth", "the answer"))


def operating_points(counts: Counts) -> tuple[OperatingPoint, ...]:
    """Return the named thresholds of some counts; none where one side is missing.

    ``Youden``
        Where sensitivity + specificity is highest (Youden, Cancer 3 (1950) 32); of several the
        highest threshold.
    ``sensitivity 95 %``
        The highest threshold at which at least so many of the positive are found.

    Chosen on the cases that they are shown with they flatter: choose on some, apply to others.
    """
    finite = np.flatnonzero(np.isfinite(counts.thresholds))
    if not counts.positives or not counts.negatives or not len(finite):
        return ()
    sensitivity = counts.true[finite] / counts.positives
    specificity = 1 - counts.false[finite] / counts.negatives

    def point(name: str, how: str, index: int) -> OperatingPoint:
        return OperatingPoint(
            name,
            how,
            float(counts.thresholds[finite[index]]),
            float(sensitivity[index]),
            float(specificity[index]),
        )

    best = len(finite) - 1 - int(np.argmax((sensitivity + specificity)[::-1]))
    points = [point("Youden", "highest sensitivity + specificity on these cases", best)]
    for wanted in SENSITIVITIES:
        enough = np.flatnonzero(sensitivity >= wanted)
        if len(enough):
            name = f"sensitivity {wanted:.0%}"
            how = f"highest threshold that finds at least {wanted:.0%} of the positive"
            points.append(point(name, how, int(enough[-1])))
    return tuple(points)
