"""Geometry members of GeoJSON <-> shapes, with QuPath's rules.

Closed rings, [x, y] with two decimals at most, no GeometryCollection. Messages name the place
(``feature 3``) and not the file, which the caller knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.model import MAX_COORDINATE_PX0
from napari_histomil.errors import AnnotationError

Shift = tuple[float, float]

DECIMALS = 2
"""QuPath writes and keeps hundredths of a pixel."""

GEOMETRY_TYPES = (
    "Point",
    "MultiPoint",
    "LineString",
    "MultiLineString",
    "Polygon",
    "MultiPolygon",
)
_NOTHING = Polygon()


def read_shape(value: Any, where: str, shift: Shift) -> tuple[BaseGeometry, Mapping[str, Any]]:
    """Return the shape that a geometry member describes.

    Parameters
    ----------
    value
        The parsed JSON value; None gives an empty polygon.
    where
        What messages call the place.
    shift
        (x, y) to add to every coordinate.

    Returns
    -------
    shape
        One of the types in `GEOMETRY_TYPES`, in level-0 pixels.
    rest
        Members other than ``type`` and ``coordinates``.

    Raises
    ------
    AnnotationError
        If it is no geometry, has too few points, or a coordinate is no finite number.
    """
    if value is None:
        return _NOTHING, {}
    rest = dict(as_object(value, f"the geometry of {where}"))
    kind, coordinates = rest.pop("type", None), rest.pop("coordinates", None)
    if kind == "GeometryCollection":
        raise AnnotationError(
            f"{where} is a GeometryCollection, which QuPath cannot read either: "
            f"save its parts as objects of their own"
        )
    if kind not in GEOMETRY_TYPES:
        raise AnnotationError(f"{where} has a geometry of the unknown type {kind!r}")
    if not isinstance(coordinates, list):
        raise AnnotationError(f"the coordinates of {where} are {kind_of(coordinates)}, not a list")
    if not coordinates:
        return _NOTHING, rest
    return _shape(kind, coordinates, where, shift), rest


def _shape(kind: str, coordinates: list[Any], where: str, shift: Shift) -> BaseGeometry:
    if kind == "Point":
        return shapely.points(_positions([coordinates], where, shift)[0])
    if kind == "MultiPoint":
        return shapely.multipoints(shapely.points(_positions(coordinates, where, shift)))
    if kind == "LineString":
        return _line(coordinates, where, shift)
    if kind == "MultiLineString":
        return shapely.multilinestrings([_line(part, where, shift) for part in coordinates])
    if kind == "Polygon":
        return _polygon(coordinates, where, shift)
    return shapely.multipolygons([_polygon(part, where, shift) for part in coordinates])


def _line(coordinates: Any, where: str, shift: Shift) -> BaseGeometry:
    xy = _positions(coordinates, where, shift)
    if len(xy) < 2:
        raise AnnotationError(f"a line of {where} has one point, it needs two or more")
    return shapely.linestrings(xy)


def _polygon(rings: Any, where: str, shift: Shift) -> BaseGeometry:
    if not isinstance(rings, list) or not rings:
        raise AnnotationError(f"a polygon of {where} has no outline")
    shapes = []
    for ring in rings:
        xy = _positions(ring, where, shift)
        closed = len(xy) > 1 and bool((xy[0] == xy[-1]).all())
        if len(xy) - closed < 3:
            raise AnnotationError(
                f"an outline of {where} has {len(xy) - closed} points, a polygon needs 3 or more"
            )
        shapes.append(shapely.linearrings(xy if closed else np.vstack([xy, xy[:1]])))
    return shapely.polygons(shapes[0], shapes[1:] or None)


def _positions(coordinates: Any, where: str, shift: Shift) -> NDArray[np.float64]:
    """Return float64 [N, 2] of a list of [x, y]; a third number (height) is left out."""
    try:
        array = np.asarray(coordinates)
    except ValueError:  # lists of different lengths
        array = np.empty(0, object)
    if array.ndim != 2 or array.shape[1] not in (2, 3) or array.dtype.kind not in "iuf":
        raise AnnotationError(f"the coordinates of {where} are not lists of two finite numbers")
    xy = array[:, :2].astype(np.float64)
    if not np.isfinite(xy).all():
        raise AnnotationError(f"the coordinates of {where} are not lists of two finite numbers")
    if any(shift):
        xy = np.round(xy + shift, 6)  # 0.1 + 0.2 is 0.3 again
    return xy


def has_heights(value: Any) -> bool:
    """Say whether positions of a geometry member, of any kind, have a third number."""
    waiting = [value.get("coordinates")] if isinstance(value, Mapping) else []
    while waiting:
        each = waiting.pop()
        if not isinstance(each, list) or not each:
            continue
        if not isinstance(each[0], list):
            if len(each) > 2:
                return True
        elif each[0] and isinstance(each[0][0], list):
            waiting.extend(each)
        else:
            waiting.append(each[0])  # the positions of one line are all alike
    return False


def read_polygons(
    values: Iterable[Mapping[str, Any]], shift: Shift, farthest: float
) -> dict[int, BaseGeometry] | None:
    """Return the shapes of many polygon members, made in one go.

    A hundred thousand cells are read thirty times as fast as by `read_shape`. It takes only what
    is as it should be: whoever gets None asks `read_shape`, which says what is wrong where.

    Parameters
    ----------
    values
        Members of type ``Polygon`` whose coordinates are lists that are not empty.
    shift
        (x, y) to add to every coordinate.
    farthest
        No coordinate may lie farther out than this.

    Returns
    -------
    dict
        By the `id` of the member; None if anything in any of them is out of order.
    """
    members = list(values)
    rings = [ring for value in members for ring in value["coordinates"]]
    try:
        points = list(chain.from_iterable(rings))
        if set(map(len, points)) - {2} or not set(map(type, rings)) <= {list}:
            return None
        numbers = list(chain.from_iterable(points))
        if not set(map(type, numbers)) <= {int, float}:
            return None
        xy = np.array(numbers, np.float64).reshape(-1, 2)
    except (TypeError, OverflowError):
        return None
    counts = np.array([len(ring) for ring in rings], np.int64)
    if not members or counts.min() < 3:
        return None
    ends = np.cumsum(counts)
    starts = ends - counts
    closed = (xy[starts] == xy[ends - 1]).all(axis=1)
    if (counts - closed < 3).any():
        return None
    if any(shift):
        xy = np.round(xy + shift, 6)
    if not np.abs(xy).max() <= farthest:  # NaN compares as false
        return None
    if not closed.all():
        xy = np.insert(xy, ends[~closed], xy[starts[~closed]], axis=0)
        ends = np.cumsum(counts + ~closed)
    per_polygon = np.cumsum([0, *(len(value["coordinates"]) for value in members)])
    offsets = (np.concatenate([[0], ends]), per_polygon)
    shapes = shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy, offsets)
    return dict(zip(map(id, members), shapes, strict=True))


def check_near(xy: NDArray[np.float64], where: str) -> None:
    """Refuse coordinates that lie farther out than any slide, before anybody computes with them.

    Raises
    ------
    AnnotationError
        If there is one; `where` is what it calls the place.
    """
    if xy.size and np.abs(xy).max() > MAX_COORDINATE_PX0:
        farthest = max(xy.min(), xy.max(), key=abs)
        raise AnnotationError(
            f"{where} has a coordinate of {farthest:g} px, farther out than any slide"
        )


def shape_of_rings(rings: Sequence[NDArray[np.float64]]) -> Polygon:
    """Return the polygon of an outline and its holes.

    Parameters
    ----------
    rings
        float64 [N, 2] each, three vertices or more; closed or not.
    """
    closed = [
        ring if len(ring) > 3 and (ring[0] == ring[-1]).all() else np.vstack([ring, ring[:1]])
        for ring in rings
    ]
    shells = [shapely.linearrings(ring) for ring in closed]
    return shapely.polygons(shells[0], shells[1:] or None)


def shape_member(
    shape: BaseGeometry, extra: Mapping[str, Any], shift: Shift
) -> dict[str, Any] | None:
    """Return the geometry member of a shape; None for an empty one.

    Parameters
    ----------
    shape
        In level-0 pixels.
    extra
        Further members.
    shift
        (x, y) to take from every coordinate; then they are rounded to `DECIMALS`.
    """
    if shape.is_empty:
        return None
    kind = shape.geom_type
    parts = [_part_member(part, shift) for part in shapely.get_parts(shape) if not part.is_empty]
    coordinates = parts if kind.startswith("Multi") else parts[0]
    return {"type": kind, "coordinates": coordinates} | dict(extra)


def _part_member(part: BaseGeometry, shift: Shift) -> list[Any]:
    if part.geom_type == "Point":
        position: list[Any] = _pairs(part, shift)[0]
        return position
    if part.geom_type == "LineString":
        return _pairs(part, shift)
    return [_pairs(ring, shift) for ring in (part.exterior, *part.interiors)]


def _pairs(line: BaseGeometry, shift: Shift) -> list[list[float | int]]:
    xy = np.round(shapely.get_coordinates(line) - shift, DECIMALS)
    return [[int(v) if v.is_integer() else v for v in pair] for pair in xy.tolist()]


def as_object(value: Any, where: str) -> Mapping[str, Any]:
    """Return `value` if it is a JSON object; an `AnnotationError` says what it is instead."""
    if not isinstance(value, dict):
        raise AnnotationError(f"{where} is {kind_of(value)} where an object is due")
    return value


def kind_of(value: Any) -> str:
    """Return what a JSON value is, in words."""
    names = {str: "a text", list: "a list", dict: "an object", bool: "true or false"}
    return "empty" if value is None else names.get(type(value), "a number")


ELLIPSE = "isEllipse"
"""QuPath's member of a geometry that stands for the ellipse in its bounds."""

ELLIPSE_VERTICES = 128
"""A multiple of four, so that the extremes are vertices and the bounds are exact."""


def ellipse_ring(x0: float, y0: float, x1: float, y1: float) -> NDArray[np.float64]:
    """Return vertices [N, 2] of the ellipse in a rectangle."""
    angle = np.linspace(0, 2 * np.pi, ELLIPSE_VERTICES, endpoint=False)
    xy = np.column_stack(
        [
            (x0 + x1) / 2 + (x1 - x0) / 2 * np.cos(angle),
            (y0 + y1) / 2 + (y1 - y0) / 2 * np.sin(angle),
        ]
    )
    return np.round(xy, 6)


def is_ellipse(shape: BaseGeometry, members: Mapping[str, Any]) -> bool:
    """Return whether a shape is (still) the ellipse that the member `ELLIPSE` says it is."""
    if members.get(ELLIPSE) is not True or shape.geom_type != "Polygon" or shape.interiors:
        return False
    x0, y0, x1, y1 = shape.bounds
    expected = np.pi / 4 * (x1 - x0) * (y1 - y0)
    # an approximation of 16 vertices or more has 97 % of the area
    return bool(expected > 0 and abs(shape.area / expected - 1) < 0.03)
