"""Contributions: what each tile adds to a class's logit, of one magnification or all in one map.

They are signed, in units of the logit, and add up: with the bias they are the logit. So those of
several magnifications may be added. Attention of several magnifications may not: each adds up to 1
by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.heatmaps.cells import CellPicture
from napari_histomil.heatmaps.scores import score_image
from napari_histomil.tiling import TileGrid, children_a_side

Floats = NDArray[np.floating[Any]]

WITHIN = 0.99
"""Share of the tiles whose contribution is within the colours; the others are at their ends."""


def signed_limit(values: Floats) -> float:
    """Return how far colours that diverge around 0 reach to both sides; 0 without any value.

    Parameters
    ----------
    values
        Contributions, NaN where there is none.
    """
    sizes = np.abs(values[np.isfinite(values)])
    if not sizes.size:
        return 0.0
    # Where nearly all are 0, as with a maximum, the share would be 0, too.
    return float(np.quantile(sizes, WITHIN, method="higher")) or float(sizes.max())


def merge(
    levels: Sequence[tuple[TileGrid, Floats]],
) -> tuple[CellPicture, NDArray[np.float64]]:
    """Return the contributions of all magnifications in one map, on the cells of the finest.

    A coarse tile's contribution is spread evenly over the fine cells within it, so that the map
    adds up to what all magnifications together contribute.

    Parameters
    ----------
    levels
        For each magnification, the lowest first, its grid with N tiles and contributions [N] to
        one class; NaN where a tile was not examined.

    Returns
    -------
    picture
        The fine cells of which anything is known, M of them.
    contributions
        float64 [M].

    Raises
    ------
    RunError
        If cells of the finest grid lie across the edges of a coarser one's.
    """
    finest = levels[-1][0]
    parts = []
    for grid, values in levels:
        sides = children_a_side(grid.spec, finest.spec)
        image = score_image(grid, values).astype(np.float64)
        parts.append(image.repeat(sides, axis=0).repeat(sides, axis=1) / sides**2)
    shape = tuple(max(part.shape[axis] for part in parts) for axis in (0, 1))
    total, known = np.zeros(shape), np.zeros(shape, bool)
    for part in parts:
        place = np.s_[: part.shape[0], : part.shape[1]]
        there = np.isfinite(part)
        known[place] |= there
        total[place] += np.where(there, part, 0)
    tiles = np.full(shape, -1, np.int32)
    tiles[known] = np.arange(int(known.sum()))
    picture = CellPicture.made(
        tiles, (0.0, 0.0), finest.cell_size_px0, int(known.sum()), finest.slide_size_px0
    )
    return picture, total[known]
