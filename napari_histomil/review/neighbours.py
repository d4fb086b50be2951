"""Who looks like whom: the nearest tiles of all slides, and whether they are of one slide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import RunError

Floats = NDArray[np.floating[Any]]

NEIGHBOURS = 10
SAMPLED = 1000
"""Tiles whose neighbours are looked up for the purity: right to about 1 %."""

AT_ONCE = 256
"""Tiles that are compared with all others at once."""


def nearest(
    units: NDArray[np.float32], of: Floats, count: int = NEIGHBOURS
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows that look most like another, the most alike first.

    Parameters
    ----------
    units
        float32 [N, D] of `points.unit_rows`.
    of
        [D]: a row as those.
    count
        How many.

    Returns
    -------
    int64 [count], float32 [count]
        Which rows, and their likeness from -1 to 1; of equal ones the earlier first.
    """
    likeness = units @ np.asarray(of, np.float32)
    order = np.argsort(-likeness, kind="stable")[:count]
    return order, likeness[order]


@dataclass(frozen=True, slots=True)
class Purity:
    """Whether tiles that look alike are those of one slide, or site, rather than of one tissue."""

    number: float
    """0 where neighbours are of one group as often as by chance, 1 where they always are."""
    share: float
    """Share of neighbours that are of the tile's own group."""
    by_chance: float
    """The same of tiles drawn at random."""
    groups: int
    neighbours: int
    sampled: int

    @property
    def words(self) -> str:
        """What it means, in a sentence."""
        if self.number < 0.2:
            meaning = "features hardly tell groups apart"
        elif self.number < 0.5:
            meaning = "features tell groups apart to some degree"
        else:
            meaning = "features cluster by group: check that a model does not learn the group"
        return (
            f"{self.share:.0%} of the {self.neighbours} nearest neighbours are of the same one of "
            f"{self.groups} groups, {self.by_chance:.0%} by chance: {meaning}."
        )


def purity(
    units: NDArray[np.float32],
    group: NDArray[Any],
    *,
    neighbours: int = NEIGHBOURS,
    sampled: int = SAMPLED,
    seed: int = 0,
) -> Purity:
    """Return how far tiles that look alike are of one group: slide, site, scanner.

    Parameters
    ----------
    units
        float32 [N, D] of `points.unit_rows`.
    group
        [N]: which group each tile belongs to.
    neighbours
        How many are looked at of each tile, itself left out.
    sampled
        Of so many tiles, drawn evenly among the groups.
    seed
        Of the draw.

    Raises
    ------
    RunError
        If there is one group only, or hardly any tiles.
    """
    names, own, counts = np.unique(group, return_inverse=True, return_counts=True)
    count = len(units)
    if len(names) < 2 or count <= neighbours:
        raise RunError(
            f"{count} tiles of {len(names)} group{'s' if len(names) != 1 else ''} do not say "
            f"whether features cluster by group: take at least two, with more than {neighbours} "
            f"tiles."
        )
    rng = np.random.default_rng(seed)
    share_each = max(sampled // len(names), 1)
    drawn = np.concatenate(
        [rng.permutation(np.flatnonzero(own == n))[:share_each] for n in range(len(names))]
    )
    same, chance = 0.0, float(((counts[own[drawn]] - 1) / (count - 1)).mean())
    for start in range(0, len(drawn), AT_ONCE):
        rows = drawn[start : start + AT_ONCE]
        likeness = units[rows] @ units.T
        likeness[np.arange(len(rows)), rows] = -np.inf
        near = np.argpartition(-likeness, neighbours - 1, axis=1)[:, :neighbours]
        same += float((own[near] == own[rows, None]).mean(axis=1).sum())
    share = same / len(drawn)
    number = (share - chance) / (1 - chance) if chance < 1 else 0.0
    return Purity(max(number, 0.0), share, chance, len(names), neighbours, len(drawn))
