"""A slide as a viewer wants it: every power of two from level 0 down to about 100 px.

Scanners store every second or fourth of these levels, or one only; the missing ones are made here.

1. Level k has the shape ``padded >> k``; level 0 is padded with white to a multiple of 2^n.
   A viewer takes the ratio of two shapes as the factor between levels, and so it is exactly 2.
2. A power of two that the file stores is read as it is.
3. Where the file stores a level between this power and the next finer one, it is area-averaged
   from that (scanners write 4.0003 where they mean 4, or steps of 3).
4. Otherwise a pixel is the mean of 2 x 2 pixels of the next finer level, halves rounded up.
5. Levels coarser than everything stored are kept in memory as far as they are small, made
   once, in blocks, when one of them is first read.

Reads are synchronous: `Pyramid.read` is the one place through which all pixels go.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from types import EllipsisType
from typing import Any

import numpy as np

from napari_histomil.slides.cache import TileCache, shared_cache
from napari_histomil.slides.resample import reduce_whole
from napari_histomil.slides.slide import Slide, Uint8Image, read_rect
from napari_histomil.slides.tiles import WHITE, TiledSlide

SMALLEST_PX = 128
"""The longer side of the coarsest level is at most this and at least half of it.

A viewer reads that level at once and keeps it, so it must be small; but each further halving
doubles the white that pads level 0, here to at most a 64th of the longer side.
"""

CHUNK_PX = 512
OVERVIEW_PX = 1 << 24
"""Levels of up to this many pixels (48 MiB) are kept if they are coarser than what is stored."""

BLOCK_PX = 2048
"""Side of the blocks in which the stored pixels are gone through once for the overview."""

BLOCK_THREADS = 4

MADE_BUDGET_BYTES = 256 << 20
"""For the pixels of levels that are made here."""

NEAR = 1.05
"""A stored level up to this much coarser than a power of two stands for it."""

Read = Callable[[int, int, int, int], Uint8Image]
"""(x, y, width, height) in pixels of a level -> uint8 [height, width, 3]."""


class LevelArray:
    """One level as an array that is read when it is sliced; it holds no pixels.

    Attributes
    ----------
    shape
        (height, width, 3).
    chunks
        Size of the pieces that are quick to read, for each axis.
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, pyramid: Pyramid, index: int) -> None:
        width, height = pyramid.size(index)
        self._pyramid = pyramid
        self._index = index
        self.shape = (height, width, 3)
        self.size = height * width * 3
        self.chunks = (*pyramid.chunk(index), 3)

    def __getitem__(self, key: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return the pixels of slices with any positive step, of ints, and of an ellipsis."""
        keys = _full_key(key, self.ndim)
        (y0, y1, rest_y), (x0, x1, rest_x), (c0, c1, rest_c) = (
            _span(part, size) for part, size in zip(keys, self.shape, strict=True)
        )
        pixels = self._pyramid.read(self._index, x0, y0, x1 - x0, y1 - y0)
        part: np.ndarray[Any, np.dtype[np.uint8]] = pixels[:, :, c0:c1][rest_y, rest_x, rest_c]
        return part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        pixels = self[...]
        return pixels if dtype is None else pixels.astype(dtype, copy=bool(copy))

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<level {self._index} of {self._pyramid.name}: {self.shape}>"


def levels(slide: Slide, made: TileCache | None = None) -> list[LevelArray]:
    """Return the slide's levels, finest first, each half as large as the one before.

    They stay usable until the slide is closed. Level k's pixel (row, col) spans level-0 pixels
    [col * 2^k, (col + 1) * 2^k) along x and the same along y.
    """
    pyramid = Pyramid(slide, made if made is not None else _shared_made())
    return [LevelArray(pyramid, index) for index in range(pyramid.count)]


@cache
def _shared_made() -> TileCache:
    """Return the process's one cache of made pixels.

    It is not the cache of decoded tiles: those come in such numbers that they would push out
    the few pixels that were made of them.
    """
    return TileCache(MADE_BUDGET_BYTES)


class Pyramid:
    """Reads rectangles of every power of two; see the module's five points."""

    def __init__(self, slide: Slide, made: TileCache) -> None:
        info = slide.info
        longer = max(info.width_px0, info.height_px0)
        halvings = max(math.ceil(math.log2(longer / SMALLEST_PX)), 0)
        self.name = info.path.name
        self.count = halvings + 1
        self._padded = tuple(
            -(-size // (1 << halvings)) << halvings for size in (info.width_px0, info.height_px0)
        )
        self._slide = slide
        self._made = made
        self._owner = ("levels", info.path, info.fingerprint)
        for chunks in (made, shared_cache()):
            chunks.acquire(self._owner)
            weakref.finalize(self, chunks.release, self._owner)
        self._stored = [_stored_level(slide, index) for index in range(self.count)]
        self._reads = [self._reader(index) for index in range(self.count)]
        # The coarsest power that is not simply half of the one before.
        self._source = max(k for k in range(self.count) if not self._is_half(k))
        in_memory = (
            k
            for k in range(self._source + 1, self.count)
            if math.prod(self.size(k)) <= OVERVIEW_PX
        )
        self._first_kept = next(in_memory, self.count)
        self._kept: list[Uint8Image] = []
        self._building = threading.Lock()

    def size(self, index: int) -> tuple[int, int]:
        """Return (width, height) of a level."""
        return self._padded[0] >> index, self._padded[1] >> index

    def chunk(self, index: int) -> tuple[int, int]:
        """Return (height, width) of the pieces of a level that are quick to read."""
        stored = self._stored[index]
        if stored is not None and isinstance(self._slide, TiledSlide):
            level = self._slide.info.levels[stored]
            if level.tile_width == level.tile_height <= CHUNK_PX:
                side = level.tile_width * (CHUNK_PX // level.tile_width)
                return side, side
        return CHUNK_PX, CHUNK_PX

    def read(self, index: int, x: int, y: int, width: int, height: int) -> Uint8Image:
        """Read a rectangle that lies within a level, in that level's pixels."""
        if index >= self._first_kept:
            kept = self._overview()[index - self._first_kept]
            return kept[y : y + height, x : x + width].copy()
        return self._reads[index](x, y, width, height)

    def _is_half(self, index: int) -> bool:
        return self._stored[index] is None and not _has_between(self._slide, index)

    def _reader(self, index: int) -> Read:
        """Return the way to a level's pixels."""
        stored = self._stored[index]
        if stored is not None:
            downsample = self._slide.info.levels[stored].downsample

            def read_stored(x: int, y: int, width: int, height: int) -> Uint8Image:
                corner = round(x * downsample), round(y * downsample)
                return self._slide.read_region(corner, stored, (width, height))

            if isinstance(self._slide, TiledSlide):
                return read_stored  # its tiles are cached already
            return self._cached(shared_cache(), index, read_stored)
        if _has_between(self._slide, index):

            def read_between(x: int, y: int, width: int, height: int) -> Uint8Image:
                x0, y0, w0, h0 = (value << index for value in (x, y, width, height))
                return np.array(read_rect(self._slide, (x0, y0), (w0, h0), (width, height)))

            return self._cached(self._made, index, read_between)

        source = max(k for k in range(index) if not self._is_half(k))
        return self._cached(self._made, index, partial(self._halved, index, source))

    def _halved(
        self, index: int, source: int, x: int, y: int, width: int, height: int
    ) -> Uint8Image:
        """Make a rectangle of a level from the finer level `source`, block by block.

        The levels between are not kept: one view of a coarse level would push everything else
        out of the cache.
        """
        halvings = index - source
        side = max(BLOCK_PX >> halvings, 1)
        slide_width, slide_height = (
            -(-size >> index) for size in (self._slide.info.width_px0, self._slide.info.height_px0)
        )
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

    def _cached(self, chunks: TileCache, index: int, read: Read) -> Read:
        """Return a reader that puts rectangles together from chunks of `read`, kept there."""
        level_width, level_height = self.size(index)

        def chunk(row: int, column: int) -> Uint8Image:
            x, y = column * CHUNK_PX, row * CHUNK_PX
            size = min(CHUNK_PX, level_width - x), min(CHUNK_PX, level_height - y)
            return chunks.get((self._owner, index, row, column), lambda: read(x, y, *size))

        def read_cached(x: int, y: int, width: int, height: int) -> Uint8Image:
            out = np.empty((height, width, 3), np.uint8)
            for row in range(y // CHUNK_PX, -(-(y + height) // CHUNK_PX) if width else 0):
                top = row * CHUNK_PX
                ya, yb = max(y, top), min(y + height, top + CHUNK_PX)
                for column in range(x // CHUNK_PX, -(-(x + width) // CHUNK_PX)):
                    left = column * CHUNK_PX
                    xa, xb = max(x, left), min(x + width, left + CHUNK_PX)
                    out[ya - y : yb - y, xa - x : xb - x] = chunk(row, column)[
                        ya - top : yb - top, xa - left : xb - left
                    ]
            return out

        return read_cached

    def _overview(self) -> list[Uint8Image]:
        """Return the levels kept in memory; whoever comes first makes them."""
        with self._building:
            if not self._kept:
                kept = [self._build(self._first_kept)]
                while len(kept) < self.count - self._first_kept:
                    kept.append(halve(kept[-1]))
                self._kept = kept
            return self._kept

    def _build(self, index: int) -> Uint8Image:
        """Make a whole level from the coarsest source, each of whose pixels is read once."""
        side = max(BLOCK_PX >> (index - self._source), 1)
        width, height = self.size(index)
        out = np.empty((height, width, 3), np.uint8)

        def fill(corner: tuple[int, int]) -> None:
            x, y = corner
            size = min(side, width - x), min(side, height - y)
            out[y : y + size[1], x : x + size[0]] = self._halved(index, self._source, x, y, *size)

        corners = [(x, y) for y in range(0, height, side) for x in range(0, width, side)]
        with ThreadPoolExecutor(BLOCK_THREADS, "overview") as pool:
            for _ in pool.map(fill, corners):
                pass  # the first error comes out here
        return out


def halve(image: Uint8Image) -> Uint8Image:
    """Return the means of 2 x 2 pixels, halves rounded up; both sides must be even."""
    return reduce_whole(image, 2)


def _stored_level(slide: Slide, index: int) -> int | None:
    """Return the slide's level that is this power of two to the pixel, or None.

    Its size must be the slide's divided by the power, rounded up or down: scanners do either.
    """
    info = slide.info
    for number, level in enumerate(info.levels):
        exact = (
            abs(size0 / (1 << index) - size) < 1
            for size0, size in ((info.width_px0, level.width), (info.height_px0, level.height))
        )
        # Tiny levels fit several powers: the one that the downsample is nearest to counts.
        if all(exact) and round(math.log2(level.downsample)) == index:
            return number
    return None


def _has_between(slide: Slide, index: int) -> bool:
    """Say whether a stored level lies between this power of two and the next finer one."""
    power = 1 << index
    return any(power / 2 * NEAR < factor <= power * NEAR for factor in slide.info.downsamples)


def _full_key(key: Any, ndim: int) -> list[Any]:
    """Return one index for each axis."""
    keys = list(key) if isinstance(key, tuple) else [key]
    if any(isinstance(part, EllipsisType) for part in keys):
        at = next(i for i, part in enumerate(keys) if isinstance(part, EllipsisType))
        keys[at : at + 1] = [slice(None)] * (ndim - len(keys) + 1)
    keys += [slice(None)] * (ndim - len(keys))
    if len(keys) != ndim:
        raise IndexError(f"A level has {ndim} axes, not {len(keys)}.")
    return keys


def _span(key: Any, size: int) -> tuple[int, int, int | slice]:
    """Return what to read of an axis, [start, stop), and what to take of that."""
    if isinstance(key, slice):
        start, stop, step = key.indices(size)
        if step < 1:
            raise IndexError("A level is read forwards: the step must be 1 or more.")
        return start, max(stop, start), slice(None, None, step)
    try:
        index = range(size)[key]
    except TypeError as error:
        raise IndexError(f"A level is indexed with slices and ints, not {key!r}.") from error
    return index, index + 1, 0
