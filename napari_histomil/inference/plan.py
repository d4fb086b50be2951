"""Which tiles of a slide a job looks at, and in which order its blocks are worked on."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from napari_histomil.errors import RunError
from napari_histomil.geometry import Rect
from napari_histomil.inference.job import Job, RegionSpec
from napari_histomil.slides.slide import Slide
from napari_histomil.tiling import GridSpec, TileGrid, children_a_side, morton
from napari_histomil.tissue import find_tissue

Near = Callable[[], tuple[float, float] | None]
"""Gives the (x, y) in level-0 px that a person looks at; asked from several threads."""


def select_tiles(slide: Slide, job: Job) -> TileGrid:
    """Return the tiles that a job looks at, in Morton order.

    Raises
    ------
    RunError
        If there is none: the sentence says what to choose instead.
    """
    if len(job.grids) > 1:
        return _children(slide, job)
    grid = TileGrid.cover(slide.info, job.grids[0])
    fraction = _region_fraction(slide, grid, job.region)
    keep = (fraction > 0) & (fraction >= job.region.min_fraction)
    if not keep.any():
        raise RunError(_nothing(slide.info.path.name, job.region, job.grids[0]))
    return grid.select(keep)


def _children(slide: Slide, job: Job) -> TileGrid:
    """Return all tiles of the first grid that lie within those that the last one looks at."""
    fine, coarse = job.grids
    parents = select_tiles(slide, replace(job, grids=(coarse,)))
    sides = children_a_side(coarse, fine)
    inside = np.indices((sides, sides), dtype=np.int32).reshape(2, -1).T
    cells = (parents.cells[:, None] * np.int32(sides) + inside).reshape(-1, 2)
    cells = cells[np.argsort(morton(cells), kind="stable")]
    return replace(parents, spec=fine, cells=cells)


def _region_fraction(slide: Slide, grid: TileGrid, region: RegionSpec) -> NDArray[np.float64]:
    """float64 [N]: the share of each cell that the region covers."""
    rects = grid.cell_rects_px0
    if region.kind == "all":
        # every cell touches the slide; an edge cell is looked at however little it holds
        return np.ones(len(grid))
    if region.kind == "tissue":
        return np.asarray(find_tissue(slide).fraction(rects), float)
    area = rects[:, 2] * rects[:, 3]
    if region.rect_px0 is not None:
        low, high = rects[:, :2], rects[:, :2] + rects[:, 2:]
        box = region.rect_px0
        inside = np.minimum(high, (box.right_px0, box.bottom_px0)) - np.maximum(
            low, (box.x_px0, box.y_px0)
        )
        covered: NDArray[np.float64] = np.clip(inside, 0, None).prod(axis=1)
        return covered / area
    return _polygon_area(rects, region.polygons_wkt) / area


def _polygon_area(rects: NDArray[np.float64], wkt: tuple[str, ...]) -> NDArray[np.float64]:
    """float64 [N]: the area of each rectangle that the union of the polygons covers, px0²."""
    try:
        union = shapely.union_all(shapely.make_valid(shapely.from_wkt(list(wkt))))
    except shapely.errors.GEOSException as error:
        raise RunError(f"The region's polygons cannot be used: {error}.") from error
    shapely.prepare(union)
    x, y = rects[:, 0], rects[:, 1]
    boxes = shapely.box(x, y, x + rects[:, 2], y + rects[:, 3])
    area = np.where(shapely.contains_properly(union, boxes), rects[:, 2] * rects[:, 3], 0.0)
    edge = shapely.intersects(union, boxes) & (area == 0)
    area[edge] = shapely.area(shapely.intersection(union, boxes[edge]))
    return area


def _nothing(slide: str, region: RegionSpec, spec: GridSpec) -> str:
    if region.kind == "tissue":
        return (
            f"No tissue was found on {slide} that fills {region.min_fraction:.0%} of a tile of "
            f"{spec.cell_um:g} µm: look at the whole slide with --region all, or select a region."
        )
    return (
        f"The region covers {region.min_fraction:.0%} of no tile of {spec.cell_um:g} µm on "
        f"{slide}: choose a larger region, or one that lies on the slide."
    )


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a block: what one thread reads and predicts at a time."""

    block: int
    """Of a segmentation: its place in the order of stitching."""
    tiles: slice
    """Into the grid."""

    @property
    def count(self) -> int:
        """Number of tiles."""
        return int(self.tiles.stop - self.tiles.start)


class Plan:
    """Hands out the pieces of the blocks that are not done; safe to use from several threads.

    Where `near` says what a person looks at, the block nearest to it comes next, asked anew for
    every block; otherwise blocks come in Morton order. A piece always holds the same tiles, in
    whatever order blocks come and wherever a run was interrupted: so batches, and with them the
    last bit of every score, stay the same.
    """

    def __init__(
        self, grid: TileGrid, done: NDArray[np.bool_], *, piece_tiles: int, near: Near | None
    ) -> None:
        rects = [grid.bounding_rect_px0(tiles) for tiles in grid.blocks()]
        self._centers = np.array([rect.center_px0 for rect in rects])  # [B, 2]
        self._slices = list(grid.blocks())
        self._left = ~done
        self._piece_tiles = piece_tiles
        self._near = near
        self._pieces: deque[Piece] = deque()
        self._mutex = threading.Lock()

    def take(self) -> Piece | None:
        """Return the next piece, or None when there is none left."""
        with self._mutex:
            if not self._pieces:
                block = self._next_block()
                if block is None:
                    return None
                self._left[block] = False
                self._pieces.extend(pieces(block, self._slices[block], self._piece_tiles))
            return self._pieces.popleft()

    def _next_block(self) -> int | None:
        left = np.flatnonzero(self._left)
        if len(left) == 0:
            return None
        point = self._near() if self._near is not None else None
        if point is None:
            return int(left[0])
        distance = np.square(self._centers[left] - point).sum(axis=1)
        return int(left[distance.argmin()])


def pieces(block: int, tiles: slice, piece_tiles: int) -> list[Piece]:
    """Cut a block into pieces of at most `piece_tiles` tiles."""
    starts = range(tiles.start, tiles.stop, piece_tiles)
    return [Piece(block, slice(s, min(s + piece_tiles, tiles.stop))) for s in starts]


def spread_tiles(grid: TileGrid, count: int) -> NDArray[np.int64]:
    """Return the indices of up to `count` tiles, spread evenly over the grid's order."""
    count = min(count, len(grid))
    return np.unique(np.linspace(0, len(grid) - 1, count).round().astype(np.int64))


def whole_rect_px0(grid: TileGrid) -> Rect:
    """Return the rectangle that holds every cell of the grid."""
    return grid.bounding_rect_px0(slice(0, len(grid)))
