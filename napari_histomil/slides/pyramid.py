"""A slide as a viewer wants it: every power of two from level 0 down to about 100 px.

Scanners store every second or fourth of these levels, or one only; the missing ones are made here.

1. Level k has the shape ``padded >> k``; level 0 is padded with white to a multiple of 2^n.
   A viewer takes the ratio of two shapes as the factor between levels, and so it is exactly 2.
2. A power of two that the file stores is read as it is.
3. Where the file stores a level between this power and the next finer one, it is area-averaged
   from that (scanners write 4.0003 where they mean 4, or steps of 3).
4. Otherwise a pixel is the mean of 2 x 2 pixels of the next finer level, halves rounded up.
5. Levels coarser than everything stored are kept in memory as far as they are small
   (`overview.py`), together with all levels that are very small.

`Pyramid.read` waits for exact pixels; `Pyramid.paint` never waits: it shows what is there, else
what a coarser level has, and lets the loader fetch the rest (`look.py`). Painted and kept pixels
of made levels come from a decoder's own smaller pictures of the stored tiles, where it makes such.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from types import EllipsisType
from typing import Any

import numpy as np
from PIL import Image

from napari_histomil.slides.cache import TileCache, shared_cache
from napari_histomil.slides.loader import Loader, shared_loader
from napari_histomil.slides.look import Look
from napari_histomil.slides.overview import Overview
from napari_histomil.slides.overview_source import overview_source
from napari_histomil.slides.pieces import (
    CHUNK_PX,
    Pieces,
    are_pieces,
    halved_pieces,
    halves_exactly,
    stored_pieces,
)
from napari_histomil.slides.resample import reduce_whole
from napari_histomil.slides.slide import Slide, Uint8Image, read_rect
from napari_histomil.slides.tiles import WHITE, TiledSlide

_log = logging.getLogger(__name__)

SMALLEST_PX = 128
"""The longer side of the coarsest level is at most this and at least half of it.

A viewer reads that level at once and keeps it, so it must be small; but each further halving
doubles the white that pads level 0, here to at most a 64th of the longer side.
"""

OVERVIEW_PX = 1 << 24
"""Levels of up to this many pixels (48 MiB) are kept if they are coarser than what is stored."""

SMALL_PX = 1 << 20
"""Levels of up to this many pixels (3 MiB) are kept although they are stored."""

SNAP_PX = 128
"""The viewer's rectangles of a level are rounded out to multiples of this.

A short pan then needs no new pixels; much more would have the viewer draw what nobody sees.
"""

BLOCK_PX = 2048
"""Side of the blocks in which the stored pixels are gone through once for the overview."""

NEAR = 1.05
"""A stored level up to this much coarser than a power of two stands for it."""

VIEWER = "napari.layers."
"""Modules of the viewer that slice levels in order to show them."""

Read = Callable[[int, int, int, int], Uint8Image]
"""(x, y, width, height) in pixels of a level -> uint8 [height, width, 3]."""


class LevelArray:
    """One level as an array that is read when it is sliced; it holds no pixels.

    Whoever slices it waits for exact pixels. Only the viewer itself, while a `Look` is set, gets
    what there is at once; and it never waits for the coarsest level, which it keeps.

    Attributes
    ----------
    shape
        (height, width, 3).
    chunks
        What the viewer rounds its rectangles out to, for each axis.
    look
        Paints for the viewer; None where it waits like everybody else.
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, pyramid: Pyramid, index: int) -> None:
        width, height = pyramid.size(index)
        self.pyramid = pyramid
        self.look: Look | None = None
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
        area = x0, y0, x1 - x0, y1 - y0
        if self.look is not None and _called_by_viewer():
            pixels, _ = self.look.paint(self._index, *area)
        else:
            pixels = self.pyramid.read(self._index, *area)
        part: np.ndarray[Any, np.dtype[np.uint8]] = pixels[:, :, c0:c1][rest_y, rest_x, rest_c]
        return part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        overview = self.pyramid.overview
        live = self.look is not None and self._index >= overview.first
        if live and not copy and _called_by_viewer():
            # The viewer keeps the coarsest level for good: it gets what grows by itself.
            overview.start(self.pyramid.loader)
            pixels = overview.levels[self._index - overview.first]
        else:
            pixels = self.pyramid.read(self._index, 0, 0, self.shape[1], self.shape[0])
        return pixels if dtype is None else pixels.astype(dtype, copy=bool(copy))

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<level {self._index} of {self.pyramid.name}: {self.shape}>"


def _called_by_viewer() -> bool:
    """Say whether the function that calls this was called by the viewer's slicing."""
    caller = sys._getframe(2).f_globals.get("__name__", "")
    return caller.startswith(VIEWER) and not caller.startswith(VIEWER + "utils")


