"""Annotations of the Digital Slide Archive (HistomicsUI), JSON <-> regions.

A document has a name, free attributes and elements; the element's group is the class, its label
the name. The server refuses properties that its schema does not name and ids that are not 24
hexadecimal digits, so only those are written; ``user`` is the field that it leaves free.
Elements that are no shapes (heatmaps, grids, images over the slide) are kept and written back.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.files import AnnotationFile, plain_frame, with_own_ids
from napari_histomil.annotations.kept import (
    KEY,
    file_facts,
    file_members,
    flat,
    kept_members,
    made_id,
    nested,
    restored,
)
from napari_histomil.annotations.model import (
    RGB,
    Extra,
    Region,
    SlideFrame,
    class_named,
)
from napari_histomil.annotations.shapes import (
    ELLIPSE,
    as_object,
    check_near,
    ellipse_ring,
    is_ellipse,
    kind_of,
    shape_of_rings,
)
from napari_histomil.errors import AnnotationError, brief, listed

OWN = "dsa"
"""Member of a region's and a file's extra that holds what only this format uses."""

NAME = "Annotations"
"""What a document is called that nobody has named: the server refuses an empty name."""

DECIMALS = 6

_SHAPES = ("polyline", "point", "rectangle", "ellipse", "circle", "arrow")
_MEMBERS = {
    "type", "id", "group", "label", "user", "lineColor", "lineWidth", "fillColor", "points",
    "closed", "holes", "center", "radius", "width", "height", "rotation", "normal",
}  # fmt: skip
"""What is read of an element that is a shape."""

_KEPT = ("heatmap", "griddata", "image", "pixelmap", "rectanglegrid")
_ID = re.compile("[0-9a-f]{24}")
_RGB = re.compile(r"rgba?\((\d{1,3}),\s*(\d{1,3}),\s*(\d{1,3})(?:,\s*[\d.]+)?\)")
_STYLE = ("lineColor", "lineWidth", "fillColor")
_NOTHING = shapely.Polygon()
Xy = NDArray[np.float64]


def is_dsa(document: Any) -> bool:
    """Return whether a parsed JSON value is such a document, or a list of them."""
    first = document[0] if isinstance(document, list) and document else document
    if isinstance(first, Mapping) and isinstance(first.get("annotation"), Mapping):
        first = first["annotation"]
    return isinstance(first, Mapping) and "elements" in first and "type" not in first


# --- reading ----------------------------------------------------------------------------------


def read_dsa(document: Any, *, frame: SlideFrame | None = None) -> AnnotationFile:
    """Return what one parsed document, or a list of them, holds.

    Parameters
    ----------
    document
        ``{"name":, "elements": [...]}``, as it is or as the member ``annotation`` of what the
        server gives.
    frame
        Frame of the slide that the person says it belongs to. Positions count from the corner
        of the whole slide.

    Raises
    ------
    AnnotationError
        If an element lacks what its type needs.
    """
    several = isinstance(document, list)
    pairs: list[tuple[Region, str, str]] = []
    documents: list[dict[str, Any]] = []
    notes: dict[str, int] = {}
    unread: dict[str, None] = {}
    heights = 0
    record: Any = {}
    for number, given in enumerate(document if several else [document]):
        wrapper = as_object(given, f"document {number + 1}")
        wrapped = isinstance(wrapper.get("annotation"), Mapping)
        inner = dict(wrapper["annotation"] if wrapped else wrapper)
        elements = inner.pop("elements", None)
        if not isinstance(elements, list):
            raise AnnotationError(f"document {number + 1} has no list of elements")
        attributes = dict(as_object(inner.get("attributes") or {}, "its attributes"))
        record = attributes.pop(KEY, None) or record
        if "attributes" in inner:
            inner["attributes"] = attributes
        others = []
        count = 0
        for n, element in enumerate(elements):
            where = f"element {n + 1}" + (f" of document {number + 1}" if several else "")
            element = as_object(element, where)
            kind = element.get("type")
            if kind in _SHAPES:
                pairs.append(_region(element, where, number, count))
                count += 1
                unread.update(dict.fromkeys(element.keys() - _MEMBERS))
                heights += _has_heights(element)
                continue
            if not isinstance(kind, str):
                raise AnnotationError(f"{where} has no type")
            name = kind if kind in _KEPT else "unknown"
            notes[name] = notes.get(name, 0) + 1
            others.append([n, dict(element)])
        outer = {k: v for k, v in wrapper.items() if k != "annotation"} if wrapped else None
        documents.append({"members": inner, "others": others, "wrapper": outer})
    slide, fingerprint, extra = file_facts(record)
    found, other = plain_frame(frame, slide, fingerprint)
    said = [
        f"{count} elements of type {name} are no shapes: they are kept and written back, "
        f"and not shown."
        for name, count in notes.items()
    ]
    if unread:
        names = listed([f"'{brief(name)}'" for name in sorted(unread)])
        said.append(f"Members of elements that the format does not have were left out: {names}.")
    if heights:
        said.append(f"{heights} elements have heights (Z), which were left out.")
    regions, again = with_own_ids(_gathered(pairs))
    own = {"documents": documents, "list": several}
    return AnnotationFile(regions, found, (*other, *said, *again), extra | {OWN: own}, "dsa")


def _gathered(found: list[tuple[Region, str, str]]) -> tuple[Region, ...]:
    """Join the parts of regions, then put regions into those they lay in."""
    whole: list[tuple[Region, str]] = []
    parts: list[list[BaseGeometry]] = []
    last: dict[str, int] = {}
    for region, parent, part_of in found:
        index = last.get(part_of, -1) if part_of else -1
        shapes = list(shapely.get_parts(region.geometry))
        if index >= 0 and whole[index][0].geometry.geom_type == _multi(shapes).geom_type:
            parts[index] += shapes
            continue
        if not part_of:
            last[region.id] = len(whole)
        whole.append((region, parent))
        parts.append(shapes)
    return nested(
        (replace(region, geometry=_multi(shapes)) if len(shapes) > 1 else region, parent)
        for (region, parent), shapes in zip(whole, parts, strict=True)
    )


def _multi(parts: list[BaseGeometry]) -> BaseGeometry:
    make = {"Polygon": shapely.multipolygons, "LineString": shapely.multilinestrings}
    return make.get(parts[0].geom_type, shapely.multipoints)(parts)


def _region(
    element: Mapping[str, Any], where: str, document: int, number: int
) -> tuple[Region, str, str]:
    """Return an element's region, the id of its parent, and of the region that it is a part of."""
    geometry, xy, ellipse = _shape(element, where)
    user = element.get("user")
    user = as_object(user, f"the field user of {where}") if user is not None else {}
    members = user.get(KEY)
    members = as_object(members, f"what this program kept of {where}") if members else {}
    if members.get("multi") is True:
        geometry = _multi([geometry])
    plain = _plain(element, geometry, xy, f"{document} {number}", where, ellipse=ellipse)
    parent = ""
    if members:
        plain, parent = restored(plain, members, where)
    own: dict[str, Any] = {}
    if document:
        own["document"] = document
    given = element.get("id")
    if isinstance(given, str) and given != _id24(plain.id):
        own["id"] = given
    rest = {key: value for key, value in user.items() if key != KEY}
    if rest:
        own["user"] = rest
    label = element.get("label")
    more = {k: v for k, v in label.items() if k != "value"} if isinstance(label, Mapping) else {}
    if more:
        own["label"] = more
    usual = _style(plain)
    style = {key: element.get(key) for key in _STYLE if element.get(key) != usual.get(key)}
    if style:
        own["style"] = style
    kept = _kept_shape(element, geometry)
    if kept:
        own["shape"] = kept
    if own:
        properties = {**plain.extra.properties, OWN: own}
        plain = replace(plain, extra=replace(plain.extra, properties=properties))
    part_of = members.get("part_of")
    return plain, parent, part_of if isinstance(part_of, str) else ""


