"""95 % intervals by drawing whole groups with replacement.

Cells of a slide, tiles of a patient are alike: drawing single ones would make an interval far too
narrow (Efron, Ann. Stat. 7 (1979) 1; Davison & Hinkley 1997, 3.8). A figure is worked out from
counts that groups add to, so that a round costs one row of a matrix product and not another pass
over all answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ROUNDS = 2000
"""Of a bootstrap, where nobody says otherwise."""


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Groups drawn with replacement, stratum by stratum."""

    times: Floats = field(repr=False)
    """float64 [rounds, groups], how often each is drawn."""
    redrawn: int
    """Rounds that were thrown away and drawn again, as one side had no case."""


def draws(groups: int, rounds: int, *, seed: int = 0) -> Floats:
    """Return how often each group is drawn in each round: float64 [rounds, groups].

    The same seed gives the same draws.
    """
    random = np.random.default_rng(seed)
    times = np.zeros((rounds, groups))
    for row in times:
        row[:] = np.bincount(random.integers(groups, size=groups), minlength=groups)
    return times


def stratified_draws(
    stratum: NDArray[np.intp], cases: Floats, rounds: int, *, seed: int = 0
) -> Draws:
    """Draw groups within their strata, again where a round lacks a side that the cases have.

    Parameters
    ----------
    stratum
        [groups], index of each one's stratum: as many are drawn from each as it has.
    cases
        float64 [groups, sides], how many cases of each side a group has.
    rounds
        How many are drawn.
    seed
        The same seed gives the same draws.
    """
    random = np.random.default_rng(seed)
    members = [np.flatnonzero(stratum == index) for index in np.unique(stratum)]
    needed = cases.sum(axis=0) > 0
    times = np.zeros((rounds, len(stratum)))
    redrawn = 0
    for row in times:
        while True:
            for own in members:
                drawn = random.integers(len(own), size=len(own))
                row[own] = np.bincount(drawn, minlength=len(own))
            if ((row @ cases > 0) | ~needed).all():
                break
            redrawn += 1
    return Draws(times, redrawn)


def interval(values: Floats) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of what the rounds gave; NaN without any.

    Rounds that gave no number, as one side was not drawn, are left out.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


def per_group(group: NDArray[np.intp], groups: int, *columns: NDArray[np.generic]) -> Floats:
    """Add up columns by group: float64 [groups, columns].

    Parameters
    ----------
    group
        [n], index of each row's group.
    groups
        How many there are.
    columns
        Each [n].
    """
    return np.stack(
        [np.bincount(group, weights=np.asarray(c, float), minlength=groups) for c in columns],
        axis=1,
    )
