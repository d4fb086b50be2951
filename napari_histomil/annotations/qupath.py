"""Objects as QuPath writes them in GeoJSON: one Feature <-> one `Region`.

Every form that QuPath has written since 0.2 is read; the newest is written. Files, and the frame
their positions are in, are the business of `geojson.py`. Messages name the place (``feature 3``)
and not the file, which the caller knows.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.model import (
    MAX_COORDINATE_PX0,
    RGB,
    AnnotationClass,
    Extra,
    Region,
    class_named,
)
from napari_histomil.annotations.shapes import (
    GEOMETRY_TYPES,
    Shift,
    as_object,
    has_heights,
    read_polygons,
    read_shape,
    shape_member,
)
from napari_histomil.errors import AnnotationError

MAX_DEPTH = 64
"""Objects inside objects inside objects: deeper than this is damage."""

_OBJECT_TYPES = ("annotation", "detection", "tile", "cell", "tmaCore", "root")
_LEGACY_IDS = {
    "PathAnnotationObject": "annotation",
    "PathDetectionObject": "detection",
    "PathTileObject": "tile",
    "PathCellObject": "cell",
    "TMACoreObject": "tmaCore",
    "PathRootObject": "root",
}
"""QuPath 0.2 wrote the kind of an object where newer versions write its id."""

_NAMESPACE = uuid.UUID("b1f0f5c2-2c1d-5f0e-9d43-6c5a0a3e7f11")
_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
"""A UUID in the form that QuPath writes."""

_SHAPE_MEMBERS = ("type", "coordinates")
_USUAL_MEMBERS = {"type", "id", "geometry", "nucleusGeometry", "properties"}
_USUAL_PROPERTIES = {"objectType", "name", "classification", "isLocked", "measurements"}
_FLOAT = {float}
_NO_EXTRA = Extra()
_EMPTY: dict[str, Any] = {}
"""What most objects have of most things; one for all of them."""

_SPECIAL = {
    "nan": math.nan,
    "inf": math.inf,
    "infinity": math.inf,
    "-inf": -math.inf,
    "-infinity": -math.inf,
}


# --- reading ----------------------------------------------------------------------------------


def regions_from_features(features: Sequence[Any], shift: Shift) -> tuple[Region, ...]:
    """Return the regions that the Features of a file describe.

    Parameters
    ----------
    features
        Parsed JSON values.
    shift
        (x, y) to add to every coordinate.

    Raises
    ------
    AnnotationError
        As `region_from_feature`, which calls them ``feature 1`` and so on.
    """
    return read_features([features], shift)[0]


def read_features(
    pieces: Iterable[Sequence[Any]], shift: Shift
) -> tuple[tuple[Region, ...], list[str]]:
    """Return the regions that the Features of a file describe, and notes; see above.

    Parameters
    ----------
    pieces
        The Features, some at a time: what the last ones took is free before the next come.
    """
    reader = _Reader(shift)
    regions: list[Region] = []
    for features in pieces:
        reader.prepare(features)
        start = len(regions) + 1
        regions += [reader.region(each, f"feature {n}") for n, each in enumerate(features, start)]
    notes = []
    if reader.heights:
        notes.append(
            f"{reader.heights:,} shapes have heights (a third number), which were left out."
        )
    return tuple(regions), notes


def region_from_feature(feature: Any, where: str, shift: Shift) -> Region:
    """Return the region that a Feature, or a bare geometry, describes.

    Parameters
    ----------
    feature
        The parsed JSON value.
    where
        What messages call the place, e.g. ``feature 3``.
    shift
        (x, y) to add to every coordinate.

    Raises
    ------
    AnnotationError
        If it is no Feature, or a part of it is not what QuPath's format says.
    """
    return _Reader(shift).region(feature, where)


class _Reader:
    """Reads Features; remembers what many of them have in common."""

    def __init__(self, shift: Shift) -> None:
        self.shift = shift
        self.heights = 0
        """Shapes that have positions with a third number."""
        self._polygons: dict[int, BaseGeometry] = {}
        self._classes: dict[str, tuple[AnnotationClass | None, Mapping[str, Any]]] = {}

    def prepare(self, features: Sequence[Any]) -> None:
        """Make the polygons of some Features in one go, if all are as they should be."""
        members = list(_polygon_members(features, 0))
        self._polygons = read_polygons(members, self.shift, MAX_COORDINATE_PX0) or {}

    def region(self, feature: Any, where: str, depth: int = 0) -> Region:
        """Return the region of a Feature that lies in `depth` others."""
        usual = self._usual(feature) if self._polygons else None
        if usual is not None:
            return usual
        if depth > MAX_DEPTH:
            raise AnnotationError(f"{where} lies in more than {MAX_DEPTH} other objects")
        feature = as_object(feature, where)
        if feature.get("type") in (*GEOMETRY_TYPES, "GeometryCollection"):
            feature = {"type": "Feature", "geometry": feature}
        if feature.get("type", "Feature") != "Feature" or "geometry" not in feature:
            raise AnnotationError(f"{where} is not a GeoJSON Feature")
        taken = _Members(feature, where)
        properties = _Members(as_object(taken.take("properties") or {}, where), where)
        taken.take("type")
        given_id = taken.take("id")
        legacy_type = _LEGACY_IDS.get(given_id) if isinstance(given_id, str) else None
        geometry, geometry_extra, checked = self._shape(taken.take("geometry"), where)
        nucleus: BaseGeometry | None = None
        nucleus_extra: Mapping[str, Any] = _EMPTY
        nucleus_given = taken.take("nucleusGeometry")
        if nucleus_given is not None:
            nucleus, nucleus_extra, sound = self._shape(nucleus_given, f"{where}'s nucleus")
            checked = checked and sound
        classification, class_extra = self._classification(
            properties.take("classification"), where
        )
        metadata = _metadata(properties.take("metadata"), where)
        region_id = _uuid(given_id)
        if region_id is None:
            region_id = _id_of(feature, where)
            if given_id is not None and legacy_type is None:
                metadata.setdefault("id", _text(given_id))
        children = properties.take("childObjects", "children") or []
        if not isinstance(children, list):
            raise AnnotationError(f"the childObjects of {where} are not a list")
        name = properties.take("name")
        make = _unchecked if checked else Region
        try:
            return make(
                geometry=geometry,
                classification=classification,
                id=region_id,
                name=None if name is None else _text(name),
                color=_color(properties.take("color"), where),
                locked=bool(properties.take("isLocked")),
                object_type=_object_type(properties) or legacy_type or "annotation",
                measurements=_measurements(properties.take("measurements"), where),
                metadata=metadata,
                nucleus=nucleus,
                children=tuple(
                    self.region(child, f"{where}, child {n}", depth + 1)
                    for n, child in enumerate(children, 1)
                ),
                extra=Extra(
                    feature=taken.rest,
                    properties=properties.rest,
                    geometry=geometry_extra,
                    nucleus=nucleus_extra,
                    classification=class_extra,
                ),
            )
        except AnnotationError as error:
            text = str(error)
            raise AnnotationError(
                text if where in text else f"{where}: {text}".rstrip(".")
            ) from None

    def _usual(self, feature: Any) -> Region | None:
        """Return the region of a Feature as QuPath writes most of them; None for any other.

        Four times as fast as `region`, which knows all the others and what is wrong with them.
        """
        if type(feature) is not dict or not feature.keys() <= _USUAL_MEMBERS:
            return None
        properties, region_id = feature.get("properties"), feature.get("id")
        if type(properties) is not dict or not properties.keys() <= _USUAL_PROPERTIES:
            return None
        geometry = self._plain_polygon(feature.get("geometry"))
        given = feature.get("nucleusGeometry")
        nucleus = None if given is None else self._plain_polygon(given)
        measurements = properties.get("measurements", _EMPTY)
        object_type = properties.get("objectType")
        name, locked = properties.get("name"), properties.get("isLocked", False)
        if (
            geometry is None
            or (nucleus is None) != (given is None)
            or type(region_id) is not str
            or _UUID.fullmatch(region_id) is None
            or feature.get("type") != "Feature"
            or type(object_type) is not str
            or type(locked) is not bool
            or not (name is None or type(name) is str)
            or (measurements is not _EMPTY and type(measurements) is not dict)
            or not set(map(type, measurements.values())) <= _FLOAT
        ):
            return None
        given = properties.get("classification")
        try:
            classification, rest = self._classification(given, "") if given else (None, _EMPTY)
        except AnnotationError:  # `region` says where
            return None
        return _unchecked(
            geometry=geometry,
            classification=classification,
            id=region_id,
            name=name,
            color=None,
            locked=locked,
            object_type=object_type,
            measurements=measurements,
            metadata=_EMPTY,
            nucleus=nucleus,
            children=(),
            extra=Extra(classification=rest) if rest else _NO_EXTRA,
        )

    def _plain_polygon(self, value: Any) -> BaseGeometry | None:
        """Return the polygon of a member that has no other members than its coordinates."""
        ready = self._polygons.get(id(value))
        return None if ready is None or len(value) != 2 else ready

    def _shape(self, value: Any, where: str) -> tuple[BaseGeometry, Mapping[str, Any], bool]:
        """Return a shape, its other members, and whether its coordinates are checked already."""
        ready = self._polygons.get(id(value))
        if ready is None:
            self.heights += has_heights(value)
            return *read_shape(value, where, self.shift), False
        if len(value) == 2:  # type and coordinates
            return ready, _EMPTY, True
        rest = {name: each for name, each in value.items() if name not in _SHAPE_MEMBERS}
        return ready, rest, True

    def _classification(
        self, value: Any, where: str
    ) -> tuple[AnnotationClass | None, Mapping[str, Any]]:
        """Read a classification; equal ones are one value, whatever many objects have them."""
        if value is None:
            return None, _EMPTY
        key = repr(value)
        found = self._classes.get(key)
        if found is None:
            found = self._classes[key] = _classification(value, where)
        return found


def _polygon_members(features: Sequence[Any], depth: int) -> Iterator[Mapping[str, Any]]:
    """Yield the geometry members of Features and of those inside that are plain polygons."""
    for feature in features:
        if not isinstance(feature, dict):
            continue
        for name in ("geometry", "nucleusGeometry"):
            value = feature.get(name)
            if isinstance(value, dict) and value.get("type") == "Polygon":
                coordinates = value.get("coordinates")
                if isinstance(coordinates, list) and coordinates:
                    yield value
        properties = feature.get("properties")
        if isinstance(properties, dict) and depth <= MAX_DEPTH:
            for name in ("childObjects", "children"):
                if isinstance(properties.get(name), list):
                    yield from _polygon_members(properties[name], depth + 1)


def _unchecked(**values: Any) -> Region:
    """Make a region of values that are known to be sound, all of them given."""
    region = object.__new__(Region)
    for name, value in values.items():
        object.__setattr__(region, name, value)
    return region


class _Members:
    """Members of an object; what nobody takes is the rest."""

    def __init__(self, members: Mapping[str, Any], where: str) -> None:
        self.rest = dict(members)
        self.where = where

    def take(self, *names: str) -> Any:
        """Remove the members of these names (an alias last); return the first that is there."""
        values = [self.rest.pop(name) for name in names if name in self.rest]
        return values[0] if values else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _uuid(value: Any) -> str | None:
    """Return a UUID in the form that QuPath reads, None if it is none."""
    if isinstance(value, str) and _UUID.fullmatch(value):
        return value
    try:
        return str(uuid.UUID(value))
    except (ValueError, AttributeError, TypeError):
        return None


def _id_of(feature: Mapping[str, Any], where: str) -> str:
    """Make an id of place and content, so that reading the file again gives the same."""
    return str(uuid.uuid5(_NAMESPACE, where + json.dumps(feature, sort_keys=True)))


def _object_type(properties: _Members) -> str | None:
    for name in ("objectType", "object_type", "type"):
        value = properties.rest.get(name)
        # `type` is a common name: anything else that it holds is the file's own and is kept.
        if isinstance(value, str) and (name == "objectType" or value in _OBJECT_TYPES):
            return str(properties.take(name))
    return None


def _measurements(value: Any, where: str) -> dict[str, float]:
    """Read ``{name: number}``, or ``[{"name":, "value":}]`` of QuPath before 0.4."""
    if isinstance(value, list):
        pairs = [as_object(item, f"a measurement of {where}") for item in value]
        value = {_text(pair.get("name")): pair.get("value") for pair in pairs}
    items = as_object(value or {}, f"the measurements of {where}")
    if set(map(type, items.values())) <= {float}:
        return dict(items)
    return {name: _number(number, name, where) for name, number in items.items()}


def _number(value: Any, name: str, where: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, str) and value.strip().lower() in _SPECIAL:
        return _SPECIAL[value.strip().lower()]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AnnotationError(f"the measurement '{name}' of {where} is not a number")
    return float(value)


def _metadata(value: Any, where: str) -> dict[str, str]:
    items = as_object(value or {}, f"the metadata of {where}")
    return {name: _text(text) for name, text in items.items()}


def _color(value: Any, where: str) -> RGB | None:
    """Read ``[r, g, b]``, or one packed (signed) integer 0xAARRGGBB."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return (value >> 16) & 255, (value >> 8) & 255, value & 255
    whole = isinstance(value, list) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and v in range(256) for v in value
    )
    if not whole or len(value) not in (3, 4):
        raise AnnotationError(f"a colour of {where} is not three whole numbers of 0 to 255")
    return int(value[0]), int(value[1]), int(value[2])


