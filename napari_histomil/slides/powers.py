"""Which powers of two a slide has, and what each of them is made of; no pixels here.

The points 1 to 5 are those of `pyramid.py`.
"""

from __future__ import annotations

import math

from napari_histomil.slides.slide import Slide

SMALLEST_PX = 128
"""The longer side of the coarsest level is at most this and at least half of it.

A viewer reads that level at once and keeps it, so it must be small; but each further halving
doubles the white that pads level 0, here to at most a 64th of the longer side.
"""

OVERVIEW_PX = 1 << 24
"""Levels of up to this many pixels (48 MiB) are kept if they are coarser than what is stored."""

SMALL_PX = 1 << 20
"""Levels of up to this many pixels (3 MiB) are kept although they are stored."""

NEAR = 1.05
"""A stored level up to this much coarser than a power of two stands for it."""


class Powers:
    """The levels of a slide by halving: level k has 1 / 2^k of level 0's pixels along each axis.

    Attributes
    ----------
    count
        Number of levels.
    stored
        For each level the number of the slide's own level that it is, or None.
    sources
        For each level the one that it is made of by halving; itself where it is not.
    first_kept
        The finest level that is kept in memory as a whole.
    """

    def __init__(self, slide: Slide) -> None:
        info = slide.info
        self._inside = info.width_px0, info.height_px0
        halvings = max(math.ceil(math.log2(max(self._inside) / SMALLEST_PX)), 0)
        self.count = halvings + 1
        self._padded = tuple(-(-side >> halvings) << halvings for side in self._inside)
        self.stored = [_stored_level(slide, index) for index in range(self.count)]
        # What is neither stored nor made of a level between is half of the next finer one.
        own = [
            self.stored[index] is not None or _has_between(slide, index)
            for index in range(self.count)
        ]
        self.sources = [max(k for k in range(index + 1) if own[k]) for index in range(self.count)]
        self.first_kept = self._first_kept()

    def size(self, index: int) -> tuple[int, int]:
        """Return (width, height) of a level."""
        return self._padded[0] >> index, self._padded[1] >> index

    def inside(self, index: int) -> tuple[int, int]:
        """Return (width, height) of the slide itself in a level; white lies beyond."""
        return -(-self._inside[0] >> index), -(-self._inside[1] >> index)

    def _first_kept(self) -> int:
        source = self.sources[-1]
        for index in range(1, self.count):
            size = math.prod(self.size(index))
            if size <= SMALL_PX or (index > source and size <= OVERVIEW_PX):
                return index
        return self.count - 1


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
