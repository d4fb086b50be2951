"""Sizes of regions in mm² and µm: one, or all of a list at once.

Pixels may be a little longer than wide: shapes are put into micrometres first, so that every
length is right in every direction.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.model import Region
from napari_histomil.annotations.spatial import shapes_of

MppXY = tuple[float, float]
"""Micrometres that a level-0 pixel spans along (x, y)."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of N regions, each float [N]."""

    area_mm2: NDArray[np.float64]
    """Holes left out; 0 for lines and points, NaN for broken shapes, which have none."""
    length_um: NDArray[np.float64]
    """Of a line; the perimeter of an area, holes' edges included."""


def sizes(regions: Collection[Region], mpp_xy: MppXY) -> Sizes:
    """Return area and length of many regions."""
    shapes = _in_um(shapes_of(regions), mpp_xy)
    area = np.where(shapely.is_valid(shapes), shapely.area(shapes) * 1e-6, math.nan)
    return Sizes(area, shapely.length(shapes))


def area_mm2(shape: BaseGeometry, mpp_xy: MppXY) -> float:
    """Return the area without holes in mm²; NaN if the shape is broken."""
    if not shapely.is_valid(shape):
        return math.nan
    return float(shape.area) * mpp_xy[0] * mpp_xy[1] * 1e-6


def length_um(shape: BaseGeometry, mpp_xy: MppXY) -> float:
    """Return the length of a line in µm, or the perimeter of an area with its holes' edges."""
    return float(shapely.length(_in_um(shape, mpp_xy)))


def diameter_um(shape: BaseGeometry, mpp_xy: MppXY) -> float:
    """Return the largest distance between two points of a shape in µm; 0 for a point.

    Method: rotating calipers on the convex hull (Shamos 1978): for each edge, the vertices
    farthest from it, found by the edges' directions.
    """
    hull = shapely.convex_hull(_in_um(shape, mpp_xy))
    xy = shapely.get_coordinates(hull)
    if hull.geom_type != "Polygon":  # a point, or a line from end to end
        return float(hull.length)
    xy = xy[:-1] if shapely.is_ccw(hull.exterior) else xy[:0:-1]  # [n, 2], counter-clockwise
    edges = np.roll(xy, -1, axis=0) - xy
    turn = np.unwrap(np.arctan2(edges[:, 1], edges[:, 0]))  # ascending over one full turn
    # The vertex farthest from edge i is where the edges' directions pass the opposite one.
    opposite = np.searchsorted(turn, turn[0] + (turn - turn[0] + math.pi) % (2 * math.pi))
    count = len(xy)
    start = np.arange(count)
    pairs = [
        np.linalg.norm(xy[(start + end) % count] - xy[(opposite + near) % count], axis=1)
        for end in (0, 1)
        for near in (-1, 0, 1)  # its neighbours too: parallel edges, rounded directions
    ]
    return float(np.max(pairs))


def overlap_fraction(shape: BaseGeometry, other: BaseGeometry) -> float:
    """Return which share of the first shape the second covers; NaN if it has no area."""
    if not (shapely.is_valid(shape) and shapely.is_valid(other)) or not shape.area:
        return math.nan
    return float(shapely.intersection(shape, other).area / shape.area)


def _in_um(shapes: Any, mpp_xy: MppXY) -> Any:
    """Return a shape, or an array of them, in micrometres."""
    return shapely.transform(shapes, lambda xy: xy * mpp_xy)