def _classification(value: Any, where: str) -> tuple[AnnotationClass | None, Mapping[str, Any]]:
    if isinstance(value, str):
        return (class_named(value), {}) if value else (None, {})
    members = _Members(as_object(value or {}, f"the classification of {where}"), where)
    name = members.take("name")
    names = members.take("names")
    given_color = members.take("color", "colorRGB")
    if names is not None and not isinstance(names, list):
        raise AnnotationError(f"the class names of {where} are not a list")
    parts = [_text(part) for part in (names or []) or ([] if name is None else [name])]
    parent = members.take("parentClass")
    while isinstance(parent, dict):  # QuPath before 0.3 nested derived classes
        parts.insert(0, _text(parent.get("name")))
        parent = parent.get("parentClass")
    joined = ": ".join(parts)
    if not joined:
        return None, members.rest
    found = class_named(joined)
    color = _color(given_color, where) or found.color
    four = isinstance(given_color, list) and len(given_color) == 4
    return AnnotationClass(joined, color, int(given_color[3]) if four else 255), members.rest


# --- writing ----------------------------------------------------------------------------------


def feature_from_region(region: Region, shift: Shift) -> dict[str, Any]:
    """Return the Feature of a region, members in QuPath's order.

    Coordinates are rounded to hundredths; a class is always written with its colour, without
    which QuPath refuses the whole file.

    Parameters
    ----------
    region
        The region.
    shift
        (x, y) to take from every coordinate.
    """
    feature: dict[str, Any] = {
        "type": "Feature",
        "id": region.id,
        "geometry": shape_member(region.geometry, region.extra.geometry, shift),
    }
    if region.nucleus is not None:
        feature["nucleusGeometry"] = shape_member(region.nucleus, region.extra.nucleus, shift)
    properties = own_properties(region)
    if region.children:
        properties["childObjects"] = [
            feature_from_region(child, shift) for child in region.children
        ]
    feature["properties"] = properties | dict(region.extra.properties)
    return feature | dict(region.extra.feature)


def own_properties(region: Region) -> dict[str, Any]:
    """Return the properties that QuPath knows, without the objects inside."""
    properties: dict[str, Any] = {"objectType": region.object_type}
    if region.name is not None:
        properties["name"] = region.name
    if region.color is not None:
        properties["color"] = list(region.color)
    if region.classification:
        properties["classification"] = _classification_member(
            region.classification, region.extra.classification
        )
    if region.locked:
        properties["isLocked"] = True
    if region.measurements:
        properties["measurements"] = {
            name: _number_member(value) for name, value in region.measurements.items()
        }
    if region.metadata:
        properties["metadata"] = dict(region.metadata)
    return properties


def _classification_member(
    classification: AnnotationClass, extra: Mapping[str, Any]
) -> dict[str, Any]:
    names = classification.name.split(": ")
    color = list(classification.color)
    if classification.alpha not in (0, 255):
        color.append(classification.alpha)
    derived = len(names) > 1 and all(name.strip() for name in names)
    member: dict[str, Any] = {"names": names} if derived else {"name": classification.name}
    return member | {"color": color} | dict(extra)


def _number_member(value: float) -> float | int | str:
    """QuPath writes what JSON has no number for as text."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