def _has_heights(element: Mapping[str, Any]) -> bool:
    """Say whether positions of an element that was read have a height other than 0."""
    rings = [[element["center"]] if "center" in element else element["points"]]
    rings += element.get("holes") or []
    return any(len(point) > 2 and point[2] for ring in rings for point in ring)


def _kept_shape(element: Mapping[str, Any], geometry: BaseGeometry) -> dict[str, Any]:
    """Return a rectangle's, an ellipse's or a circle's own numbers, which write it back."""
    kind = element["type"]
    if kind in ("polyline", "point"):
        return {}
    names = {"arrow": ("type", "points"), "circle": ("type", "center", "radius")}
    wanted = names.get(kind, ("type", "center", "width", "height", "rotation", "normal"))
    return {key: element[key] for key in wanted if key in element}


def _plain(
    element: Mapping[str, Any],
    geometry: BaseGeometry,
    xy: Xy,
    place: str,
    where: str,
    *,
    ellipse: bool,
) -> Region:
    """Return the region that the format's own words describe."""
    group = element.get("group")
    label = element.get("label")
    value = label.get("value") if isinstance(label, Mapping) else None
    for what, text in (("group", group), ("label", value)):
        if text is not None and not isinstance(text, str):
            raise AnnotationError(f"the {what} of {where} is {kind_of(text)}, not a text")
    color = _color(element.get("lineColor"))
    classification = class_named(group) if group else None
    if classification is not None and color is not None:
        classification = replace(classification, color=color)
    try:
        return Region(
            geometry,
            classification,
            id=made_id(f"dsa {place}", np.round(xy, DECIMALS)),
            name=value or None,
            color=None if classification else color,
            extra=Extra(geometry={ELLIPSE: True} if ellipse else {}),
        )
    except AnnotationError as error:
        raise AnnotationError(f"{where}: {str(error).rstrip('.')}") from None


