"""Which tiles a job looks at: a regular grid over the slide, and its order.

A grid's unit is the *cell*: the stride square that a tile answers for. Cells begin at the slide's
corner and tile the plane; a tile is centred on its cell and may be larger (context). Outside the
slide is padded with white, so the slide's edges need no resizing. Nothing here reads pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import RunError
from napari_histomil.geometry import Rect
from napari_histomil.slides.slide import SlideInfo

BLOCK_TILES = 64
"""Tiles in a block: the unit of work, of storage (one Zarr chunk) and of resuming."""

MAX_CELLS = 2**25
"""More cells than this are a mistake in µm/px or stride: they would not even fit into memory."""


@dataclass(frozen=True, slots=True)
class GridSpec:
    """Resolution and sizes of a grid, before there is a slide.

    Raises
    ------
    RunError
        If a number is not positive, or the stride is larger than the tile without its margins
        (pixels between tiles would never be looked at).
    """

    mpp: float
    """Resolution of the tiles in µm/px."""
    tile_px: int
    """Side of a tile in pixels at `mpp`."""
    stride_px: int
    """Distance between neighbouring tiles in pixels at `mpp`: the side of a cell."""
    margin_px: int = 0
    """Pixels at each side of a tile that are looked at as context and not answered for."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mpp) and self.mpp > 0):
            raise RunError(f"The resolution of a grid must be above 0 µm/px, not {self.mpp}.")
        if self.tile_px < 1 or self.stride_px < 1:
            raise RunError(
                f"Tile and stride must be at least 1 px, not {self.tile_px} and {self.stride_px}."
            )
        if self.margin_px < 0:
            raise RunError(f"The margin of a tile must be 0 px or more, not {self.margin_px}.")
        if self.stride_px > self.inner_px:
            margins = f" with margins of {self.margin_px} px" if self.margin_px else ""
            raise RunError(
                f"A stride of {self.stride_px} px leaves gaps between tiles of {self.tile_px} px"
                f"{margins}: choose a stride of at most {self.inner_px}."
            )

    @property
    def inner_px(self) -> int:
        """Side of a tile without its margins."""
        return self.tile_px - 2 * self.margin_px

    @property
    def cell_um(self) -> float:
        """Side of a cell in µm."""
        return self.stride_px * self.mpp