def levels(slide: Slide, made: TileCache | None = None) -> list[LevelArray]:
    """Return the slide's levels, finest first, each half as large as the one before.

    They stay usable until the slide is closed. Level k's pixel (row, col) spans level-0 pixels
    [col * 2^k, (col + 1) * 2^k) along x and the same along y.

    Parameters
    ----------
    made
        Where the pixels of made levels are kept; the shared cache by default.
    """
    return Pyramid(slide, made if made is not None else shared_cache()).arrays()


class Pyramid:
    """Pixels of every power of two; see the module's five points.

    Attributes
    ----------
    count
        Number of levels.
    overview
        The levels kept in memory, from ``overview.first`` on.
    pieces
        How each of the other levels is fetched.
    trouble
        The first error that was met while something was fetched to be shown, or None.
    """

    def __init__(self, slide: Slide, made: TileCache, *, loader: Loader | None = None) -> None:
        info = slide.info
        longer = max(info.width_px0, info.height_px0)
        halvings = max(math.ceil(math.log2(longer / SMALLEST_PX)), 0)
        self.name = info.path.name
        self.count = halvings + 1
        self.slide = slide
        self.loader = loader if loader is not None else shared_loader()
        self._padded = tuple(
            -(-size // (1 << halvings)) << halvings for size in (info.width_px0, info.height_px0)
        )
        self._made = made
        self._owner = ("levels", info.path, info.fingerprint, info.reader, info.icc_applied)
        self._closing = weakref.finalize(self, _release, (made, shared_cache()), self._owner)
        for chunks in (made, shared_cache()):
            chunks.acquire(self._owner)
        self.closed = False
        self.trouble: Exception | None = None
        self._stored = [_stored_level(slide, index) for index in range(self.count)]
        self._sources = [self._source(index) for index in range(self.count)]
        self._reads = [self._reader(index) for index in range(self.count)]
        first = self._first_kept()
        self.overview = Overview(
            first,
            [self.size(index) for index in range(first, self.count)],
            self.inside(first),
            overview_source(self, first),
        )
        self.pieces = [self._pieces(index) for index in range(first)]
        self._look: Look | None = None
        self._looking = threading.Lock()

    # --- geometry ---

    def size(self, index: int) -> tuple[int, int]:
        """Return (width, height) of a level."""
        return self._padded[0] >> index, self._padded[1] >> index

    def inside(self, index: int) -> tuple[int, int]:
        """Return (width, height) of the slide itself in a level; white lies beyond."""
        info = self.slide.info
        return -(-info.width_px0 >> index), -(-info.height_px0 >> index)

    def chunk(self, _index: int) -> tuple[int, int]:
        """Return (height, width) that the viewer's rectangles of a level are rounded out to."""
        return SNAP_PX, SNAP_PX

    def stored(self, index: int) -> int | None:
        """Return the number of the slide's level that is this power of two, or None."""
        return self._stored[index]

    def source(self, index: int) -> int:
        """Return the level that this one is made of by halving; itself where it is not."""
        return self._sources[index]

    def _source(self, index: int) -> int:
        return max(k for k in range(index + 1) if not self._is_half(k))

    def _is_half(self, index: int) -> bool:
        return self._stored[index] is None and not _has_between(self.slide, index)

    def _first_kept(self) -> int:
        source = self._sources[-1]
        for index in range(1, self.count):
            size = math.prod(self.size(index))
            if size <= SMALL_PX or (index > source and size <= OVERVIEW_PX):
                return index
        return self.count - 1

    # --- pixels ---

    def arrays(self, look: Look | None = None) -> list[LevelArray]:
        """Return the levels as arrays, finest first.

        Parameters
        ----------
        look
            What paints them for the viewer; without it the viewer waits for pixels too.
        """
        arrays = [LevelArray(self, index) for index in range(self.count)]
        for array in arrays:
            array.look = look
        return arrays

    def read(self, index: int, x: int, y: int, width: int, height: int) -> Uint8Image:
        """Read a rectangle that lies within a level, in that level's pixels; waits for it.

        Returns
        -------
        uint8 array [height, width, 3]
            The caller's own.

        Raises
        ------
        SlideError
            If the slide is closed, or cannot be decoded there.
        """
        if index < self.overview.first:
            return self._reads[index](x, y, width, height)
        if not self.overview.complete:
            self.overview.finish()
        return self.overview.part(index, x, y, width, height)[0].copy()

    def paint(
        self, index: int, x: int, y: int, width: int, height: int
    ) -> tuple[Uint8Image, bool]:
        """Return what is there of a rectangle of a level, and fetch the rest; never waits.

        Returns
        -------
        uint8 array [height, width, 3]
            What is missing comes from coarser levels.
        bool
            Whether nothing is missing.
        """
        with self._looking:
            if self._look is None:
                self._look = Look(self)
        return self._look.paint(index, x, y, width, height)

    def coarse(self, longest_px: int) -> tuple[Uint8Image, bool]:
        """Return a small picture of the whole slide, without padding; never waits.

        Parameters
        ----------
        longest_px
            The longer side has at most so many pixels.

        Returns
        -------
        uint8 array [height, width, 3]
            The caller's own; blank as long as nothing is known of the slide.
        bool
            Whether it will stay as it is.
        """
        self.overview.start(self.loader)
        first = self.overview.first
        index = max(
            (k for k in range(first, self.count) if max(self.inside(k)) >= longest_px),
            default=first,
        )
        pixels, final = self.overview.part(index, 0, 0, *self.inside(index))
        shrink = min(longest_px / max(self.inside(index)), 1)
        size = [max(round(side * shrink), 1) for side in self.inside(index)]
        image = Image.fromarray(np.ascontiguousarray(pixels))
        return np.array(image.resize((size[0], size[1]), Image.Resampling.BOX)), final

    def close(self) -> None:
        """Fetch no more, and let go of the pixels; the slide itself is not closed."""
        self.closed = True
        self.overview.stop()
        with self._looking:
            if self._look is not None:
                self._look.close()
        self._closing()

    def report(self, error: Exception) -> None:
        """Note what could not be decoded; the first error is kept and logged.

        Raises
        ------
        SlideError
            If the slide is closed: that is no damage.
        """
        self.slide.read_region((0, 0), 0, (0, 0))
        if self.trouble is None:
            self.trouble = error
            _log.warning("%s", error)

    def block_px(self, index: int) -> int:
        """Return the side of the blocks in which a level is gone through once."""
        return max(BLOCK_PX >> max(index - self._sources[index], 1), 1)

    def _pieces(self, index: int) -> Pieces:
        """Return how a level is fetched."""
        slide, source = self.slide, self._sources[index]
        stored = self._stored[source]
        if isinstance(slide, TiledSlide) and stored is not None:
            level = slide.info.levels[stored]
            if source == index and are_pieces(level):
                return stored_pieces(slide, stored)
            if source < index and halves_exactly(level, index - source):
                return halved_pieces(
                    slide, stored, index - source, self._made, self._owner, self._tile_failed
                )
        chunks = self._made if stored is None or source < index else shared_cache()
        width, height = self.inside(index)
        key = partial(_chunk_key, self._owner, index)
        return Pieces(
            CHUNK_PX,
            CHUNK_PX,
            -(-width // CHUNK_PX),
            -(-height // CHUNK_PX),
            lambda row, column: chunks.peek(key(row, column)),
            lambda row, column: self._chunk(chunks, index, row, column),
        )

    def _tile_failed(self, row: int, column: int, error: Exception) -> None:
        self.report(error)

    def _chunk(self, chunks: TileCache, index: int, row: int, column: int) -> Uint8Image:
        x, y = column * CHUNK_PX, row * CHUNK_PX
        level_width, level_height = self.size(index)
        size = min(CHUNK_PX, level_width - x), min(CHUNK_PX, level_height - y)
        return chunks.get(
            _chunk_key(self._owner, index, row, column),
            lambda: self.uncached(index, x, y, *size),
        )

    def uncached(self, index: int, x: int, y: int, width: int, height: int) -> Uint8Image:
        """Read a rectangle of a level from what it is made of."""
        source = self._sources[index]
        if source < index:
            return self.halved(index, source, x, y, width, height)
        stored = self._stored[index]
        if stored is None:
            x0, y0, w0, h0 = (value << index for value in (x, y, width, height))
            return np.array(read_rect(self.slide, (x0, y0), (w0, h0), (width, height)))
        downsample = self.slide.info.levels[stored].downsample
        corner = round(x * downsample), round(y * downsample)
        return self.slide.read_region(corner, stored, (width, height))

    def _reader(self, index: int) -> Read:
        """Return the way to a level's exact pixels."""
        stored = self._stored[index]
        if stored is not None and isinstance(self.slide, TiledSlide):
            return partial(self.uncached, index)  # its tiles are cached already
        chunks = self._made if stored is None else shared_cache()

        def read_cached(x: int, y: int, width: int, height: int) -> Uint8Image:
            out = np.empty((height, width, 3), np.uint8)
            for row in range(y // CHUNK_PX, -(-(y + height) // CHUNK_PX) if width else 0):
                top = row * CHUNK_PX
                ya, yb = max(y, top), min(y + height, top + CHUNK_PX)
                for column in range(x // CHUNK_PX, -(-(x + width) // CHUNK_PX)):
                    left = column * CHUNK_PX
                    xa, xb = max(x, left), min(x + width, left + CHUNK_PX)
                    out[ya - y : yb - y, xa - x : xb - x] = self._chunk(
                        chunks, index, row, column
                    )[ya - top : yb - top, xa - left : xb - left]
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
        slide_width, slide_height = self.inside(index)
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


def _release(caches: tuple[TileCache, ...], owner: Any) -> None:
    for chunks in caches:
        chunks.release_soon(owner)


def _chunk_key(owner: Any, index: int, row: int, column: int) -> tuple[Any, ...]:
    return owner, index, row, column


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
