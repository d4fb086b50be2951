"""What another program's format has no word for, kept as JSON in its free fields.

A format says some facts of a region itself (its shape, mostly its class and name). The region
that reading those alone would give is the *plain* one; what differs from it is *kept*. Where the
other program has changed a fact since, its own word counts: name, colour and class are kept
together with what the format said at the time.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.model import AnnotationClass, Extra, Region, SlideFrame
from napari_histomil.annotations.qupath import MAX_DEPTH, feature_from_region, region_from_feature
from napari_histomil.annotations.shapes import as_object
from napari_histomil.errors import AnnotationError

KEY = "histomil"
"""Name of the free field in which things are kept."""

_PARTS = tuple(part.name for part in fields(Extra))
_NOTHING = Polygon()
_ZERO = (0.0, 0.0)


def made_id(place: str, xy: NDArray[np.float64]) -> str:
    """Make an id of place and shape, so that reading a file again gives the same.

    Parameters
    ----------
    place
        Format, number in the file, and what else tells regions apart.
    xy
        float64 [N, 2], rounded as it is written.
    """
    digest = hashlib.sha1(place.encode("utf-8", "surrogatepass"), usedforsecurity=False)
    digest.update(np.ascontiguousarray(xy + 0.0).tobytes())
    return str(uuid.UUID(bytes=digest.digest()[:16], version=5))


def flat(regions: Iterable[Region], parent: str | None = None) -> Iterator[tuple[Region, str]]:
    """Yield every region with the id of the one it lies in, ``""`` for none; parents first."""
    for region in regions:
        yield region, parent or ""
        yield from flat(region.children, region.id)


def nested(found: Iterable[tuple[Region, str]]) -> tuple[Region, ...]:
    """Put regions back into those they lay in.

    Parameters
    ----------
    found
        Regions with the ids of their parents. A parent that does not come earlier is none.

    Raises
    ------
    AnnotationError
        If they lie in one another deeper than `qupath.MAX_DEPTH`.
    """
    regions: list[Region] = []
    parents: list[int] = []
    depths: list[int] = []
    last: dict[str, int] = {}
    for region, parent in found:
        index = last.get(parent, -1) if parent else -1
        depths.append(depths[index] + 1 if index >= 0 else 0)
        if depths[-1] > MAX_DEPTH:
            raise AnnotationError(f"a region lies in more than {MAX_DEPTH} others")
        parents.append(index)
        last[region.id] = len(regions)
        regions.append(region)
    children: dict[int, list[Region]] = {}
    for index in reversed(range(len(regions))):
        own = children.pop(index, [])
        if own:
            regions[index] = replace(regions[index], children=tuple(reversed(own)))
        if parents[index] >= 0:
            children.setdefault(parents[index], []).append(regions[index])
    return tuple(region for region, index in zip(regions, parents, strict=True) if index < 0)


def kept_members(region: Region, plain: Region, parent: str = "", *, own: str) -> dict[str, Any]:
    """Return what differs from the plain region, children left out; empty if nothing does.

    Parameters
    ----------
    region
        What is written.
    plain
        What reading the format's own words will give.
    parent
        Id of the region it lies in.
    own
        Key of ``extra.properties`` that the format writes in its own words.
    """
    members: dict[str, Any] = {}
    if region.id != plain.id:
        members["id"] = region.id
    if parent:
        members["parent"] = parent
    if region.name != plain.name:
        members["name"] = [plain.name, region.name]
    if region.color != plain.color:
        members["color"] = [_listed(plain.color), _listed(region.color)]
    if region.classification != plain.classification:
        members["class"] = [plain.class_name, _class_json(region.classification)]
    bare = replace(
        region, geometry=_NOTHING, name=None, color=None, classification=None, children=(),
        extra=Extra(),
    )  # fmt: skip
    feature = feature_from_region(bare, _ZERO)
    properties = feature["properties"]
    if region.object_type == plain.object_type:
        del properties["objectType"]
    if region.nucleus is not None:
        members["nucleusGeometry"] = feature["nucleusGeometry"]
    if properties:
        members["properties"] = properties
    extra = {part: dict(getattr(region.extra, part)) for part in _PARTS}
    for key in plain.extra.geometry:
        extra["geometry"].pop(key, None)
    extra["properties"].pop(own, None)
    extra = {part: held for part, held in extra.items() if held}
    if extra:
        members["extra"] = extra
    return members


def restored(plain: Region, members: Any, where: str) -> tuple[Region, str]:
    """Return the region with what was kept of it, and the id of the one it lies in.

    Raises
    ------
    AnnotationError
        If what was kept is not what `kept_members` gives.
    """
    members = as_object(members, f"what this program kept of {where}")
    given = {
        key: members[key] for key in ("id", "nucleusGeometry", "properties") if key in members
    }
    base = {"type": "Feature", "id": plain.id, "geometry": None}
    whole = region_from_feature(base | given, where, _ZERO)
    extra = as_object(members.get("extra") or {}, f"what this program kept of {where}")
    parts = {
        part: {
            **as_object(extra.get(part) or {}, f"what this program kept of {where}"),
            **getattr(plain.extra, part),
        }
        for part in _PARTS
    }
    said_name, name = _pair(members.get("name"), where)
    said_color, color = _pair(members.get("color"), where)
    said_class, classification = _pair(members.get("class"), where)
    region = replace(
        plain,
        id=whole.id,
        locked=whole.locked,
        object_type=whole.object_type if "objectType" in given.get("properties", {})
        else plain.object_type,
        measurements=whole.measurements,
        metadata=whole.metadata,
        nucleus=whole.nucleus,
        extra=Extra(**parts),
    )  # fmt: skip
    if "name" in members and said_name == region.name:
        region = replace(region, name=None if name is None else str(name))
    if "color" in members and said_color == _listed(region.color):
        region = replace(region, color=_color(color, where))
    if "class" in members and said_class == region.class_name:
        region = replace(region, classification=_class(classification, where))
    parent = members.get("parent", "")
    return region, parent if isinstance(parent, str) else ""


def multi_member(shape: BaseGeometry) -> dict[str, str]:
    """Return what is kept of a shape of several parts that has one only."""
    alone = shape.geom_type in ("MultiPolygon", "MultiLineString") and len(shape.geoms) == 1
    return {"shape": shape.geom_type} if alone else {}


def as_multi(shape: BaseGeometry, members: Any) -> BaseGeometry:
    """Make a shape of several parts of one, where `multi_member` says so."""
    kind = members.get("shape") if isinstance(members, Mapping) else None
    if kind == "MultiPolygon" and shape.geom_type == "Polygon":
        return shapely.multipolygons([shape])
    if kind == "MultiLineString" and shape.geom_type == "LineString":
        return shapely.multilinestrings([shape])
    return shape


def kept_text(members: Mapping[str, Any]) -> str:
    """Return kept members as JSON of ASCII, which every format and every file can hold."""
    return json.dumps(members, separators=(",", ":"))


def parsed_text(text: str, where: str) -> Any:
    """Return the value of `kept_text`.

    Raises
    ------
    AnnotationError
        If it is damaged.
    """
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        raise AnnotationError(f"what this program kept of {where} is damaged") from None


def file_members(frame: SlideFrame, extra: Mapping[str, Any], *, own: str) -> dict[str, Any]:
    """Return what is kept of a file as a whole: its slide, and what other formats hold."""
    slide = {"name": frame.slide, "fingerprint": frame.fingerprint}
    rest = {key: value for key, value in extra.items() if key != own}
    return ({"slide": slide} if any(slide.values()) else {}) | ({"extra": rest} if rest else {})


def file_facts(members: Any, where: str = "the file") -> tuple[str, str, dict[str, Any]]:
    """Return the slide's name, its fingerprint and the extra that `file_members` kept."""
    members = as_object(members, f"what this program kept of {where}")
    slide = as_object(members.get("slide") or {}, "the slide of the file")
    extra = as_object(members.get("extra") or {}, f"what this program kept of {where}")
    return str(slide.get("name", "")), str(slide.get("fingerprint", "")), dict(extra)


def _listed(color: tuple[int, int, int] | None) -> list[int] | None:
    return None if color is None else list(color)


def _class_json(value: AnnotationClass | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {"name": value.name, "color": [*value.color, value.alpha]}


def _pair(value: Any, where: str) -> tuple[Any, Any]:
    if value is None:
        return None, None
    if not isinstance(value, list) or len(value) != 2:
        raise AnnotationError(f"what this program kept of {where} is damaged")
    return value[0], value[1]


def _color(value: Any, where: str) -> tuple[int, int, int] | None:
    if value is None:
        return None
    numbers = _bytes(value, 3, where)
    return numbers[0], numbers[1], numbers[2]


def _class(value: Any, where: str) -> AnnotationClass | None:
    if value is None:
        return None
    value = as_object(value, f"the class of {where}")
    red, green, blue, alpha = _bytes(value.get("color"), 4, where)
    return AnnotationClass(str(value.get("name", "")), (red, green, blue), alpha)


def _bytes(value: Any, count: int, where: str) -> list[int]:
    whole = isinstance(value, list) and len(value) == count
    if not whole or not all(type(v) is int and 0 <= v <= 255 for v in value):
        raise AnnotationError(f"a colour of {where} is not {count} whole numbers of 0 to 255")
    return list(value)
