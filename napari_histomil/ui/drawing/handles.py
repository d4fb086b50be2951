"""The box around what is selected, to move, scale and turn it: its handles and what each does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_histomil.annotations.edit import Matrix, scaled_by, turned_by
from napari_histomil.geometry import Rect
from napari_histomil.ui.drawing.pointer import XY, Pointer

REACH_PX = 9.0
"""So near to a handle one takes hold of it."""

ARM_PX = 28.0
"""The handle that turns is so far above the box."""

STEP_DEGREES = 15.0
"""With Shift held, turns are of whole steps."""

_ALONG = (0.0, 0.5, 1.0)
_SIDES = [(x, y) for y in _ALONG for x in _ALONG if (x, y) != (0.5, 0.5)]


@dataclass(frozen=True, slots=True)
class Grip:
    """What of the box is held."""

    kind: Literal["move", "scale", "turn"]
    side: XY = (0.5, 0.5)
    """Of a handle that scales: 0, 0.5 or 1 along (x, y) of the box."""


def handles_of(box: Rect, px0_per_pixel: float) -> NDArray[np.float64]:
    """Return [9, 2]: eight places that scale, and the one that turns."""
    places = [(box.x_px0 + x * box.width_px0, box.y_px0 + y * box.height_px0) for x, y in _SIDES]
    return np.array([*places, _arm(box, px0_per_pixel)])


def grip_at(box: Rect, at: Pointer) -> Grip | None:
    """Return what is taken hold of at a place; None beside the box."""
    if at.near(_arm(box, at.px0_per_pixel), REACH_PX):
        return Grip("turn")
    places = handles_of(box, at.px0_per_pixel)[:-1]
    for (x, y), side in zip(places.tolist(), _SIDES, strict=True):
        if at.near((x, y), REACH_PX):
            return Grip("scale", side)
    x, y = at.xy_px0
    inside = box.x_px0 <= x <= box.right_px0 and box.y_px0 <= y <= box.bottom_px0
    return Grip("move") if inside else None


def matrix_of(grip: Grip, box: Rect, began: XY, at: Pointer) -> Matrix | None:
    """Return what a drag does to the shapes; None where it would leave nothing.

    Shift keeps the proportions when scaling, and turns by whole steps.
    """
    (x0, y0), (x, y) = began, at.xy_px0
    if grip.kind == "move":
        return 1.0, 0.0, 0.0, 1.0, x - x0, y - y0
    if grip.kind == "turn":
        cx, cy = box.center_px0
        degrees = math.degrees(math.atan2(y - cy, x - cx) - math.atan2(y0 - cy, x0 - cx))
        if at.add:
            degrees = round(degrees / STEP_DEGREES) * STEP_DEGREES
        return turned_by(degrees, box.center_px0)
    fixed = [1 - side for side in grip.side]
    anchor = (box.x_px0 + fixed[0] * box.width_px0, box.y_px0 + fixed[1] * box.height_px0)
    factors = [1.0, 1.0]
    for axis, (size, start, now) in enumerate(((box.width_px0, x0, x), (box.height_px0, y0, y))):
        if grip.side[axis] != 0.5 and size > 0 and start != anchor[axis]:
            factors[axis] = (now - anchor[axis]) / (start - anchor[axis])
    if at.add and 0.5 not in grip.side:
        larger = max(factors, key=abs)
        factors = [larger, larger]
    if min(abs(factor) for factor in factors) < 1e-3:
        return None
    return scaled_by((factors[0], factors[1]), anchor)


def moved_by(xy: NDArray[np.float64], matrix: Matrix) -> NDArray[np.float64]:
    """Return positions [N, 2] moved by a matrix."""
    a, b, d, e, x, y = matrix
    return xy @ np.array([[a, d], [b, e]]) + (x, y)


def _arm(box: Rect, px0_per_pixel: float) -> XY:
    return box.center_px0[0], box.y_px0 - ARM_PX * px0_per_pixel
