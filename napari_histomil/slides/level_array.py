"""One level of a slide as an array: it holds no pixels, and is read when it is sliced."""

from __future__ import annotations

import sys
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari_histomil.slides.look import Look
    from napari_histomil.slides.pyramid import Pyramid

SNAP_PX = 128
"""The viewer's rectangles of a level are rounded out to multiples of this.

A short pan then needs no new pixels; much more would have the viewer draw what nobody sees.
"""

VIEWER = "napari.layers."
"""Modules of the viewer that slice levels in order to show them."""


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
        self.chunks = (SNAP_PX, SNAP_PX, 3)

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
