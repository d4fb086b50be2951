"""Tiles put together: weighted overlap-add from top to bottom, in the memory of a band.

Where tiles overlap, a pixel is the mean of what they say, weighted by a window that falls to
nearly 0 at a tile's edge: there a net sees the least of what lies around, and no edge shows. The
sums are divided by the sums of weights, so the windows need not add up to 1, and a constant stays
the constant wherever tiles are missing. No torch, no slides here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def window(inner_px: int, stride_px: int) -> Floats:
    """Return the weights of a tile's pixels, float32 [inner_px, inner_px].

    They rise as sin² over the width of the overlap, as far as it is within half the tile, so that
    the windows of neighbours add up to 1 where two tiles overlap.

    Parameters
    ----------
    inner_px
        Side of what a tile answers for.
    stride_px
        Distance between tiles.
    """
    ramp = min(inner_px - stride_px, inner_px // 2)
    along = np.ones(inner_px)
    if ramp > 0:
        rise = np.sin(np.pi / 2 * (np.arange(ramp) + 0.5) / ramp) ** 2
        along[:ramp], along[-ramp:] = rise, rise[::-1]
    return np.outer(along, along).astype(np.float32)


class Stitcher:
    """Adds tiles to a part of a picture, and gives its rows when they are finished.

    The order of tiles decides the last bit of the sums: add them row by row.

    Parameters
    ----------
    rows, columns
        The part; what tiles hold outside of it is left out.
    classes
        Number of classes.
    weights
        float32 [i, i], see `window`.
    band_px
        At most so many rows are open above a tile that is added.
    """

    def __init__(
        self, rows: slice, columns: slice, classes: int, weights: Floats, band_px: int
    ) -> None:
        self.top = rows.start
        """First row that has not been given away."""
        self._bottom, self._columns = rows.stop, columns
        self._window = weights
        height = min(band_px + len(weights), rows.stop - rows.start)
        width = columns.stop - columns.start
        self._sums = np.zeros((classes, height, width), np.float32)
        self._weights = np.zeros((height, width), np.float32)

    def add(self, corner: tuple[int, int], probabilities: Floats) -> None:
        """Add a tile.

        Parameters
        ----------
        corner
            (row, column) of its first pixel in the picture.
        probabilities
            float32 [C, i, i].
        """
        side = len(self._window)
        y0, y1 = max(corner[0], self.top), min(corner[0] + side, self._bottom)
        x0, x1 = max(corner[1], self._columns.start), min(corner[1] + side, self._columns.stop)
        if y1 <= y0 or x1 <= x0:
            return
        into = (
            slice(y0 - self.top, y1 - self.top),
            slice(x0 - self._columns.start, x1 - self._columns.start),
        )
        of = slice(y0 - corner[0], y1 - corner[0]), slice(x0 - corner[1], x1 - corner[1])
        weights = self._window[of]
        self._sums[:, *into] += probabilities[:, *of] * weights
        self._weights[into] += weights

    def take(self, stop: int) -> Floats:
        """Give the rows up to `stop`, in all columns, as `mean` does, and `drop` them."""
        mean = self.mean(stop, self._columns)
        self.drop(stop)
        return mean

    def mean(self, stop: int, columns: slice) -> Floats:
        """Return a part of the first rows, float32 [C, rows, columns], NaN where no tile was.

        Parameters
        ----------
        stop
            The row of the picture before which they end; no tile that is added afterwards may
            touch them.
        columns
            Of the picture.
        """
        rows, first = slice(0, stop - self.top), self._columns.start
        across = slice(columns.start - first, columns.stop - first)
        weights, sums = self._weights[rows, across], self._sums[:, rows, across]
        mean = np.full(sums.shape, np.nan, np.float32)
        return np.divide(sums, weights, out=mean, where=weights > 0)

    def drop(self, stop: int) -> None:
        """Leave the rows up to `stop` behind: nobody asks for them again."""
        count = stop - self.top
        self.top = stop
        if not self._weights.any():
            return
        for buffer in (self._sums, self._weights):
            rest = buffer.shape[-2] - count
            buffer[..., :rest, :] = buffer[..., count:, :].copy()
            buffer[..., rest:, :] = 0
