"""Points of a plane as a picture: dots where there are few, their density where there are many.

A pixel has the mean colour of the points in it, and is the more opaque the more there are. No Qt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

RADII = ((3_000, 3), (20_000, 2), (60_000, 1))
"""Up to so many points a dot has this radius in pixels; more of them are single pixels."""

FAINTEST = 0.45
"""Opacity of a pixel with one point where others have many."""

MARGIN = 0.05


@dataclass(frozen=True, slots=True)
class View:
    """Which part of the plane is seen."""

    center: tuple[float, float] = (0.0, 0.0)
    """(x, y) in the middle."""
    scale: float = 1.0
    """Pixels a unit of the plane."""

    @classmethod
    def fit(cls, layout: Floats, size: tuple[int, int]) -> View:
        """Return the view of all points in a picture (width, height)."""
        if not len(layout):
            return cls()
        low, high = layout.min(axis=0), layout.max(axis=0)
        across = np.maximum(high - low, 1e-9)
        scale = (1 - 2 * MARGIN) * min(size[0] / across[0], size[1] / across[1])
        middle = (low + high) / 2
        return cls((float(middle[0]), float(middle[1])), float(scale))

    def to_pixels(self, layout: Floats, size: tuple[int, int]) -> NDArray[np.float32]:
        """Return where points (x, y) lie in a picture, float32 [N, 2]; y grows upwards."""
        found = (np.asarray(layout, np.float32) - np.float32(self.center)) * np.float32(self.scale)
        found[:, 1] *= -1
        return found + np.float32([size[0] / 2, size[1] / 2])

    def to_plane(self, xy: tuple[float, float], size: tuple[int, int]) -> tuple[float, float]:
        """Return the point of the plane at a place of a picture."""
        return (
            self.center[0] + (xy[0] - size[0] / 2) / self.scale,
            self.center[1] - (xy[1] - size[1] / 2) / self.scale,
        )

    def zoomed(self, by: float, at: tuple[float, float], size: tuple[int, int]) -> View:
        """Return the view closer by a factor; what is at a place of the picture stays there."""
        x, y = self.to_plane(at, size)
        scale = self.scale * by
        return View((x - (at[0] - size[0] / 2) / scale, y + (at[1] - size[1] / 2) / scale), scale)

    def moved(self, by: tuple[float, float]) -> View:
        """Return the view with everything moved by so many pixels (right, down)."""
        x, y = self.center
        return replace(self, center=(x - by[0] / self.scale, y + by[1] / self.scale))


def paint(
    layout: Floats, colours: NDArray[np.float32], view: View, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return the picture of points.

    Parameters
    ----------
    layout
        [N, 2]: (x, y).
    colours
        float32 [N, 3], red, green, blue from 0 to 1.
    view
        What is seen.
    size
        (width, height) in pixels.

    Returns
    -------
    uint8 [height, width, 4]
        Red, green, blue, opacity; transparent where no point is.
    """
    width, height = size
    xy = view.to_pixels(layout, size)
    column, row = np.floor(xy[:, 0]), np.floor(xy[:, 1])
    seen = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    at = row[seen].astype(np.int64) * width + column[seen].astype(np.int64)
    sums = np.empty((4, height, width), np.float32)
    sums[0] = np.bincount(at, minlength=width * height).reshape(height, width)
    for channel in range(3):
        weights = colours[seen, channel]
        sums[channel + 1] = np.bincount(at, weights, width * height).reshape(height, width)
    radius = next((radius for most, radius in RADII if len(layout) <= most), 0)
    if radius:
        sums = _dots(sums, radius)
    count = sums[0]
    most = float(count.max(initial=1.0))
    out = np.zeros((height, width, 4), np.uint8)
    there = count > 0
    found = sums[1:, there] / count[there]
    out[there, :3] = (found.T * 255 + 0.5).astype(np.uint8)
    dense = np.log1p(count[there] - 1) / np.log(max(most, 2.0))
    opacity = 1.0 if radius else FAINTEST + (1 - FAINTEST) * dense
    out[there, 3] = np.asarray(opacity * 255 + 0.5).astype(np.uint8)
    return out


def _dots(sums: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Draw every point as a disc."""
    _, height, width = sums.shape
    padded = np.pad(sums, ((0, 0), (radius, radius), (radius, radius)))
    out = np.zeros_like(sums)
    for down in range(-radius, radius + 1):
        for across in range(-radius, radius + 1):
            if down**2 + across**2 <= radius**2 + 1:
                rows = slice(radius + down, radius + down + height)
                columns = slice(radius + across, radius + across + width)
                out += padded[:, rows, columns]
    return out
