"""Where two readers differ, as a picture that stays small: to be looked at, not to be measured.

It is put together from the bands of a comparison as they pass. A map that is too large is thinned
out so that no difference is lost: a pixel shows what is most frequent among the differences in it,
however few they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_histomil.annotations.masks import LabelImage
from napari_histomil.review.agreement import Comparison

SAME, ONLY_FIRST, ONLY_SECOND, OTHER_CLASS = range(4)
"""Values of the picture. `SAME` is also what was not compared: nobody knows of a difference."""

LONGEST_PX = 4096
"""A longer side is thinned out."""


@dataclass(frozen=True, slots=True, eq=False)
class DifferencePicture:
    """The map."""

    kinds: NDArray[np.uint8]
    """[rows, columns] from the slide's corner, of the values above."""
    pixel_px0: tuple[float, float]
    """(width, height) of a pixel in level-0 pixels of the slide."""


class PictureMaker:
    """Makes the map of a comparison while somebody else goes through its bands.

    Parameters
    ----------
    comparison
        From `prepare_comparison`.
    longest_px
        Pixels of the longer side, at most.
    """

    def __init__(self, comparison: Comparison, longest_px: int = LONGEST_PX) -> None:
        grid, size = comparison.grid, len(comparison.names)
        self._step = max(math.ceil(max(grid.shape) / longest_px), 1)
        self._pixel_px0 = (grid.pixel_px0[0] * self._step, grid.pixel_px0[1] * self._step)
        first, second = np.divmod(np.arange(size * size), size)
        background = size - 1
        self._meaning = np.zeros(comparison.outside + 1, np.uint8)
        self._meaning[: size * size] = np.select(
            [first == second, second == background, first == background],
            [SAME, ONLY_FIRST, ONLY_SECOND],
            OTHER_CLASS,
        )
        self._rest = np.zeros((0, grid.columns), np.uint8)  # rows of a pixel that is not full
        rows, columns = (math.ceil(side / self._step) for side in grid.shape)
        self._kinds = np.zeros((rows, columns), np.uint8)
        self._row = 0

    def watching(self, bands: Iterable[LabelImage]) -> Iterator[LabelImage]:
        """Yield the bands of `pair_bands` as they are, and draw each."""
        for band in bands:
            self._add(band)
            yield band
        if len(self._rest):
            self._put(self._rest)

    def picture(self) -> DifferencePicture:
        """Return the map of all bands that have passed."""
        return DifferencePicture(self._kinds, self._pixel_px0)

    def _add(self, band: LabelImage) -> None:
        rows = np.concatenate([self._rest, self._meaning[band]])
        whole = len(rows) // self._step * self._step
        self._rest = rows[whole:]
        self._put(rows[:whole])

    def _put(self, rows: NDArray[np.uint8]) -> None:
        small = thinned(rows, self._step)
        self._kinds[self._row : self._row + len(small)] = small
        self._row += len(small)


def thinned(kinds: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Return a map [rows, columns] with a pixel for each ``step`` x ``step`` of them."""
    if step == 1:
        return kinds
    pad = [(0, -side % step) for side in kinds.shape]
    full = np.pad(kinds, pad)
    blocks = full.reshape(full.shape[0] // step, step, full.shape[1] // step, step)
    counts = np.stack([(blocks == kind).sum(axis=(1, 3)) for kind in range(1, 4)])
    return np.where(counts.any(axis=0), counts.argmax(axis=0) + 1, SAME).astype(np.uint8)
