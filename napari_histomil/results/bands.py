"""How the picture of a segmentation is cut: bands that are written at once, tiles that each needs.

The picture has the grid's µm/px and covers the whole slide; pixel (row i, column j) spans exactly
i .. i + 1 and j .. j + 1 pixels at the grid's µm/px from the slide's corner, and the slide's size
need not be a multiple of anything. It is known where the cells of the grid lie.

It is cut into lanes from left to right, and a lane into bands from top to bottom. Tiles are
stitched down a lane, and a band is written as soon as no later tile touches it: memory is that of
a band, however large the slide. Tiles on the edge of two lanes are computed for both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_histomil.geometry import Rect
from napari_histomil.tiling import TileGrid

BAND_PX = 512
"""Height of a band, and side of a Zarr chunk: a power of two, so that its halves are whole."""

LANE_PX = 16 * BAND_PX
"""Width of a lane: with tiles of 512 px a few per cent of them lie on an edge. The last one takes
less than half of another with it: an edge less."""

SNAP_PX = 1e-6
"""The last column is left out where the slide reaches no farther into it: rounding, no tissue."""


@dataclass(frozen=True, slots=True)
class Band:
    """Part of the picture that is written at once."""

    index: int
    """In `Picture.bands`."""
    lane: int
    rows: slice
    columns: slice
    """Of the picture's pixels."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbouring bands of a lane, from top to bottom: they are stitched in one go."""

    bands: tuple[Band, ...]

    @property
    def rows(self) -> slice:
        """Of the picture."""
        return slice(self.bands[0].rows.start, self.bands[-1].rows.stop)

    @property
    def columns(self) -> slice:
        """Of the picture."""
        return self.bands[0].columns


