"""Places that a run points at, each with a score: what a FROC curve is made of.

They come from one named step, *maxima*: the highest value is taken, what lies nearer to it than a
radius is passed over, and so on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from napari_histomil.heatmaps.scores import hottest
from napari_histomil.results import RunStore, SegmentationStore
from napari_histomil.results.segmentation import from_stored
from napari_histomil.review.scored import class_index, positive_scores
from napari_histomil.review.truth import Floats
from napari_histomil.tiling import GridSpec, TileGrid

RADIUS_UM = 75.0
"""Two places that lie nearer are one: gaps that do not part two lesions."""

LOOK_MPP = 8.0
"""Maxima of a segmentation are looked for at the coarsest level that is no coarser."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Places of a slide, the highest score first."""

    xy_px0: Floats = field(repr=False)
    """float64 [M, 2]"""
    score: Floats = field(repr=False)
    """float64 [M]"""
    how: str
    """The step that they come from, in words."""

    def __len__(self) -> int:
        return len(self.score)


def maxima(
    run: RunStore | SegmentationStore, name: str, *, radius_um: float = RADIUS_UM
) -> Candidates:
    """Return the places where a class is likeliest, no two nearer than a radius.

    Parameters
    ----------
    run
        Of a patch classifier (middles of cells), or of a model that segments (pixels).
    name
        The class.
    radius_um
        Two places lie at least so far apart.

    Raises
    ------
    RunError
        If the run has no such class, or cannot be read.
    """
    if isinstance(run, RunStore):
        grid, values = run.grid, positive_scores(run, name)
        what = "tiles"
    else:
        grid, values = _peaks(run, class_index(run, name))
        what = f"pixels of {grid.spec.mpp:g} µm"
    chosen = hottest(grid, values, min_distance_um=radius_um)
    rects = grid.cell_rects_px0[chosen]
    return Candidates(
        rects[:, :2] + rects[:, 2:] / 2,
        values[chosen],
        f"maxima of {what}, {radius_um:g} µm apart or more",
    )


def _peaks(run: SegmentationStore, column: int) -> tuple[TileGrid, Floats]:
    """Return pixels of a coarse level that no neighbour tops, as a grid with their values."""
    mpp = run.grid.spec.mpp
    level = max(k for k in range(len(run.level_shapes)) if k == 0 or mpp * 2**k <= LOOK_MPP)
    rows, _ = run.level_shapes[level]
    values = from_stored(run.read(level, slice(0, rows), slice(None))[column])
    known = np.where(np.isfinite(values), values, -1)
    peak = (known > 0) & (known >= ndimage.maximum_filter(known, 3))
    cells = np.argwhere(peak).astype(np.int32)
    spec = GridSpec(mpp * 2**level, 1, 1)
    grid = TileGrid(spec, run.grid.slide_mpp, run.grid.slide_size_px0, cells)
    return grid, known[peak].astype(np.float64)
