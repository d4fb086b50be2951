"""Exact pixels of each power of two of a slide: read where they are stored, made where not.

The points 1 to 5 are those of `pyramid.py`. Everybody who calls here waits.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial

import numpy as np

from napari_histomil.slides.cache import TileCache, shared_cache
from napari_histomil.slides.pieces import CHUNK_PX
from napari_histomil.slides.powers import Powers
from napari_histomil.slides.resample import reduce_whole
from napari_histomil.slides.slide import Slide, Uint8Image, read_rect
from napari_histomil.slides.tiles import WHITE, TiledSlide

BLOCK_PX = 2048
"""Side of the blocks in which the stored pixels are gone through once for the overview."""

Read = Callable[[int, int, int, int], Uint8Image]
"""(x, y, width, height) in pixels of a level -> uint8 [height, width, 3]."""


class ExactLevels:
    """Reads any rectangle of any level.

    Parameters
    ----------
    slide, powers
        The slide, and which levels it has.
    made
        Where chunks of made levels are kept.
    owner
        Whose these chunks are.
    """

    def __init__(self, slide: Slide, powers: Powers, made: TileCache, owner: Hashable) -> None:
        self._slide = slide
        self._powers = powers
        self._made = made
        self._owner = owner
        self._reads = [self._reader(index) for index in range(powers.count)]

    def read(self, index: int, x: int, y: int, width: int, height: int) -> Uint8Image:
        """Read a rectangle that lies within a level, by way of the caches."""
        return self._reads[index](x, y, width, height)

    def uncached(self, index: int, x: int, y: int, width: int, height: int) -> Uint8Image:
        """Read a rectangle of a level from what it is made of."""
        source = self._powers.sources[index]
        if source < index:
            return self.halved(index, source, x, y, width, height)
        stored = self._powers.stored[index]
        if stored is None:
            x0, y0, w0, h0 = (value << index for value in (x, y, width, height))
            return np.array(read_rect(self._slide, (x0, y0), (w0, h0), (width, height)))
        downsample = self._slide.info.levels[stored].downsample
        corner = round(x * downsample), round(y * downsample)
        return self._slide.read_region(corner, stored, (width, height))

    def chunks(self, index: int) -> TileCache:
        """Return where the chunks of a level are kept."""
        return self._made if self._powers.stored[index] is None else shared_cache()

    def chunk_key(self, index: int, row: int, column: int) -> tuple[Hashable, ...]:
        """Return the key of a chunk in its cache."""
        return self._owner, index, row, column

    def chunk(self, index: int, row: int, column: int) -> Uint8Image:
        """Return a square of `CHUNK_PX` of a level, by way of its cache; shared, read-only."""
        x, y = column * CHUNK_PX, row * CHUNK_PX
        level_width, level_height = self._powers.size(index)
        size = min(CHUNK_PX, level_width - x), min(CHUNK_PX, level_height - y)
        return self.chunks(index).get(
            self.chunk_key(index, row, column), lambda: self.uncached(index, x, y, *size)
        )

    def block_px(self, index: int) -> int:
        """Return the side of the blocks in which a level is gone through once."""
        return max(BLOCK_PX >> max(index - self._powers.sources[index], 1), 1)

    def _reader(self, index: int) -> Read:
        """Return the way to a level's exact pixels."""
        stored = self._powers.stored[index]
        if stored is not None and isinstance(self._slide, TiledSlide):
            return partial(self.uncached, index)  # its tiles are cached already

        def read_cached(x: int, y: int, width: int, height: int) -> Uint8Image:
            out = np.empty((height, width, 3), np.uint8)
            for row in range(y // CHUNK_PX, -(-(y + height) // CHUNK_PX) if width else 0):
                top = row * CHUNK_PX
                ya, yb = max(y, top), min(y + height, top + CHUNK_PX)
                for column in range(x // CHUNK_PX, -(-(x + width) // CHUNK_PX)):
                    left = column * CHUNK_PX
                    xa, xb = max(x, left), min(x + width, left + CHUNK_PX)
                    out[ya - y : yb - y, xa - x : xb - x] = self.chunk(index, row, column)[
                        ya - top : yb - top, xa - left : xb - left
                    ]
            return out

        return read_cached

    def halved(
        self, index: int, source: int, x: int, y: int, width: int, height: int
    ) -> Uint8Image:
        """Make a rectangle of a level from the finer level `source`, block by block.

        The levels between are not kept: one view of a coarse level would push everything else
        out of the cache.
        """
        halvings = index - source
        side = max(BLOCK_PX >> halvings, 1)
        slide_width, slide_height = self._powers.inside(index)
        out = np.full((height, width, 3), WHITE, np.uint8)
        for top in range(y, min(y + height, slide_height), side):
            for left in range(x, min(x + width, slide_width), side):
                size = min(side, x + width - left), min(side, y + height - top)
                block = self._reads[source](
                    left << halvings, top << halvings, size[0] << halvings, size[1] << halvings
                )
                for _ in range(halvings):
                    block = halve(block)
                out[top - y : top - y + size[1], left - x : left - x + size[0]] = block
        return out


def halve(image: Uint8Image) -> Uint8Image:
    """Return the means of 2 x 2 pixels, halves rounded up; both sides must be even."""
    return reduce_whole(image, 2)
