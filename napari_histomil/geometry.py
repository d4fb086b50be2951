"""Rectangles and resolutions: the arithmetic between level-0 pixels, micrometres and levels.

Nothing here reads a file. Positions are (x, y) in level-0 pixels, the origin is the top-left
corner of the slide as OpenSlide counts it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from napari_histomil.errors import HistomilError

LEVEL_TOLERANCE = 0.05
"""A level may be this much coarser than wanted: scanners write 4.0003 where they mean 4."""


@dataclass(frozen=True, slots=True)
class Rect:
    """An axis-aligned rectangle in level-0 pixels; the right and bottom edges are outside.

    Raises
    ------
    HistomilError
        If a side is negative or any number is not finite.
    """

    x_px0: float
    y_px0: float
    width_px0: float
    height_px0: float

    def __post_init__(self) -> None:
        values = (self.x_px0, self.y_px0, self.width_px0, self.height_px0)
        if not all(math.isfinite(value) for value in values):
            raise HistomilError(f"A rectangle needs four finite numbers, not {values}.")
        if self.width_px0 < 0 or self.height_px0 < 0:
            raise HistomilError(
                f"A rectangle needs sides of 0 or more pixels, "
                f"not {self.width_px0:g} x {self.height_px0:g}."
            )

    @property
    def right_px0(self) -> float:
        """First x outside the rectangle."""
        return self.x_px0 + self.width_px0

    @property
    def bottom_px0(self) -> float:
        """First y outside the rectangle."""
        return self.y_px0 + self.height_px0

    @property
    def center_px0(self) -> tuple[float, float]:
        """(x, y) of the middle."""
        return self.x_px0 + self.width_px0 / 2, self.y_px0 + self.height_px0 / 2

    def intersection(self, other: Rect) -> Rect | None:
        """Return what both rectangles cover, or None where that has no area."""
        x0, y0 = max(self.x_px0, other.x_px0), max(self.y_px0, other.y_px0)
        x1 = min(self.right_px0, other.right_px0)
        y1 = min(self.bottom_px0, other.bottom_px0)
        return Rect(x0, y0, x1 - x0, y1 - y0) if x1 > x0 and y1 > y0 else None


def choose_level(downsamples: Sequence[float], wanted: float) -> int:
    """Return the coarsest level that still has every pixel a `wanted` downsample needs.

    Parameters
    ----------
    downsamples
        Downsample of each level against level 0, ascending, starting with 1.
    wanted
        Level-0 pixels that one output pixel spans, along one axis.

    Returns
    -------
    int
        Index of the coarsest level with ``downsample <= wanted`` (5 % tolerance); 0 where even
        level 0 is too coarse, because nothing finer exists.
    """
    fitting = [i for i, d in enumerate(downsamples) if d <= wanted * (1 + LEVEL_TOLERANCE)]
    return max(fitting, key=lambda i: downsamples[i], default=0)


def magnification(mpp: float) -> float:
    """Return the nominal magnification of a resolution: 10x is 1 µm/px, 40x is 0.25 µm/px."""
    return 10 / mpp