def _color(text: Any) -> RGB | None:
    """Read ``#rgb``, ``#rrggbb``, ``rgb(r, g, b)`` or ``rgba(r, g, b, a)``."""
    if not isinstance(text, str):
        return None
    if found := _RGB.fullmatch(text):
        red, green, blue = (min(int(value), 255) for value in found.groups())
        return red, green, blue
    if re.fullmatch("#[0-9a-fA-F]{3}", text):
        text = "#" + "".join(2 * digit for digit in text[1:])
    if re.fullmatch("#[0-9a-fA-F]{6}", text):
        return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
    return None


def _shape(element: Mapping[str, Any], where: str) -> tuple[BaseGeometry, Xy, bool]:
    """Return an element's shape, the vertices it is known by, and whether it is an ellipse."""
    kind = element["type"]
    if kind in ("polyline", "arrow"):
        xy = _points(element.get("points"), where)
        if element.get("closed") is True and kind == "polyline":
            if len(xy) < 3:
                raise AnnotationError(f"{where} is closed and has {len(xy)} points, not 3 or more")
            holes = element.get("holes") or []
            if not isinstance(holes, list):
                raise AnnotationError(f"the holes of {where} are not a list")
            rings = [_points(hole, f"a hole of {where}") for hole in holes]
            if any(len(ring) < 3 for ring in rings):
                raise AnnotationError(f"a hole of {where} has fewer than 3 points")
            return shape_of_rings([xy, *rings]), xy, False
        if len(xy) < 2:
            raise AnnotationError(f"{where} is a line of {len(xy)} points, not 2 or more")
        return shapely.linestrings(xy), xy, False
    center = _points([element.get("center")], where)
    if kind == "point":
        return shapely.points(center[0]), center, False
    if kind == "circle":
        width = height = 2 * _number(element, "radius", where)
    else:
        width, height = _number(element, "width", where), _number(element, "height", where)
    angle = 0.0 if kind == "circle" else _number(element, "rotation", where, default=0.0)
    w, h = width / 2, height / 2
    corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]])
    ring = corners if kind == "rectangle" else ellipse_ring(-w, -h, w, h)
    turned = ring @ np.array(
        [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    )
    xy = np.round(turned + center, 6)
    upright = kind != "rectangle" and (not angle or width == height)
    return shape_of_rings([xy]), xy, upright and width > 0 < height


def _points(value: Any, where: str) -> Xy:
    """Return float64 [N, 2] of a list of [x, y, z]."""
    wrong = f"the points of {where} are not lists of two or three finite numbers"
    if not isinstance(value, list):
        raise AnnotationError(wrong)
    try:
        array = np.asarray(value)
    except ValueError:
        raise AnnotationError(wrong) from None
    if not len(value):
        return np.empty((0, 2))
    if array.ndim != 2 or array.shape[1] not in (2, 3) or array.dtype.kind not in "iuf":
        raise AnnotationError(wrong)
    xy = array[:, :2].astype(np.float64)
    if not np.isfinite(array).all():
        raise AnnotationError(wrong)
    check_near(xy, where)
    return xy


def _number(
    element: Mapping[str, Any], name: str, where: str, default: float | None = None
) -> float:
    value = element.get(name, default)
    if type(value) in (int, float) and abs(value) <= 1e9:
        return float(value)
    raise AnnotationError(f"the {name} of {where} is not a finite number")


# --- writing ----------------------------------------------------------------------------------


def dsa_document(
    regions: Iterable[Region], frame: SlideFrame, extra: Mapping[str, Any]
) -> tuple[Any, list[str]]:
    """Return the document (or the list of documents) to write, and notes.

    Parameters
    ----------
    regions
        In level-0 pixels of the whole slide.
    frame
        Its slide is written down; its origin is not.
    extra
        `AnnotationFile.extra`: what documents held besides shapes is written again.
    """
    held = extra.get(OWN)
    own = held if isinstance(held, Mapping) else {}
    read = own.get("documents")
    documents = [each for each in read if isinstance(each, Mapping)] if isinstance(
        read, list
    ) else []  # fmt: skip
    documents = documents or [{}]
    elements: list[list[dict[str, Any]]] = [[] for _ in documents]
    counts = [0] * len(documents)
    empty = kept = 0
    for region, parent in flat(regions):
        if region.geometry.is_empty:
            empty += 1
            continue
        said = region.extra.properties.get(OWN)
        said = said if isinstance(said, Mapping) else {}
        index = said.get("document", 0)
        index = index if type(index) is int and 0 <= index < len(documents) else 0
        made, some = _elements(region, parent, said, index, counts[index])
        counts[index] += len(made)
        elements[index] += made
        kept += some
    record = file_members(frame, extra, own=OWN)
    result = [
        _document(each, own_elements, record if n == 0 else {})
        for n, (each, own_elements) in enumerate(zip(documents, elements, strict=True))
    ]
    notes = []
    if kept:
        notes.append(
            f"HistomicsUI has no words for everything that {kept} regions hold (measurements, "
            f"notes, locks): it stands in the field 'user' of each."
        )
    if empty:
        notes.append(f"{empty} objects without a shape were left out: the format knows none.")
    return (result if own.get("list") is True else result[0]), notes


def _document(
    read: Mapping[str, Any], elements: list[dict[str, Any]], record: Mapping[str, Any]
) -> dict[str, Any]:
    members = read.get("members")
    inner = dict(members) if isinstance(members, Mapping) else {}
    inner.setdefault("name", NAME)
    if record:
        given = inner.get("attributes")
        inner["attributes"] = (dict(given) if isinstance(given, Mapping) else {}) | {KEY: record}
    others = read.get("others")
    for each in others if isinstance(others, list) else []:
        if isinstance(each, list | tuple) and len(each) == 2 and type(each[0]) is int:
            elements.insert(max(each[0], 0), each[1])
    inner["elements"] = elements
    wrapper = read.get("wrapper")
    return {**wrapper, "annotation": inner} if isinstance(wrapper, Mapping) else inner


def _elements(
    region: Region, parent: str, said: Mapping[str, Any], document: int, number: int
) -> tuple[list[dict[str, Any]], bool]:
    """Return the elements of a region, and whether something of it had to be kept."""
    multi = region.geometry.geom_type.startswith("Multi")
    parts = list(shapely.get_parts(region.geometry))
    result = []
    record = False
    for index, part in enumerate(parts):
        element, xy, ellipse = _element_shape(part, region, said)
        element = {"type": element.pop("type")} | _words(region, said) | element
        if index == 0:
            plain = _plain(element, _NOTHING, xy, f"{document} {number}", "", ellipse=ellipse)
            members = kept_members(region, plain, parent, own=OWN)
            record = bool(members)
            if multi:
                members |= {"id": region.id, "multi": True}
            given = said.get("id")
            element["id"] = given if isinstance(given, str) and _ID.fullmatch(given) else _id24(
                region.id
            )  # fmt: skip
        else:
            members = {"part_of": region.id}
        user = said.get("user")
        user = dict(user) if isinstance(user, Mapping) and index == 0 else {}
        if members:
            user[KEY] = members
        if user:
            element["user"] = user
        result.append(element)
    return result, record


def _id24(region_id: str) -> str:
    return region_id.replace("-", "")[:24]


def _words(region: Region, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return group, label and colours."""
    words: dict[str, Any] = {}
    if region.classification is not None:
        words["group"] = region.classification.name
    label = said.get("label")
    label = dict(label) if isinstance(label, Mapping) else {}
    if region.name or label:
        words["label"] = {"value": region.name or "", **label}
    held = said.get("style")
    usual, had = _style(region), dict(held) if isinstance(held, Mapping) else {}
    gives = _color(had.get("lineColor", usual.get("lineColor")))
    if region.classification is not None:
        gives = gives or class_named(region.classification.name).color
    means = region.color or (region.classification.color if region.classification else None)
    if gives != means:  # the class has another colour by now
        had.pop("lineColor", None)
    style = usual | had
    return words | {key: value for key, value in style.items() if value is not None}


def _style(region: Region) -> dict[str, Any]:
    """Return how a region is drawn where nobody says otherwise."""
    if region.classification is None and region.color is None:
        return {}
    red, green, blue = region.shown_color
    return {"lineColor": f"rgb({red},{green},{blue})", "lineWidth": 2}


def _element_shape(
    part: BaseGeometry, region: Region, said: Mapping[str, Any]
) -> tuple[dict[str, Any], Xy, bool]:
    """Return an element's own members, the vertices it is known by, whether it is an ellipse."""
    kept = said.get("shape")
    if isinstance(kept, Mapping) and kept.get("type") in _SHAPES:
        try:
            same, xy, ellipse = _shape(kept, "")
        except AnnotationError:
            same = None
        if same is not None and same.geom_type == part.geom_type and same.equals_exact(part, 1e-3):
            return dict(kept), xy, ellipse
    if is_ellipse(region.geometry, region.extra.geometry):
        x0, y0, x1, y1 = part.bounds
        xy = np.round(ellipse_ring(x0, y0, x1, y1), 6)
        element = {
            "type": "ellipse", "center": [*_pair((x0 + x1) / 2, (y0 + y1) / 2), 0],
            "width": _short(x1 - x0), "height": _short(y1 - y0), "rotation": 0,
        }  # fmt: skip
        return element, _shape(element, "")[1], True
    if part.geom_type == "Point":
        xy = shapely.get_coordinates(part)
        return {"type": "point", "center": _triples(xy)[0]}, xy, False
    if part.geom_type == "LineString":
        xy = shapely.get_coordinates(part)
        return {"type": "polyline", "points": _triples(xy), "closed": False}, xy, False
    rings = [shapely.get_coordinates(ring)[:-1] for ring in shapely.get_rings(part)]
    element = {"type": "polyline", "points": _triples(rings[0]), "closed": True}
    if len(rings) > 1:
        element["holes"] = [_triples(ring) for ring in rings[1:]]
    return element, rings[0], False


def _triples(xy: Xy) -> list[list[float]]:
    return [[*_pair(x, y), 0] for x, y in xy.tolist()]


def _pair(x: float, y: float) -> tuple[float, float]:
    return _short(x), _short(y)


def _short(value: float) -> float:
    value = round(value, DECIMALS)
    return int(value) if value.is_integer() else value
