"""What is true of a slide's tiles and pixels, and which of them somebody has judged.

A *truth* says of any pixel which class it has, or that nobody knows (`Truth`; those made of
regions, masks and other runs are in `truth_sources.py`). Here it is counted into the cells of a
run. The truth of a tile is that of its *cell*, the stride square that it answers for: cells tile
the plane, so each µm² counts once, however much tiles overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_histomil.annotations.masks import MAX_PIXELS, MaskGrid
from napari_histomil.annotations.raster import BAND_BYTES
from napari_histomil.tiling import TileGrid

UNJUDGED = 255
"""Label of a pixel of which nobody has said anything."""

BACKGROUND = "background"
"""Name of what was looked at and is none of the classes."""

POSITIVE_SHARE = 0.5
"""A tile is positive from this share of its judged area on."""

MIXED = (0.05, 0.95)
"""Tiles between these shares are mixed: neither one thing nor the other."""

LEAST_JUDGED = 0.5
"""A tile of which less than this share was judged has no truth."""

CELL_PX = 32
"""Pixels along a cell by which its share is counted, at most: right to a thousandth."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Labels = NDArray[np.uint8]


class Truth(Protocol):
    """What somebody, or another model, says of a slide."""

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, `BACKGROUND` last; a label is the index of one of them."""

    @property
    def rule(self) -> str:
        """Where it comes from and what was judged, in words."""

    def labels(self, grid: MaskGrid, rows: slice) -> Labels:
        """Return the labels of some rows of a grid, uint8 [rows, columns]; `UNJUDGED` elsewhere.

        A pixel has the label of its centre.
        """


@dataclass(frozen=True, slots=True, eq=False)
class TileTruth:
    """The truth of the tiles of one run, in their order."""

    share: Floats = field(repr=False)
    """float64 [N], positive share of each tile's judged area; NaN where too little was judged."""
    judged: Floats = field(repr=False)
    """float64 [N], share of each tile that was judged."""
    rule: str
    """Where the truth comes from and from when on a tile is positive, in words."""
    from_share: float = POSITIVE_SHARE
    names: tuple[str, ...] = ()
    """All classes of the truth, `BACKGROUND` last."""
    counts: NDArray[np.int64] | None = field(default=None, repr=False)
    """int64 [N, K], judged pixels of each class in each tile."""
    unseen: NDArray[np.int64] | None = field(default=None, repr=False)
    """int64 [K], judged pixels of each class where the run has no tile."""
    positive_classes: tuple[int, ...] = ()
    """Which of the classes are the positive one."""
    pixel_um2: float = math.nan

    def __len__(self) -> int:
        return len(self.share)

    @property
    def known(self) -> Bools:
        """Bool [N], whether a tile has a truth."""
        return np.isfinite(self.share)

    @property
    def positive(self) -> Bools:
        """Bool [N], whether a tile is positive by `from_share`; False where nothing is known."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.share >= self.from_share)

    @property
    def mixed(self) -> Bools:
        """Bool [N], whether a tile lies between the shares `MIXED`."""
        with np.errstate(invalid="ignore"):
            return np.asarray((self.share > MIXED[0]) & (self.share < MIXED[1]))

    def pixels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return how many positive and other judged pixels each tile has, int64 [N] each."""
        assert self.counts is not None, "made by tile_truth"
        return sides(self.counts, self.positive_classes)


