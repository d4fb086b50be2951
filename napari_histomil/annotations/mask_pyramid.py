"""The levels of a mask, each half the one before, made in strips from one pass over the mask.

A pixel of a smaller level has the value that most of its four pixels have; where two values are
equally common, that of the pixel nearest to the upper left corner. Smaller levels wait packed
in a temporary file, so memory is that of a strip.
"""

from __future__ import annotations

import contextlib
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from napari_histomil.annotations.masks import LabelImage


def level_shapes(shape: tuple[int, int], smallest_px: int) -> list[tuple[int, int]]:
    """Return (rows, columns) of the full level and its halves, down to one of `smallest_px`."""
    shapes = [shape]
    while max(shapes[-1]) > smallest_px:
        rows, columns = shapes[-1]
        shapes.append((-(-rows // 2), -(-columns // 2)))
    return shapes


def pyramid(
    bands: Iterable[LabelImage], count: int, rows: int, folder: Path
) -> Iterator[Iterator[LabelImage]]:
    """Yield the levels in turn, each as its strips from top to bottom.

    Every level must be used up before the next is asked for.

    Parameters
    ----------
    bands
        The full level from top to bottom, in bands of any height.
    count
        Number of levels.
    rows
        Height of a strip, even; the last may be less high.
    folder
        Where the temporary file may lie: on the disk that the result will need anyway.
    """
    source: Iterable[LabelImage] = bands
    with contextlib.ExitStack() as files:
        for index in range(count):
            smaller = None
            if index + 1 < count:
                smaller = _Packed(files.enter_context(tempfile.TemporaryFile(dir=folder)))
            yield _level(in_strips(source, rows), smaller)
            source = smaller.bands() if smaller is not None else ()


def in_strips(bands: Iterable[LabelImage], rows: int) -> Iterator[LabelImage]:
    """Yield the same rows in strips of `rows`; the last may be less high."""
    rest: list[LabelImage] = []
    have = 0
    for band in bands:
        rest.append(band)
        have += len(band)
        if have < rows:
            continue
        whole = np.concatenate(rest) if len(rest) > 1 else rest[0]
        full = have - have % rows
        for top in range(0, full, rows):
            yield whole[top : top + rows]
        rest, have = [whole[full:]], have - full
    if have:
        yield np.concatenate(rest)


def halved(strip: LabelImage) -> LabelImage:
    """Return the most common value of each 2 x 2 pixels; [ceil(h / 2), ceil(w / 2)]."""
    rows, columns = strip.shape
    even = np.pad(strip, ((0, rows % 2), (0, columns % 2)), mode="edge")
    a, b, c, d = even[::2, ::2], even[::2, 1::2], even[1::2, ::2], even[1::2, 1::2]
    other = np.where((b == c) | (b == d), b, np.where(c == d, c, a))
    small: LabelImage = np.where((a == b) | (a == c) | (a == d), a, other)
    return small


def _level(strips: Iterator[LabelImage], smaller: _Packed | None) -> Iterator[LabelImage]:
    for strip in strips:
        if smaller is not None:  # before the strip is given away: nobody may ask for an end
            smaller.add(halved(strip))
        yield strip


class _Packed:
    """Bands that wait in a file, packed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sizes: list[int] = []
        self._like: list[LabelImage] = []

    def add(self, band: LabelImage) -> None:
        """Keep the next band."""
        self._sizes.append(self._file.write(zlib.compress(band.tobytes(), 1)))
        self._like.append(np.empty((0, band.shape[1]), band.dtype))

    def bands(self) -> Iterator[LabelImage]:
        """Yield all bands; none can be added afterwards."""
        self._file.seek(0)
        for size, like in zip(self._sizes, self._like, strict=True):
            pixels = np.frombuffer(zlib.decompress(self._file.read(size)), like.dtype)
            yield pixels.reshape(-1, like.shape[1])
