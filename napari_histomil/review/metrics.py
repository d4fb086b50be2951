"""Figures of agreement between two labellings: a rater and another, or a truth and a prediction.

All are made of a confusion matrix, so they can be counted band by band. A figure that has no
value says why (`Score.reason`): it is neither 0 nor 1. Nothing here knows of slides.

Sources: Cohen, Educ. Psychol. Meas. 20 (1960) 37 (kappa) and Psychol. Bull. 70 (1968) 213
(weighted); Cicchetti & Feinstein, J. Clin. Epidemiol. 43 (1990) 551 (positive and negative
agreement); Dice, Ecology 26 (1945) 297; Brodersen et al., ICPR 2010, 3121 (balanced accuracy).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Weights = Literal["none", "quadratic"]


@dataclass(frozen=True, slots=True)
class Score:
    """A figure, or why there is none."""

    value: float | None
    reason: str = ""
    """Why it is undefined, as the end of a sentence; empty where there is a value."""

    def __str__(self) -> str:
        return "undefined" if self.value is None else f"{self.value:.3f}"


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """How often the first labelling says row i where the second says column j.

    For a truth and a prediction the truth is the first.
    """

    counts: NDArray[np.int64]
    """[K, K]."""
    classes: tuple[str, ...]
    raters: tuple[str, str] = ("the first", "the second")
    """How reasons call the two."""

    @property
    def total(self) -> int:
        """How many places were compared."""
        return int(self.counts.sum())

    def one_against_rest(self, index: int) -> Confusion:
        """Return the 2 x 2 matrix of a class (row and column 0) against all others."""
        both = int(self.counts[index, index])
        first, second = int(self.counts[index].sum()), int(self.counts[:, index].sum())
        rest = self.total - first - second + both
        name = self.classes[index]
        return Confusion(
            np.array([[both, first - both], [second - both, rest]], np.int64),
            (name, f"no {name}"),
            self.raters,
        )


def count(
    first: NDArray[Any],
    second: NDArray[Any],
    values: Sequence[int],
    where: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Return the counts of a `Confusion`; those of bands are added up.

    Parameters
    ----------
    first, second
        Labels of the same shape.
    values
        Label of each class. Places where either has another label are left out.
    where
        Places that count; all by default.
    """
    table = np.full(max(*(int(a.max(initial=0)) for a in (first, second)), *values) + 1, -1)
    table[list(values)] = np.arange(len(values))
    rows, columns = table[first], table[second]
    known = (rows >= 0) & (columns >= 0)
    if where is not None:
        known &= where
    size = len(values)
    pairs = rows[known] * size + columns[known]
    counts: NDArray[np.int64] = np.bincount(pairs, minlength=size * size).reshape(size, size)
    return counts


def accuracy(confusion: Confusion) -> Score:
    """Return the share of places on which both agree: the observed agreement."""
    return _share(np.trace(confusion.counts), confusion.total, "nothing was compared")


def balanced_accuracy(confusion: Confusion) -> Score:
    """Return the mean recall of the classes that the first labelling has."""
    present = np.flatnonzero(confusion.counts.sum(axis=1))
    if not len(present):
        return Score(None, "nothing was compared")
    recalls = [recall(confusion, int(index)).value or 0.0 for index in present]
    return Score(float(np.mean(recalls)))


def precision(confusion: Confusion, index: int) -> Score:
    """Return the share of what the second calls the class that the first calls so, too."""
    called = int(confusion.counts[:, index].sum())
    reason = f"{confusion.raters[1]} has no {confusion.classes[index]}"
    return _share(confusion.counts[index, index], called, reason)


def recall(confusion: Confusion, index: int) -> Score:
    """Return the share of what the first calls the class that the second calls so, too."""
    called = int(confusion.counts[index].sum())
    reason = f"{confusion.raters[0]} has no {confusion.classes[index]}"
    return _share(confusion.counts[index, index], called, reason)


def dice(confusion: Confusion, index: int) -> Score:
    """Return 2 |A and B| / (|A| + |B|) of a class.

    The same number is F1, and the positive agreement of two raters.
    """
    called = int(confusion.counts[index].sum() + confusion.counts[:, index].sum())
    return _share(2 * confusion.counts[index, index], called, _absent(confusion, index))


f1 = dice
positive_agreement = dice


def iou(confusion: Confusion, index: int) -> Score:
    """Return |A and B| / |A or B| of a class (Jaccard's index)."""
    both = int(confusion.counts[index, index])
    either = int(confusion.counts[index].sum() + confusion.counts[:, index].sum()) - both
    return _share(both, either, _absent(confusion, index))


def negative_agreement(confusion: Confusion, index: int) -> Score:
    """Return the agreement of two raters on what is *not* the class: Dice of the rest."""
    rest = confusion.one_against_rest(index)
    called = int(rest.counts[1].sum() + rest.counts[:, 1].sum())
    return _share(2 * rest.counts[1, 1], called, f"all is {confusion.classes[index]} for both")


def kappa(confusion: Confusion, weights: Weights = "none") -> Score:
    """Return Cohen's kappa: agreement beyond what the raters' shares would give by chance.

    Undefined where a rater has one class throughout: chance then explains all that there is to
    explain, and 0 or 1 would say more than is known.

    Parameters
    ----------
    confusion
        Of two raters.
    weights
        ``quadratic`` for classes that are *ordered* (grades): a disagreement of i and j counts
        as agreement by 1 - (i - j)² / (K - 1)². Meaningless for others.
    """
    counts, total = confusion.counts, confusion.total
    if not total:
        return Score(None, "nothing was compared")
    rows, columns = counts.sum(axis=1), counts.sum(axis=0)
    for rater, shares in zip(confusion.raters, (rows, columns), strict=True):
        used = np.flatnonzero(shares)
        if len(used) == 1:
            return Score(None, f"{rater} has {confusion.classes[used[0]]} throughout")
    size = len(counts)
    agree = np.eye(size)
    if weights == "quadratic":
        steps = np.arange(size)
        agree = 1 - (steps[:, None] - steps) ** 2 / (size - 1) ** 2
    observed = float((agree * counts).sum() / total)
    expected = float((agree * np.outer(rows / total, columns / total)).sum())
    return Score((observed - expected) / (1 - expected))


def _absent(confusion: Confusion, index: int) -> str:
    return f"neither has {confusion.classes[index]}"


def _share(part: Any, whole: int, reason: str) -> Score:
    return Score(float(part) / whole) if whole else Score(None, reason)
