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
import threading
import weakref
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from napari_histomil.slides.cache import TileCache, shared_cache
from napari_histomil.slides.exact import ExactLevels
from napari_histomil.slides.level_array import LevelArray
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
from napari_histomil.slides.powers import Powers
from napari_histomil.slides.slide import Slide, Uint8Image
from napari_histomil.slides.tiles import TiledSlide

_log = logging.getLogger(__name__)


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
    powers
        Which levels there are, and what each is made of.
    count
        Number of levels.
    exact
        Reads all other levels for whoever waits.
    overview
        The levels kept in memory, from ``overview.first`` on.
    pieces
        How each of the other levels is fetched.
    trouble
        The first error that was met while something was fetched to be shown, or None.
    """

    def __init__(self, slide: Slide, made: TileCache, *, loader: Loader | None = None) -> None:
        info = slide.info
        self.powers = Powers(slide)
        self.name = info.path.name
        self.count = self.powers.count
        self.slide = slide
        self.loader = loader if loader is not None else shared_loader()
        self._made = made
        self._owner = ("levels", info.path, info.fingerprint, info.reader, info.icc_applied)
        self._closing = weakref.finalize(self, _release_soon, (made, shared_cache()), self._owner)
        for chunks in (made, shared_cache()):
            chunks.acquire(self._owner)
        self.closed = False
        self.trouble: Exception | None = None
        self.exact = ExactLevels(slide, self.powers, made, self._owner)
        first = self.powers.first_kept
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
        return self.powers.size(index)

    def inside(self, index: int) -> tuple[int, int]:
        """Return (width, height) of the slide itself in a level; white lies beyond."""
        return self.powers.inside(index)

    def stored(self, index: int) -> int | None:
        """Return the number of the slide's level that is this power of two, or None."""
        return self.powers.stored[index]

    def source(self, index: int) -> int:
        """Return the level that this one is made of by halving; itself where it is not."""
        return self.powers.sources[index]

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
            return self.exact.read(index, x, y, width, height)
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
        if self._closing.detach() is not None:
            for chunks in (self._made, shared_cache()):
                chunks.release(self._owner)

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

    def _pieces(self, index: int) -> Pieces:
        """Return how a level is fetched."""
        slide, source = self.slide, self.source(index)
        stored = self.stored(source)
        if isinstance(slide, TiledSlide) and stored is not None:
            level = slide.info.levels[stored]
            if source == index and are_pieces(level):
                return stored_pieces(slide, stored)
            if source < index and halves_exactly(level, index - source):
                return halved_pieces(
                    slide, stored, index - source, self._made, self._owner, self._tile_failed
                )
        width, height = self.inside(index)
        exact = self.exact
        chunks, key = exact.chunks(index), partial(exact.chunk_key, index)
        return Pieces(
            CHUNK_PX,
            CHUNK_PX,
            -(-width // CHUNK_PX),
            -(-height // CHUNK_PX),
            lambda row, column: chunks.peek(key(row, column)),
            partial(exact.chunk, index),
        )

    def _tile_failed(self, row: int, column: int, error: Exception) -> None:
        self.report(error)


def _release_soon(caches: tuple[TileCache, ...], owner: Any) -> None:
    for chunks in caches:
        chunks.release_soon(owner)
