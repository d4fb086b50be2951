"""Geometry of editing: add, subtract, split, merge, fill, simplify, mend, keep apart.

Pure functions of shapes in level-0 pixels. What they return is a valid Polygon or MultiPolygon
whose coordinates are hundredths of a pixel, which is what files keep; where nothing would be left
they say so. Commands that put such shapes into a set are made in `commands.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import LineString, MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.model import Region
from napari_histomil.errors import AnnotationError

GRID_PX0 = 0.01
"""Coordinates are kept in hundredths of a pixel, as QuPath keeps them."""

DECIMALS = 2

Areal: TypeAlias = Polygon | MultiPolygon

Matrix = tuple[float, float, float, float, float, float]
"""(a, b, d, e, x, y): x' = a x + b y + x, y' = d x + e y + y, in shapely's order."""


# --- shapes and their union --------------------------------------------------------------------


def add_to(shape: BaseGeometry, more: BaseGeometry) -> Areal:
    """Return what either of two shapes covers.

    Raises
    ------
    AnnotationError
        If one of them has no area or is broken.
    """
    return areal(shapely.union(sound(shape), sound(more)))


def subtract(shape: BaseGeometry, less: BaseGeometry) -> Areal:
    """Return what the first of two shapes covers and the second does not.

    Raises
    ------
    AnnotationError
        If one of them has no area or is broken, or nothing would be left.
    """
    return areal(shapely.difference(sound(shape), sound(less)), "of the region")


def merge(shapes: Iterable[BaseGeometry]) -> Areal:
    """Return what any of the shapes covers; those that do not touch become parts of one.

    Raises
    ------
    AnnotationError
        If there is none, or one has no area or is broken.
    """
    return areal(shapely.union_all([sound(shape) for shape in shapes]), "of the merged regions")


def parts(shape: BaseGeometry) -> list[Polygon]:
    """Return the parts of a shape as polygons of their own, the largest first."""
    found = [part for part in shapely.get_parts(shape) if isinstance(part, Polygon)]
    return sorted((part for part in found if not part.is_empty), key=lambda part: -part.area)


def split(shape: BaseGeometry, line: LineString) -> list[Areal]:
    """Cut a shape by a line.

    Returns
    -------
    list
        The pieces, the largest first. Parts that the line does not reach stay together and with
        the largest piece.

    Raises
    ------
    AnnotationError
        If the shape has no area or is broken, or the line cuts nothing off.
    """
    pieces: list[Polygon] = []
    whole: list[Polygon] = []
    for part in parts(sound(shape)):
        noded = shapely.union(part.boundary, line)
        found = shapely.get_parts(shapely.polygonize(shapely.get_parts(noded).tolist()))
        inside = [each for each in found if part.contains(each.representative_point())]
        if len(inside) > 1:
            pieces += inside
        else:
            whole.append(part)
    if not pieces:
        raise AnnotationError(
            "The line does not cut the region in two: begin it outside, cross the region, and "
            "end it outside."
        )
    pieces.sort(key=lambda piece: -piece.area)
    return [areal(MultiPolygon([pieces[0], *whole])), *(areal(piece) for piece in pieces[1:])]


def fill_holes(shape: BaseGeometry, below_px0: float = math.inf) -> Areal:
    """Return a shape without its holes.

    Parameters
    ----------
    below_px0
        Holes of this area (square pixels) and larger stay.
    """
    filled = [
        Polygon(
            part.exterior, [ring for ring in part.interiors if Polygon(ring).area >= below_px0]
        )
        for part in parts(sound(shape))
    ]
    return areal(shapely.union_all(filled))


def simplify(shape: BaseGeometry, tolerance_px0: float) -> BaseGeometry:
    """Return a shape with fewer vertices, nowhere farther than the tolerance from the old outline.

    Method: Douglas and Peucker (1973), with topology kept. Lines are simplified too.
    """
    simple = shapely.simplify(shape, tolerance_px0, preserve_topology=True)
    if isinstance(simple, Areal) and not simple.is_empty:
        return areal(simple if simple.is_valid else mended(simple))
    return on_grid(simple)


def mended(shape: BaseGeometry) -> BaseGeometry:
    """Return a broken shape without what breaks it.

    An outline that crosses itself covers all that it goes round, also what it goes round twice;
    holes outside are dropped. What is not broken comes back as it is.

    Raises
    ------
    AnnotationError
        If nothing with an area is left.
    """
    if shapely.is_valid(shape):
        return shape
    valid = shapely.make_valid(shape, method="structure", keep_collapsed=False)
    return areal(valid, "of the mended region")


# --- what may not overlap ----------------------------------------------------------------------


