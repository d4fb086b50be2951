"""Vertices of a shape as they are edited: found, moved, put in, taken away. Pure geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import LineString, MultiLineString, MultiPoint, MultiPolygon, Point, Polygon
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.edit import areal, mended, on_grid
from napari_histomil.errors import AnnotationError

Rings = list[NDArray[np.float64]]
"""[n, 2] each: outlines without the repeated vertex, lines, or single points."""


@dataclass(frozen=True, slots=True)
class Place:
    """A vertex."""

    ring: int
    vertex: int


def rings_of(shape: BaseGeometry) -> Rings:
    """Return the chains of vertices of a shape, outline before holes, part after part."""
    chains: Rings = []
    for part in shapely.get_parts(shape):
        if isinstance(part, Polygon):
            for ring in (part.exterior, *part.interiors):
                chains.append(shapely.get_coordinates(ring)[:-1])
        else:
            chains.append(shapely.get_coordinates(part))
    return chains


def rebuilt(shape: BaseGeometry, rings: Rings) -> BaseGeometry:
    """Return a shape with other vertices, by the structure of the old one; outlines are mended.

    Parameters
    ----------
    rings
        As `rings_of` gave them, edited. A hole with fewer than three vertices is filled; a part
        with too few goes.

    Raises
    ------
    AnnotationError
        If nothing is left.
    """
    left = iter(rings)
    parts: list[BaseGeometry] = []
    for part in shapely.get_parts(shape):
        if isinstance(part, Polygon):
            outline, *holes = [next(left) for _ in range(1 + len(part.interiors))]
            if len(outline) > 2:
                parts.append(Polygon(outline, [hole for hole in holes if len(hole) > 2]))
        else:
            chain = next(left)
            if isinstance(part, Point) and len(chain):
                parts.append(Point(chain[0]))
            elif isinstance(part, LineString) and len(chain) > 1:
                parts.append(LineString(chain))
    if not parts:
        raise AnnotationError("Nothing of the region would be left: delete it instead.")
    if isinstance(shape, Polygon | MultiPolygon):
        whole = parts[0] if len(parts) == 1 else MultiPolygon(parts)
        return areal(whole if shapely.is_valid(whole) else mended(whole), "of the region")
    if len(parts) == 1:
        return on_grid(parts[0])
    return on_grid(MultiPoint(parts) if isinstance(parts[0], Point) else MultiLineString(parts))


def nearest_vertex(
    rings: Sequence[NDArray[np.float64]], xy: tuple[float, float], reach: float
) -> Place | None:
    """Return the vertex nearest to a place, if one is within reach."""
    best, found = reach, None
    for n, ring in enumerate(rings):
        if not len(ring):
            continue
        distance = np.hypot(*(ring - xy).T)
        vertex = int(distance.argmin())
        if distance[vertex] <= best:
            best, found = float(distance[vertex]), Place(n, vertex)
    return found


def nearest_edge(
    rings: Sequence[NDArray[np.float64]],
    xy: tuple[float, float],
    reach: float,
    *,
    closed: bool,
) -> Place | None:
    """Return where a new vertex would go in: before this one, on the edge nearest to a place."""
    best, found = reach, None
    for n, ring in enumerate(rings):
        if len(ring) < 2:
            continue
        a, b = (ring, np.roll(ring, -1, axis=0)) if closed else (ring[:-1], ring[1:])
        step = b - a
        length = np.maximum((step**2).sum(axis=1), 1e-12)
        share = np.clip(((np.asarray(xy) - a) * step).sum(axis=1) / length, 0, 1)
        distance = np.hypot(*(a + share[:, None] * step - xy).T)
        edge = int(distance.argmin())
        if distance[edge] <= best:
            best, found = float(distance[edge]), Place(n, edge + 1)
    return found


def with_moved(rings: Rings, place: Place, xy: tuple[float, float]) -> Rings:
    """Return the chains with a vertex elsewhere; the others are shared."""
    ring = rings[place.ring].copy()
    ring[place.vertex] = xy
    return [*rings[: place.ring], ring, *rings[place.ring + 1 :]]


def with_inserted(rings: Rings, place: Place, xy: tuple[float, float]) -> Rings:
    """Return the chains with one more vertex, before the one at that place."""
    ring = np.insert(rings[place.ring], place.vertex, xy, axis=0)
    return [*rings[: place.ring], ring, *rings[place.ring + 1 :]]


def without(rings: Rings, place: Place) -> Rings:
    """Return the chains without a vertex."""
    ring = np.delete(rings[place.ring], place.vertex, axis=0)
    return [*rings[: place.ring], ring, *rings[place.ring + 1 :]]