def sides(
    counts: NDArray[np.int64], positive: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return counts [..., K] of classes as those of the positive ones and of all others."""
    own = np.zeros(counts.shape[-1], bool)
    own[list(positive)] = True
    return counts[..., own].sum(axis=-1), counts[..., ~own].sum(axis=-1)


def positive_indices(names: Sequence[str], wanted: str) -> tuple[int, ...]:
    """Return which classes are the wanted one: of that name, or derived from it.

    ``Tumor: Metastasis`` is derived from ``Tumor``; capitals do not count.
    """
    name = wanted.casefold()
    return tuple(
        index
        for index, each in enumerate(names)
        if each.casefold() == name or each.casefold().startswith(f"{name}: ")
    )


def cell_pixels(grid: TileGrid) -> tuple[MaskGrid, int]:
    """Return pixels that divide the cells of a grid, and how many lie along a cell."""
    rows, columns = grid.shape
    along = min(CELL_PX, grid.spec.stride_px, math.isqrt(MAX_PIXELS // (rows * columns)))
    width, height = grid.cell_size_px0
    um = grid.spec.cell_um / along
    pixels = MaskGrid(columns * along, rows * along, (width / along, height / along), (um, um))
    return pixels, along


def tile_truth(
    truth: Truth, grid: TileGrid, positive: str, *, from_share: float = POSITIVE_SHARE
) -> TileTruth:
    """Count a truth into the tiles of a run.

    Parameters
    ----------
    truth
        Of the slide of the run.
    grid
        The run's tiles.
    positive
        Class of the truth that counts as positive, with all that are derived from it.
    from_share
        A tile is positive from this share of its judged area on.

    Raises
    ------
    AnnotationError, RunError
        As the truth does.
    """
    names = truth.names
    pixels, along = cell_pixels(grid)
    cells = np.zeros((*grid.shape, len(names)), np.int64)
    for row, band in _bands_of_cells(truth, grid, pixels, along):
        cells[row : row + len(band)] = band
    seen = (grid.cells < grid.shape).all(axis=1)  # nested tiles may lie beyond the slide
    counts = np.zeros((len(grid), len(names)), np.int64)
    counts[seen] = cells[tuple(grid.cells[seen].T)]
    own = positive_indices(names, positive)
    true, rest = sides(counts, own)
    judged = (true + rest) / along**2
    share = np.full(len(grid), np.nan)
    # of a tile at the slide's edge what lies on the slide is all that there is to judge
    enough = judged >= LEAST_JUDGED * np.minimum(grid.visible_fraction, 1)
    enough &= true + rest > 0
    share[enough] = true[enough] / (true + rest)[enough]
    mpp_x, mpp_y = pixels.mpp_xy or (math.nan, math.nan)
    return TileTruth(
        share=share,
        judged=judged,
        rule=f"{truth.rule}; a tile is {positive} from {from_share:.0%} of its judged area on",
        from_share=from_share,
        names=names,
        counts=counts,
        unseen=cells.sum(axis=(0, 1)) - counts.sum(axis=0),
        positive_classes=own,
        pixel_um2=mpp_x * mpp_y,
    )


def bands_of(truth: Truth, grid: MaskGrid, size_px0: tuple[int, int]) -> Iterator[
    tuple[int, Labels]
]:  # fmt: skip
    """Yield (first row, labels) of a grid from top to bottom; nothing beyond the slide is judged.

    Parameters
    ----------
    truth
        Of the slide.
    grid
        From the slide's corner on; may reach beyond it.
    size_px0
        (width, height) of the slide.
    """
    step = max(BAND_BYTES // (8 * grid.columns), 1)
    for top in range(0, grid.rows, step):
        yield top, _on_slide(truth, grid, slice(top, min(top + step, grid.rows)), size_px0)


def _bands_of_cells(
    truth: Truth, grid: TileGrid, pixels: MaskGrid, along: int
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (first row of cells, counts [rows, columns, K]) from top to bottom."""
    rows, columns = grid.shape
    count = len(truth.names)
    step = max(BAND_BYTES // (8 * pixels.columns * along), 1)
    column = np.repeat(np.arange(columns, dtype=np.int64) * (count + 1), along)
    for top in range(0, rows, step):
        stop = min(top + step, rows)
        span = slice(top * along, stop * along)
        labels = _on_slide(truth, pixels, span, grid.slide_size_px0)
        row = np.repeat(np.arange(stop - top) * columns * (count + 1), along)
        place = np.minimum(labels, count) + column + row[:, None]  # what is unjudged comes last
        size = (stop - top) * columns * (count + 1)
        found = np.bincount(place.ravel(), minlength=size)
        yield top, found.reshape(stop - top, columns, count + 1)[..., :count]


def _on_slide(truth: Truth, grid: MaskGrid, rows: slice, size_px0: tuple[int, int]) -> Labels:
    labels = truth.labels(grid, rows)
    (width, height), (right, bottom) = grid.pixel_px0, size_px0
    x = (np.arange(grid.columns) + 0.5) * width
    y = (np.arange(rows.start, rows.stop) + 0.5) * height
    labels[:, x >= right] = UNJUDGED
    labels[y >= bottom] = UNJUDGED
    return labels