def overlapping(shape: BaseGeometry, others: Iterable[Region]) -> list[Region]:
    """Return the regions that a shape overlaps by more than the rounding of coordinates."""
    return [other for other in others if other.is_areal and _overlaps(shape, other.geometry)]


def exclusive(
    shape: BaseGeometry, rivals: Sequence[Region], rule: Literal["refuse", "clip"]
) -> Areal:
    """Keep a shape apart from regions of classes that it may not overlap.

    Parameters
    ----------
    shape
        The new shape.
    rivals
        Regions near it of classes that are declared exclusive with its own
        (`ClassSet.rivals`), without the region itself.
    rule
        ``refuse`` an overlap, or ``clip`` the new shape by the regions that were there.

    Raises
    ------
    AnnotationError
        If it overlaps and that is refused, or if nothing would be left.
    """
    met = overlapping(sound(shape), rivals)
    if not met:
        return areal(shape)
    if rule == "refuse":
        more = f" and {len(met) - 1} more" if len(met) > 1 else ""
        raise AnnotationError(
            f"It would overlap {met[0].label}{more}, whose class is exclusive: draw beside it, or "
            f"choose to have overlaps clipped."
        )
    taken = shapely.union_all([sound(region.geometry) for region in met])
    return areal(shapely.difference(shape, taken), f"beside {met[0].label}")


def _overlaps(a: BaseGeometry, b: BaseGeometry) -> bool:
    if not shapely.intersects(a, b):
        return False
    shared = shapely.intersection(sound(a), sound(b))
    # Neighbours share a line; rounded, they overlap by slivers as thin as the grid.
    return bool(shared.area > GRID_PX0 * shared.length)


# --- moving ------------------------------------------------------------------------------------


def turned_by(degrees: float, about_px0: tuple[float, float]) -> Matrix:
    """Return the matrix that turns clockwise on the screen (y points down)."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = about_px0
    return c, -s, s, c, x - c * x + s * y, y - s * x - c * y


def scaled_by(factors: tuple[float, float], about_px0: tuple[float, float]) -> Matrix:
    """Return the matrix that scales along x and y; negative factors mirror.

    Raises
    ------
    AnnotationError
        If a factor is 0, which would leave nothing.
    """
    (a, e), (x, y) = factors, about_px0
    if not a or not e:
        raise AnnotationError("A region cannot be scaled by 0.")
    return a, 0.0, 0.0, e, x - a * x, y - e * y


# --- helpers -----------------------------------------------------------------------------------


def sound(shape: BaseGeometry) -> Areal:
    """Return a shape if it is a valid polygon, or several.

    Raises
    ------
    AnnotationError
        If it has no area or is broken.
    """
    if not isinstance(shape, Areal):
        raise AnnotationError(f"A {shape.geom_type} has no area: take a polygon.")
    if not shapely.is_valid(shape):
        raise AnnotationError("The shape is broken: mend it first.")
    return shape


def areal(shape: BaseGeometry, what: str = "") -> Areal:
    """Return the parts of a shape that have an area, valid and in hundredths of a pixel.

    Parameters
    ----------
    what
        What nothing would be left of, for the message.

    Raises
    ------
    AnnotationError
        If there are none.
    """
    found = [on_grid(part) for part in _polygons(shape)]
    kept = [part for each in found for part in _polygons(each) if part.area > 0]
    if not kept:
        raise AnnotationError(f"Nothing {what} would be left.".replace("  ", " "))
    if len(kept) == 1:
        return kept[0]
    result = MultiPolygon(kept)
    if not shapely.is_valid(result):  # parts that touched in a point share a line, rounded
        result = on_grid(shapely.union_all(kept))
    return result


def _polygons(shape: BaseGeometry) -> list[Polygon]:
    """Return the polygons in a shape of any kind, also those in collections."""
    if isinstance(shape, Polygon):
        return [] if shape.is_empty else [shape]
    return [
        polygon
        for part in shapely.get_parts(shape)
        if part is not shape and part.geom_type not in ("Point", "LineString", "LinearRing")
        for polygon in _polygons(part)
    ]


def on_grid(shape: BaseGeometry) -> BaseGeometry:
    """Return a shape in hundredths of a pixel; a valid one stays valid, unless it vanishes.

    A polygon that is smaller than the grid is given back with no more than rounded coordinates.
    """
    rounded = shapely.transform(shape, _round)
    if shapely.is_valid(rounded) or not shapely.is_valid(shape):
        return rounded
    snapped = shapely.transform(shapely.set_precision(shape, GRID_PX0), _round)
    return rounded if snapped.is_empty else snapped


def _round(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.round(xy, DECIMALS)