class Picture:
    """The picture of a grid.

    Parameters
    ----------
    grid
        Its cells come in any order; `self.grid` has them row by row.
    """

    def __init__(self, grid: TileGrid) -> None:
        order = np.lexsort((grid.cells[:, 1], grid.cells[:, 0]))
        self.grid = TileGrid(grid.spec, grid.slide_mpp, grid.slide_size_px0, grid.cells[order])
        mpp = grid.spec.mpp
        self.pixel_px0 = (mpp / grid.slide_mpp[0], mpp / grid.slide_mpp[1])
        """(width, height) of a pixel in level-0 pixels; not rounded."""
        columns, rows = (
            max(math.ceil(size / pixel - SNAP_PX), 1)
            for size, pixel in zip(grid.slide_size_px0, self.pixel_px0, strict=True)
        )
        self.shape = rows, columns
        self._selected = np.zeros(grid.shape, bool)
        self._selected[tuple(self.grid.cells.T)] = True
        self._keys = self.grid.cells.astype(np.int64) @ (grid.shape[1], 1)
        self.bands = tuple(self._cut())

    def _cut(self) -> Iterator[Band]:
        """Yield the bands in which something is known."""
        rows, columns = self.shape
        index = 0
        lanes = self._lanes
        for lane in range(lanes):
            across = slice(lane * LANE_PX, columns if lane == lanes - 1 else (lane + 1) * LANE_PX)
            for top in range(0, rows, BAND_PX):
                down = slice(top, min(top + BAND_PX, rows))
                if self._selected[self._cells(down), self._cells(across)].any():
                    yield Band(index, lane, down, across)
                    index += 1

    @property
    def _lanes(self) -> int:
        """How many there are."""
        return max((self.shape[1] + LANE_PX // 2) // LANE_PX, 1)

    def _cells(self, pixels: slice) -> slice:
        """Return the cells, along one axis, of which pixels are part."""
        stride = self.grid.spec.stride_px
        return slice(pixels.start // stride, (pixels.stop - 1) // stride + 1)

    def known(self, rows: slice, columns: slice) -> NDArray[np.bool_]:
        """Bool [rows, columns]: which pixels lie in a cell of the grid."""
        return self.pixels(self._selected, rows, columns)

    def cells_image(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return bool [N], for each tile, as an image of cells, bool of the grid's shape."""
        image = np.zeros_like(self._selected)
        image[tuple(self.grid.cells[chosen].T)] = True
        return image

    def pixels(
        self, cells_image: NDArray[np.bool_], rows: slice, columns: slice
    ) -> NDArray[np.bool_]:
        """Bool [rows, columns]: which pixels lie in one of these cells."""
        stride, (most_rows, most_columns) = self.grid.spec.stride_px, cells_image.shape
        # The last pixel may begin in what is too little of a cell to count as one.
        down = np.minimum(np.arange(rows.start, rows.stop) // stride, most_rows - 1)
        across = np.minimum(np.arange(columns.start, columns.stop) // stride, most_columns - 1)
        pixels: NDArray[np.bool_] = cells_image[down][:, across]
        return pixels

    def is_known(self, rows: slice, columns: slice) -> bool:
        """Whether a pixel of a part lies in a cell of the grid."""
        return self.reaches(self._selected, rows, columns)

    def reaches(self, cells_image: NDArray[np.bool_], rows: slice, columns: slice) -> bool:
        """Whether a pixel of a part lies in one of these cells."""
        return bool(cells_image[self._cells(rows), self._cells(columns)].any())

    def tiles_touching(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Bool [N]: the tiles that say something of the cells chosen by bool [N]."""
        reach = -(-self.overhang_px // self.grid.spec.stride_px)  # in cells
        near: NDArray[np.bool_] = ndimage.maximum_filter(
            self.cells_image(chosen), size=2 * reach + 1, mode="constant"
        )
        tiles: NDArray[np.bool_] = near[tuple(self.grid.cells.T)]
        return tiles

    def tiles_done(self, done: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Bool [N]: which tiles have the middle of their cell in a band that is done.

        Parameters
        ----------
        done
            bool [B], for each band.
        """
        stride, (rows, columns) = self.grid.spec.stride_px, self.shape
        middle = np.minimum(
            self.grid.cells.astype(np.int64) * stride + stride // 2, (rows - 1, columns - 1)
        )
        ready = np.zeros((-(-rows // BAND_PX), self._lanes), bool)
        for band in self.bands:
            ready[band.rows.start // BAND_PX, band.lane] = done[band.index]
        lane = np.minimum(middle[:, 1] // LANE_PX, self._lanes - 1)
        tiles: NDArray[np.bool_] = ready[middle[:, 0] // BAND_PX, lane]
        return tiles

    def stretches(self, done: NDArray[np.bool_]) -> list[Stretch]:
        """Return what is left to do: bands that are not done, neighbours together."""
        found: list[list[Band]] = []
        for band in self.bands:
            if done[band.index]:
                continue
            last = found[-1][-1] if found else None
            if last is not None and (last.lane, last.rows.stop) == (band.lane, band.rows.start):
                found[-1].append(band)
            else:
                found.append([band])
        return [Stretch(tuple(bands)) for bands in found]

    def rows_of_tiles(self, stretch: Stretch) -> Iterator[slice]:
        """Yield the tiles that touch a stretch, a row of cells at a time from top to bottom.

        A tile touches what its inner square covers. The slices, into `self.grid`, are the same
        in whichever stretch of a lane a row of cells lies.
        """
        first_row, last_row = self._reach(stretch.rows)
        first, last = self._reach(stretch.columns)
        width = self._selected.shape[1]
        for row in range(max(first_row, 0), min(last_row + 1, self._selected.shape[0])):
            ends = row * width + np.array([max(first, 0), min(last + 1, width)])
            start, stop = (int(v) for v in np.searchsorted(self._keys, ends))
            if stop > start:
                yield slice(start, stop)

    def _reach(self, pixels: slice) -> tuple[int, int]:
        """Return the first and last cell, along one axis, whose inner square touches pixels."""
        spec, overhang = self.grid.spec, self.overhang_px
        first = (pixels.start + overhang - spec.inner_px) // spec.stride_px + 1
        return first, (pixels.stop - 1 + overhang) // spec.stride_px

    @property
    def overhang_px(self) -> int:
        """How far the inner square of a tile reaches beyond its cell, at each side."""
        return (self.grid.spec.inner_px - self.grid.spec.stride_px) // 2

    def corner(self, tile: int) -> tuple[int, int]:
        """Return (row, column) of the first pixel of a tile's inner square; may be below 0."""
        row, column = (int(v) * self.grid.spec.stride_px for v in self.grid.cells[tile])
        return row - self.overhang_px, column - self.overhang_px

    def rect_px0(self, bands: Sequence[Band]) -> Rect:
        """Return the smallest rectangle that holds the bands, in level-0 pixels."""
        across, down = self.pixel_px0
        top, left = min(b.rows.start for b in bands), min(b.columns.start for b in bands)
        bottom, right = max(b.rows.stop for b in bands), max(b.columns.stop for b in bands)
        return Rect(left * across, top * down, (right - left) * across, (bottom - top) * down)
