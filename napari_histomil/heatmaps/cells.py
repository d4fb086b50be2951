"""Cells as a picture: which tile each pixel belongs to, on a grid or wherever tiles lie.

Our grids have one pixel a cell. Tiles of other programs begin anywhere: each contour of tissue has
tiles from its own corner on, so that they fit no one grid, and they may overlap. Such a tile is
drawn as the square that it alone answers for, on pixels fine enough for its place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_histomil.tiling import TileGrid

Floats = NDArray[np.floating[Any]]

FINEST = 8
"""Pixels along a cell, at most: where corners do not fit even these, they are rounded."""

ROUNDED = 4
"""Pixels along a cell where corners are rounded: to an eighth of a cell at most."""

MOST_PIXELS = 2**24
"""Of a picture; tiles that lie farther apart are drawn on coarser pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class CellPicture:
    """Where tiles are drawn."""

    tiles: NDArray[np.int32] = field(repr=False)
    """int32 [rows, columns]: the tile that each pixel belongs to, -1 where there is none."""
    corner_px0: tuple[float, float]
    """(x, y) of the picture's corner, level-0 px."""
    pixel_px0: tuple[float, float]
    """(width, height) of a pixel, level-0 px."""
    areas_px0: NDArray[np.float64] = field(repr=False)
    """float64 [N]: area of each tile's pixels that lies on the slide, each counted once."""

    @classmethod
    def of_grid(cls, grid: TileGrid) -> CellPicture:
        """Return the cells of a grid, one pixel each.

        Nested tiles may lie wholly beyond the slide: those are not drawn.
        """
        tiles = np.full(grid.shape, -1, np.int32)
        seen = np.flatnonzero((grid.cells < grid.shape).all(axis=1))
        tiles[tuple(grid.cells[seen].T)] = seen
        return cls.made(tiles, (0.0, 0.0), grid.cell_size_px0, len(grid), grid.slide_size_px0)

    @classmethod
    def made(
        cls,
        tiles: NDArray[np.int32],
        corner_px0: tuple[float, float],
        pixel_px0: tuple[float, float],
        count: int,
        slide_size_px0: tuple[int, int],
    ) -> CellPicture:
        """Return a picture of `count` tiles, their areas counted."""
        widths, heights = (
            _inside(corner_px0[axis], pixel_px0[axis], tiles.shape[1 - axis], slide_size_px0[axis])
            for axis in (0, 1)
        )
        drawn = tiles >= 0
        weights = np.outer(heights, widths)[drawn]
        areas = np.asarray(np.bincount(tiles[drawn], weights, minlength=count), np.float64)
        return cls(tiles, corner_px0, pixel_px0, areas)

    def image(self, values: Floats) -> NDArray[np.float32]:
        """Return values [N], one a tile, as a picture: NaN where no tile is."""
        padded = np.append(np.asarray(values, np.float32), np.float32(np.nan))
        return padded[self.tiles]  # the last one is also that of -1

    def tile_at(self, xy_px0: tuple[float, float]) -> int | None:
        """Return the tile that is drawn at a level-0 position (x, y); None where none is."""
        column, row = (
            math.floor((xy_px0[axis] - self.corner_px0[axis]) / self.pixel_px0[axis])
            for axis in (0, 1)
        )
        rows, columns = self.tiles.shape
        if not (0 <= row < rows and 0 <= column < columns):
            return None
        tile = int(self.tiles[row, column])
        return tile if tile >= 0 else None


def picture_of_cells(
    xy_px0: Floats, side_px0: tuple[float, float], slide_size_px0: tuple[int, int]
) -> CellPicture:
    """Return where tiles with any corners are drawn.

    Each is drawn in its middle as large as the distance to its neighbours, and no larger than it
    is; where two still overlap, the later one lies above.

    Parameters
    ----------
    xy_px0
        [N, 2]: (x, y) of the corner of each tile's footprint, level-0 px; N > 0.
    side_px0
        (width, height) of a tile in level-0 px.
    slide_size_px0
        (width, height) of the slide.
    """
    side = np.array(side_px0, np.float64)
    centers = np.asarray(xy_px0, np.float64) + side / 2
    cell = side * min(1.0, _step(centers / side))
    corners = centers - cell / 2
    low, high = corners.min(axis=0), (corners + cell).max(axis=0)
    along = np.array([_pixels_along(corners[:, axis] - low[axis], cell[axis]) for axis in (0, 1)])
    while (along > 1).any() and np.prod((high - low) / cell * along) > MOST_PIXELS:
        along = np.maximum(along // 2, 1)
    pixel = cell / along
    most = max(np.prod((high - low) / pixel) / MOST_PIXELS, 1.0)
    pixel = pixel * math.sqrt(most)  # tiles strewn over more than any slide: some share a pixel
    first = np.rint((corners - low) / pixel).astype(np.int64)[:, ::-1]  # [N, 2]: row, column
    shape = first.max(axis=0) + along[::-1]
    tiles = np.full((int(shape[0]), int(shape[1])), -1, np.int32)
    numbers = np.arange(len(first), dtype=np.int32)
    for down in range(along[1]):
        for across in range(along[0]):
            tiles[first[:, 0] + down, first[:, 1] + across] = numbers
    return CellPicture.made(
        tiles,
        (float(low[0]), float(low[1])),
        (float(pixel[0]), float(pixel[1])),
        len(first),
        slide_size_px0,
    )


def _step(centers: NDArray[np.float64]) -> float:
    """Return the usual distance from a tile to the nearest other, along x or y, in tiles."""
    if len(centers) < 2:
        return 1.0
    distances, _ = cKDTree(centers).query(centers, k=2, p=np.inf)
    step = float(np.median(distances[:, 1]))
    return step if step > 0 else 1.0


def _pixels_along(aside: NDArray[np.float64], cell: float) -> int:
    """Return how many pixels along a cell of that side put all corners on their edges."""
    for along in range(1, FINEST + 1):
        pixels = aside / cell * along
        if np.abs(pixels - np.rint(pixels)).max() < 1e-3:
            return along
    return ROUNDED


def _inside(corner: float, pixel: float, count: int, size: float) -> NDArray[np.float64]:
    """Return how much of each of a row of pixels lies between 0 and `size`."""
    edges = np.clip(corner + pixel * np.arange(count + 1), 0, size)
    lengths: NDArray[np.float64] = np.diff(edges)
    return lengths
