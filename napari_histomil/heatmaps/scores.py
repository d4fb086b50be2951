"""Scores on a grid become an image, a normalised map, numbers above a threshold, hottest places.

Of models that answer for tiles; attention is in `scales.py`. Nothing here smooths. A heatmap has
one pixel per grid cell, shape ``grid.shape``; cells without a score (not looked at, or not yet)
are NaN, and every function here leaves NaN out of account.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import HistomilError
from napari_histomil.tiling import TileGrid

Floats = NDArray[np.floating[Any]]

NORMALISATIONS: Mapping[str, str] = MappingProxyType(
    {
        "raw": "the values as the model gave them",
        "min-max": "stretched so that this slide's lowest value is 0 and its highest is 1",
        "rank": "share of this slide's values that are not higher (1 is the highest)",
    }
)
"""Name of each normalisation, with what it does in words for the person."""


def score_image(grid: TileGrid, values: Floats) -> NDArray[np.float32]:
    """Lay one value per tile out as an image, one pixel per cell.

    Parameters
    ----------
    grid
        The tiles.
    values
        [N], one value per tile, in the order of ``grid.cells``.

    Returns
    -------
    float32 [rows, columns]
        Pixel (r, c) answers for the level-0 rectangle of cell (r, c); NaN where no tile is.

    Raises
    ------
    HistomilError
        If `values` does not hold one value per tile.
    """
    values = _one_per_tile(grid, values)
    image = np.full(grid.shape, np.nan, np.float32)
    image[grid.cells[:, 0], grid.cells[:, 1]] = values
    return image


def normalise(values: Floats, method: str) -> NDArray[np.float64]:
    """Return `values` normalised by name, NaN where they are NaN.

    ``rank`` is the average rank divided by the number of values, the percentile that attention
    maps are usually shown by [1]_: it shows order only and hides how much values differ. Both
    ``min-max`` and ``rank`` depend on the slide: the same colour on two slides then means
    different values. Where all values are equal there is no order and no range: ``min-max``
    gives 0.5 everywhere.

    Parameters
    ----------
    values
        Any shape.
    method
        A name in `NORMALISATIONS`.

    Returns
    -------
    float64, the shape of `values`

    Raises
    ------
    HistomilError
        If there is no normalisation of that name.

    References
    ----------
    .. [1] Lu, M. Y. et al. (2021). Data-efficient and weakly supervised computational pathology
       on whole-slide images. Nature Biomedical Engineering 5, 555-570.
    """
    if method not in NORMALISATIONS:
        raise HistomilError(
            f"There is no normalisation '{method}': choose one of {', '.join(NORMALISATIONS)}."
        )
    result = np.array(values, np.float64)
    known = np.isfinite(result)
    if method == "raw" or not known.any():
        return result
    finite = result[known]
    if method == "min-max":
        low, high = finite.min(), finite.max()
        result[known] = (finite - low) / (high - low) if high > low else 0.5
    else:
        _, inverse, counts = np.unique(finite, return_inverse=True, return_counts=True)
        # Equal values share the mean of the ranks 1..n that they would take.
        mean_rank = np.cumsum(counts) - (counts - 1) / 2
        result[known] = mean_rank[inverse] / finite.size
    return result


@dataclass(frozen=True, slots=True)
class ThresholdStats:
    """How much lies at or above a threshold."""

    tiles: int
    """Number of tiles at or above the threshold."""
    area_mm2: float
    """Area of their cells; what a cell has outside the slide does not count."""
    percent: float
    """That area as a share of the area looked at (all cells with a value); 0 where none is."""
    looked_at_tiles: int
    """Number of tiles that have a value."""
    looked_at_mm2: float
    """Area of their cells."""


def threshold_stats(grid: TileGrid, values: Floats, threshold: float) -> ThresholdStats:
    """Count tiles and area whose value is at or above `threshold`.

    Areas are those of cells, not of tiles: tiles may overlap, cells tile the plane. A cell at
    the slide's edge counts with the part that lies on the slide.

    Parameters
    ----------
    grid
        The tiles.
    values
        [N], one value per tile; NaN where there is none.
    threshold
        In the unit of `values`.

    Raises
    ------
    HistomilError
        If `values` does not hold one value per tile.
    """
    values = _one_per_tile(grid, values)
    area_mm2 = grid.visible_fraction * (grid.cell_area_um2 * 1e-6)
    known = np.isfinite(values)
    above = known & (values >= threshold)
    looked_at = float(area_mm2[known].sum())
    area = float(area_mm2[above].sum())
    return ThresholdStats(
        tiles=int(above.sum()),
        area_mm2=area,
        percent=100 * area / looked_at if looked_at > 0 else 0.0,
        looked_at_tiles=int(known.sum()),
        looked_at_mm2=looked_at,
    )


def hottest(
    grid: TileGrid,
    values: Floats,
    *,
    count: int | None = None,
    min_distance_um: float = 0.0,
) -> NDArray[np.intp]:
    """Return tiles in falling order of their value, no two closer than a distance.

    Greedy non-maximum suppression: the hottest tile is taken, what lies closer to it than
    `min_distance_um` (centre to centre) is passed over, and so on. Equal values come in the
    order of the grid.

    Parameters
    ----------
    grid
        The tiles.
    values
        [N], one value per tile; tiles with NaN are never returned.
    count
        How many at most; None for all.
    min_distance_um
        0 returns neighbours too.

    Returns
    -------
    integers [M], M <= count
        Indices into ``grid.cells``.

    Raises
    ------
    HistomilError
        If `values` does not hold one value per tile.
    """
    values = _one_per_tile(grid, values)
    order = np.argsort(-values, kind="stable")
    order = order[np.isfinite(values[order])]
    count = order.size if count is None else count
    reach = min_distance_um / grid.spec.cell_um  # in cells
    if reach <= 1:  # no other cell's centre lies closer than one cell
        return order[:count]
    whole = int(np.ceil(reach))
    dy, dx = np.ogrid[-whole : whole + 1, -whole : whole + 1]
    disc = dy**2 + dx**2 < reach**2
    rows, columns = grid.shape
    passed = np.zeros((rows + 2 * whole, columns + 2 * whole), bool)  # a border spares clipping
    taken: list[int] = []
    for index in order:
        row, column = grid.cells[index]
        if passed[row + whole, column + whole]:
            continue
        if len(taken) == count:
            break
        taken.append(int(index))
        passed[row : row + 2 * whole + 1, column : column + 2 * whole + 1] |= disc
    return np.array(taken, np.intp)


def _one_per_tile(grid: TileGrid, values: Floats) -> Floats:
    values = np.asarray(values)
    if values.shape != (len(grid),):
        raise HistomilError(
            f"A heatmap of {len(grid)} tiles needs one value per tile, "
            f"not an array of shape {values.shape}."
        )
    return values