@dataclass(frozen=True, slots=True, eq=False)
class TileGrid:
    """The tiles of one slide at one resolution.

    Attributes
    ----------
    spec
        Resolution and sizes.
    slide_mpp
        (x, y) µm per level-0 pixel of the slide.
    slide_size_px0
        (width, height) of the slide in level-0 pixels.
    cells
        int32 [N, 2], (row, column) of each tile's cell; rows go down.
    """

    spec: GridSpec
    slide_mpp: tuple[float, float]
    slide_size_px0: tuple[int, int]
    cells: NDArray[np.int32] = field(repr=False)

    @classmethod
    def cover(cls, info: SlideInfo, spec: GridSpec) -> TileGrid:
        """Return the grid whose cells cover the whole slide, in Morton order.

        Raises
        ------
        MissingMppError
            If the slide's µm/px are unknown.
        RunError
            If there would be more than `MAX_CELLS` cells.
        """
        size = (info.width_px0, info.height_px0)
        empty = cls(spec, info.mpp_xy, size, np.empty((0, 2), np.int32))
        rows, columns = empty.shape
        if rows * columns > MAX_CELLS:
            raise RunError(
                f"{info.path.name} at {info.mpp_xy[0]:g} µm/px has {rows * columns:.2g} tiles "
                f"{spec.cell_um:g} µm apart, more than can be worked on: choose a larger stride, "
                f"or check the slide's µm/px."
            )
        cells = np.indices((rows, columns), dtype=np.int32).reshape(2, -1).T
        return replace(empty, cells=cells[np.argsort(morton(cells), kind="stable")])

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def cell_size_px0(self) -> tuple[float, float]:
        """(width, height) of a cell in level-0 pixels; not rounded."""
        return (
            self.spec.stride_px * self.spec.mpp / self.slide_mpp[0],
            self.spec.stride_px * self.spec.mpp / self.slide_mpp[1],
        )

    @property
    def tile_size_px0(self) -> tuple[float, float]:
        """(width, height) of a tile's footprint in level-0 pixels; not rounded."""
        return (
            self.spec.tile_px * self.spec.mpp / self.slide_mpp[0],
            self.spec.tile_px * self.spec.mpp / self.slide_mpp[1],
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of cells that cover the slide: the shape of a heatmap."""
        width, height = self.cell_size_px0
        # A cell that would hold less than a millionth of its width is rounding, not slide.
        return (
            max(math.ceil(self.slide_size_px0[1] / height - 1e-6), 1),
            max(math.ceil(self.slide_size_px0[0] / width - 1e-6), 1),
        )

    @property
    def cell_rects_px0(self) -> NDArray[np.float64]:
        """float64 [N, 4]: x, y, width, height of each cell in level-0 pixels."""
        width, height = self.cell_size_px0
        corners = self.cells[:, ::-1] * np.array([width, height])
        return np.column_stack([corners, np.full((len(self), 2), (width, height))])

    @property
    def tile_rects_px0(self) -> NDArray[np.float64]:
        """float64 [N, 4]: x, y, width, height of each tile's footprint in level-0 pixels."""
        cell, tile = np.array(self.cell_size_px0), np.array(self.tile_size_px0)
        corners = self.cells[:, ::-1] * cell - (tile - cell) / 2
        return np.column_stack([corners, np.full((len(self), 2), tile)])

    @property
    def xy_px0(self) -> NDArray[np.int64]:
        """int64 [N, 2]: (x, y) of each tile's footprint, rounded: what files of others hold."""
        return np.rint(self.tile_rects_px0[:, :2]).astype(np.int64)

    @property
    def visible_fraction(self) -> NDArray[np.float64]:
        """float64 [N]: how much of each cell lies on the slide, 0 to 1."""
        rects = self.cell_rects_px0
        size = np.array(self.slide_size_px0, float)
        inside = np.clip(rects[:, :2] + rects[:, 2:], 0, size) - np.clip(rects[:, :2], 0, size)
        fraction: NDArray[np.float64] = inside.prod(axis=1) / rects[:, 2:].prod(axis=1)
        return fraction

    @property
    def cell_area_um2(self) -> float:
        """Area of a whole cell in µm²."""
        return self.spec.cell_um**2

    def select(self, keep: NDArray[np.bool_]) -> TileGrid:
        """Return the grid with only the tiles where `keep` (bool [N]) is true, order kept."""
        return replace(self, cells=self.cells[keep])

    def blocks(self) -> Iterator[slice]:
        """Yield the slices of `cells` that are worked on and stored together."""
        for start in range(0, len(self), BLOCK_TILES):
            yield slice(start, min(start + BLOCK_TILES, len(self)))

    def bounding_rect_px0(self, tiles: slice) -> Rect:
        """Return the smallest rectangle that holds the cells of `tiles`."""
        rects = replace(self, cells=self.cells[tiles]).cell_rects_px0
        x0, y0 = rects[:, :2].min(axis=0)
        x1, y1 = (rects[:, :2] + rects[:, 2:]).max(axis=0)
        return Rect(float(x0), float(y0), float(x1 - x0), float(y1 - y0))


def children_a_side(coarse: GridSpec, fine: GridSpec) -> int:
    """Return how many cells of a fine grid lie along the side of a cell of a coarse one.

    Raises
    ------
    RunError
        If cells of the fine grid would lie across the edge of one of the coarse.
    """
    ratio = coarse.cell_um / fine.cell_um
    sides = round(ratio)
    if sides < 1 or abs(ratio - sides) > 1e-6 * ratio:
        raise RunError(
            f"Tiles {fine.cell_um:g} µm apart ({fine.mpp:g} µm/px) do not divide those "
            f"{coarse.cell_um:g} µm apart ({coarse.mpp:g} µm/px): choose resolutions that are "
            f"whole multiples of the finest."
        )
    return sides


def any_within(
    mask: NDArray[np.bool_],
    pixel_px0: tuple[float, float],
    rects_px0: NDArray[np.float64],
    margin_px0: NDArray[np.float64] | float = 0.0,
) -> NDArray[np.bool_]:
    """Bool [N]: whether some pixel of a mask lies, in part, in a rectangle.

    Parameters
    ----------
    mask
        bool [rows, columns], from the slide's corner on.
    pixel_px0
        (width, height) of one of its pixels in level-0 pixels.
    rects_px0
        float64 [N, 4]: x, y, width, height.
    margin_px0
        Along (x, y): each rectangle reaches so much farther at each side.
    """
    size = np.array(pixel_px0)
    low = (rects_px0[:, :2] - margin_px0) / size
    high = (rects_px0[:, :2] + rects_px0[:, 2:] + margin_px0) / size
    most = np.array(mask.shape[::-1])
    # Less than a millionth of a pixel is rounding.
    first = np.clip(np.floor(low + 1e-6), 0, most).astype(np.int64)
    stop = np.clip(np.ceil(high - 1e-6), first, most).astype(np.int64)
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    np.cumsum(np.cumsum(mask, axis=0, dtype=np.int64), axis=1, out=sums[1:, 1:])
    (x0, y0), (x1, y1) = first.T, stop.T
    found: NDArray[np.bool_] = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0] > 0
    return found


def morton(cells: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Return each cell's place on the Z-order curve, so that sorted cells are neighbours.

    Parameters
    ----------
    cells
        int32 [N, 2], (row, column), both below 2^31.

    Returns
    -------
    uint64 [N]

    References
    ----------
    Morton, G. M. (1966). A computer oriented geodetic data base.
    """
    return _spread(cells[:, 1]) | (_spread(cells[:, 0]) << np.uint64(1))


def _spread(values: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Put a zero between any two bits of each value."""
    bits = values.astype(np.uint64)
    for shift, mask in (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ):
        bits = (bits | (bits << np.uint64(shift))) & np.uint64(mask)
    return bits
