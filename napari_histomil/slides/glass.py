"""A slide as seen from afar: large levels are read smaller than stored, and glass not at all.

To find the tissue of a slide that has no small level, all of it would be decoded, most of which
is glass. How many bytes a tile takes tells glass from tissue, but how many differs from scanner to
scanner: so it is found out on the slide itself. A sample of tiles of every size is decoded; below
the smallest that holds anything, all are taken for glass, except those beside a tile that is not.

This is for overviews only. Nothing that a model looks at is read through it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_histomil.slides.slide import (
    BAND_PX,
    Level,
    Slide,
    SlideInfo,
    Uint8Image,
    check_region,
)
from napari_histomil.slides.tiles import TiledSlide

MIN_TILES = 500
"""Of fewer tiles all are decoded before a sample pays."""

SAMPLES = 48
"""Tiles of a round, spread evenly over those that may still be glass, in order of their bytes."""

ROUNDS = 4
"""Each looks closer at what is below the smallest tile that is not blank."""

LEAST_SHARE = 0.05
"""Where less is glass, nothing is gained."""

GLASS_BRIGHT = 180
GLASS_RANGE = 10
"""Grey levels between the darkest and the brightest place of a blank tile, in each colour."""

GLASS_COLOR = 16
"""Grey levels between the colours of a blank tile's mean."""

EIGHTH = 3
"""Halvings."""


@dataclass(frozen=True, slots=True, eq=False)
class Glass:
    """Where a level holds nothing."""

    tiles: NDArray[np.bool_]
    """[rows, columns]"""
    color: NDArray[np.uint8]
    """[3], of the glass."""


def from_afar(slide: Slide, level: int, shrink: float) -> Slide:
    """Return a slide that is quicker to read whole than this one, for an overview.

    Parameters
    ----------
    slide
        An open slide.
    level
        Which of its levels would be read.
    shrink
        By how much that level will be made smaller.

    Returns
    -------
    Slide
        With one level, which has its pixels averaged, and one colour where there is glass. The
        same slide where it is small or cannot be read otherwise. Closing it does nothing.
    """
    stored = slide.info.levels[level]
    if not isinstance(slide, TiledSlide) or stored.width * stored.height <= BAND_PX:
        return slide
    # At 1/8 a decoder's smaller picture is the mean, else a crisper one; and tiles have to meet.
    whole = stored.tile_width % 8 == stored.tile_height % 8 == 0
    halvings = EIGHTH if whole and shrink >= 8 else 0
    return _Afar(slide, level, halvings, find_glass(slide, level))


def find_glass(slide: TiledSlide, level: int) -> Glass | None:
    """Find the tiles of a level that hold nothing but glass, by the bytes they take.

    Returns
    -------
    Glass
        None where the file does not tell its tiles' bytes, or these do not tell glass.

    Raises
    ------
    SlideError
        If the slide cannot be read.
    """
    stored = slide.tile_bytes(level)
    if stored is None or stored.size < MIN_TILES:
        return None
    order = np.argsort(stored, axis=None, kind="stable")
    sizes = stored.ravel()[order]
    blank: dict[int, NDArray[np.float64] | None] = {}
    end = order.size  # below this place in the order, all tiles of the sample are blank
    for _ in range(ROUNDS):
        for place in np.unique(np.linspace(0, end - 1, SAMPLES).astype(np.int64)).tolist():
            if place not in blank:
                row, column = divmod(int(order[place]), stored.shape[1])
                blank[place] = _color_of_blank(slide, level, row, column)
            if blank[place] is None:
                # Of equally many bytes: where tiles are stored as they are, they tell nothing.
                end = int(np.searchsorted(sizes, sizes[place]))
                break
        if end < LEAST_SHARE * order.size:
            return None
    largest = max(place for place in blank if place < end)
    few = stored <= sizes[largest]
    # What lies beside a tile with something in it may hold a bit of it too little to tell.
    tiles = ~ndimage.binary_dilation(~few, structure=np.ones((3, 3)))
    colors = [color for place, color in blank.items() if place < end and color is not None]
    return Glass(tiles, np.rint(np.median(colors, axis=0)).astype(np.uint8))


def _color_of_blank(
    slide: TiledSlide, level: int, row: int, column: int
) -> NDArray[np.float64] | None:
    """Return the mean colour [3] of a tile that holds nothing; None of any other."""
    tile = slide.tile(level, int(row), int(column), halvings=EIGHTH, keep=False)
    low, high = tile.min(axis=(0, 1)).astype(int), tile.max(axis=(0, 1)).astype(int)
    color: NDArray[np.float64] = tile.mean(axis=(0, 1))
    even = low.min() >= GLASS_BRIGHT and (high - low).max() <= GLASS_RANGE
    return color if even and np.ptp(color) <= GLASS_COLOR else None


class _Afar:
    """One level of a slide at 1 / 2**halvings, without the glass; see `slide.Slide`."""

    def __init__(self, slide: TiledSlide, level: int, halvings: int, glass: Glass | None) -> None:
        self._slide, self._level, self._halvings, self._glass = slide, level, halvings, glass
        stored, factor = slide.info.levels[level], 1 << halvings
        self._one = Level(
            -(-stored.width // factor),
            -(-stored.height // factor),
            stored.downsample * factor,
            stored.tile_width // factor,
            stored.tile_height // factor,
        )

    @property
    def info(self) -> SlideInfo:
        """The slide's facts, with this level alone."""
        return replace(self._slide.info, levels=(self._one,))

    def read_region(
        self, xy_px0: tuple[int, int], level: int, size: tuple[int, int]
    ) -> Uint8Image:
        """Read as `Slide.read_region` says."""
        check_region(self.info, xy_px0, level, size)
        one = self._one
        left, top = (round(value / one.downsample) for value in xy_px0)
        out = np.full((size[1], size[0], 3), 255, np.uint8)
        right, bottom = min(left + size[0], one.width), min(top + size[1], one.height)
        for row in range(max(top, 0) // one.tile_height, -(-bottom // one.tile_height)):
            y = row * one.tile_height
            for column in range(max(left, 0) // one.tile_width, -(-right // one.tile_width)):
                x = column * one.tile_width
                y0, y1 = max(y, top), min(y + one.tile_height, bottom)
                x0, x1 = max(x, left), min(x + one.tile_width, right)
                place = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
                if self._glass is not None and self._glass.tiles[row, column]:
                    out[place] = self._glass.color
                    continue
                tile = self._slide.tile(
                    self._level, row, column, halvings=self._halvings, keep=False
                )
                out[place] = tile[y0 - y : y1 - y, x0 - x : x1 - x]
        return out

    def read_associated(self, name: str) -> Uint8Image:
        """Read as `Slide.read_associated` says."""
        return self._slide.read_associated(name)

    def close(self) -> None:
        """Do nothing: the slide belongs to somebody else."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
