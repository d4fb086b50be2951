"""ASAP's XML <-> regions.

An annotation has a name, a type, a group, a colour and vertices; a group has a name, a colour, a
parent and free attributes. The group is the class. ASAP knows no holes and no shapes of several
parts, so those become several annotations, and what ASAP keeps when it saves says which belong
together: a region of parts or with holes has ``[part 1 of 2, 7b6a8f4e6f43]`` at the end of its
annotations' names, its holes ``[hole of part 1, ...]``, and they lie in a group of their own with
the attribute ``holes-of``. A hole that somebody draws in that group counts as well.

ASAP takes the numbers ``Order`` for indices without a check and refuses a file with a group that
is not declared, so what is written obeys both. Everything else that a region has stands in an
attribute ``Histomil`` of its annotation, which ASAP does not read (and drops when it saves).
Types: a ``Spline`` has the area of its control points, as in the masks that ASAP makes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.files import AnnotationFile, plain_frame, with_own_ids
from napari_histomil.annotations.kept import (
    as_multi,
    file_facts,
    made_id,
    nested,
    parsed_text,
    restored,
)
from napari_histomil.annotations.mapping import Cutout, cut_out
from napari_histomil.annotations.model import (
    AnnotationClass,
    Region,
    SlideFrame,
    class_named,
)
from napari_histomil.annotations.shapes import shape_of_rings
from napari_histomil.annotations.xml_files import (
    DECIMALS,
    color_hex,
    hex_color,
    positions,
    unknown_notes,
)
from napari_histomil.errors import AnnotationError

ROOT = "ASAP_Annotations"

OWN = "asap"
"""Member of a region's and a file's extra that holds what only ASAP uses."""

TYPES = ("None", "Dot", "Polygon", "Spline", "PointSet", "Measurement", "Rectangle")

DEFAULT_COLOR = "#F4FA58"
"""What ASAP gives a new annotation; on one without a group it stands for no colour of its own."""

HOLES_OF = "holes-of"
"""Attribute of the group that the holes of a class lie in."""

HOLES_COLOR = "#808080"

RECORD = "Histomil"
"""Attribute with what ASAP has no word for, see `kept`."""

_KNOWN = {
    ROOT: (RECORD,), "Annotations": (), "AnnotationGroups": (),
    "Annotation": ("Name", "Type", "PartOfGroup", "Color", RECORD),
    "Coordinates": (), "Coordinate": ("Order", "X", "Y"),
    "Group": ("Name", "PartOfGroup", "Color"), "Attributes": (), "Attribute": None,
}  # fmt: skip
"""Elements and attributes that are read."""

NO_GROUP = "None"
_AREAS = ("Polygon", "Spline", "Rectangle")
SUFFIX = re.compile(r" ?\[(hole of )?part ([0-9]{1,6})(?: of [0-9]{1,6})?, ([0-9a-f]{12})\]\Z")
_XML_NAME = re.compile(r"[^\W\d][\w.-]*")
NOTHING = shapely.Polygon()


@dataclass(slots=True)
class Item:
    """An annotation element."""

    where: str
    number: int
    name: str
    kind: str
    group: str
    color: str | None
    record: str | None
    xy: NDArray[np.float64]
    holes: list[NDArray[np.float64]] = field(default_factory=list)


def read_asap(root: Element, *, frame: SlideFrame | None = None) -> AnnotationFile:
    """Return what the root element of an ASAP file holds.

    Parameters
    ----------
    root
        ``ASAP_Annotations``, or ``Annotations`` where the file has no root of its own.
    frame
        Frame of the slide that the person says it belongs to. ASAP counts from the corner of
        the whole slide, whatever its bounds.

    Raises
    ------
    AnnotationError
        If a coordinate is missing or not a finite number, or what this program kept is damaged.
    """
    groups = {
        element.get("Name", ""): element for element in root.iterfind("AnnotationGroups/Group")
    }
    holes_of = {
        name: of for name, element in groups.items() if (of := _attributes(element).get(HOLES_OF))
    }
    listed = root if root.tag == "Annotations" else root.find("Annotations")
    elements = [] if listed is None else listed.findall("Annotation")
    items, loose, notes = _items(elements, holes_of)
    colors = {name: hex_color(element.get("Color")) for name, element in groups.items()}
    undeclared: set[str] = set()
    pairs = []
    for parts in (alike for each in items for alike in _alike(each)):
        group = parts[0].group
        if group not in (NO_GROUP, "") and group not in groups:
            undeclared.add(group)
        pairs.append(_region(parts, colors))
    notes += [
        f"The group {name} is used and not declared, so that ASAP refuses the file: "
        f"it was read as a class."
        for name in sorted(undeclared)
    ]
    odd = sum(len(part.xy) in (1, 2) and part.kind in _AREAS for parts in items for part in parts)
    if odd:
        notes.append(
            f"{odd} outlines have one or two points only: they were read as points and lines."
        )
    notes += unknown_notes(root, _KNOWN, "ASAP")
    regions, again = with_own_ids(nested(pairs))
    regions, cut = cut_out(regions, loose)
    name, fingerprint, extra = file_facts(parsed_text(root.get(RECORD) or "{}", "the file"))
    found, other = plain_frame(frame, name, fingerprint)
    kept = [_group(element) for name, element in groups.items() if name not in holes_of]
    return AnnotationFile(
        regions, found, (*other, *notes, *again, *cut), extra | {OWN: {"groups": kept}}, "asap"
    )


def _group(element: Element) -> dict[str, Any]:
    return {
        "name": element.get("Name", ""),
        "parent": element.get("PartOfGroup", NO_GROUP),
        "color": element.get("Color", ""),
        "attributes": _attributes(element),
    }


def _attributes(group: Element) -> dict[str, str]:
    """ASAP puts the name of an attribute where others put the name of a field."""
    return {
        name: value
        for element in group.iterfind("Attributes/Attribute")
        for name, value in element.items()
    }


def _items(
    elements: list[Element], holes_of: Mapping[str, str]
) -> tuple[list[list[Item]], list[Cutout], list[str]]:
    """Return the annotations, those of one region together, and holes that belong to no part."""
    items: list[list[Item]] = []
    parts: dict[tuple[str, int], Item] = {}
    by_token: dict[str, list[Item]] = {}
    holes: list[tuple[Item, tuple[str, int] | None]] = []
    unsorted = 0
    for number, element in enumerate(elements):
        item, in_order = _item(element, number)
        unsorted += not in_order
        suffix = SUFFIX.search(item.name)
        key = (suffix[3], int(suffix[2])) if suffix is not None else None
        if item.group in holes_of and item.kind in _AREAS and len(item.xy) >= 3:
            holes.append((item, key))
        elif suffix is None or key is None or suffix[1] or key in parts:
            items.append([item])
        else:
            item.name = item.name[: suffix.start()]
            parts[key] = item
            if key[0] not in by_token:
                by_token[key[0]] = []
                items.append(by_token[key[0]])
            by_token[key[0]].append(item)
    loose = []
    for item, key in holes:
        if key in parts and key is not None:
            parts[key].holes.append(item.xy)
        else:
            loose.append(Cutout(shape_of_rings([item.xy]), (holes_of[item.group],), item.where))
    notes = (
        [f"{unsorted} annotations number their vertices with gaps: they are in the file's order."]
        if unsorted
        else []
    )
    return items, loose, notes


def _item(element: Element, number: int) -> tuple[Item, bool]:
    name = element.get("Name", "")
    where = f"annotation {number + 1}" + (f" ({name[:40]})" if name else "")
    vertices = element.findall("Coordinates/Coordinate")
    xy = positions(vertices, where)
    order = [vertex.get("Order", "") for vertex in vertices]
    in_order = True
    if order != [str(n) for n in range(len(order))]:
        numbers = [int(text) if re.fullmatch("[0-9]{1,9}", text) else -1 for text in order]
        in_order = sorted(numbers) == list(range(len(numbers)))
        if in_order:
            xy = xy[np.argsort(numbers)]
    kind = element.get("Type", NO_GROUP)
    group = element.get("PartOfGroup", NO_GROUP)
    color, record = element.get("Color"), element.get(RECORD)
    return Item(where, number, name, kind, group, color, record, xy), in_order


def _region(parts: list[Item], colors: Mapping[str, Any]) -> tuple[Region, str]:
    """Return the region of one annotation, or of several that are its parts; and its parent."""
    first = parts[0]
    classification = None
    if first.group not in (NO_GROUP, ""):
        classification = class_named(first.group)
        color = colors.get(first.group)
        if color is not None:
            classification = replace(classification, color=color)
    members = parsed_text(first.record, first.where) if first.record else None
    geometry = as_multi(_geometry(parts), members)
    plain = plain_region(first, geometry, classification, first.color)
    parent = ""
    if members is not None:
        plain, parent = restored(plain, members, first.where)
    own = {}
    if first.kind != usual_type(plain):
        own["type"] = first.kind
    if first.color != usual_color(plain):
        own["color"] = first.color or ""
    if own:
        properties = {**plain.extra.properties, OWN: own}
        plain = replace(plain, extra=replace(plain.extra, properties=properties))
    return plain, parent


def plain_region(
    first: Item,
    geometry: BaseGeometry,
    classification: AnnotationClass | None,
    color: str | None,
) -> Region:
    """Return the region that ASAP's own words describe."""
    own = None if classification or color == DEFAULT_COLOR else hex_color(color)
    try:
        return Region(
            geometry,
            classification,
            id=_made_id(first.number, first.kind, first.xy),
            name=first.name or None,
            color=own,
        )
    except AnnotationError as error:
        raise AnnotationError(f"{first.where}: {str(error).rstrip('.')}") from None


def _made_id(number: int, kind: str, xy: NDArray[np.float64]) -> str:
    return made_id(f"asap {number} {kind}", np.round(xy, DECIMALS))


def _alike(parts: list[Item]) -> Iterator[list[Item]]:
    """Yield the parts that make one shape, and those that somebody has made another kind of."""
    if len(parts) == 1:
        yield parts
        return
    shapes = [item_shape(part) for part in parts]
    kinds = [None if shape.is_empty else shape.geom_type for shape in shapes]
    wanted = kinds[0] if kinds[0] in ("Polygon", "LineString") else ""
    alike = [part for part, kind in zip(parts, kinds, strict=True) if kind == wanted]
    if alike:
        yield alike
    yield from ([part] for part, kind in zip(parts, kinds, strict=True) if kind != wanted)


def _geometry(parts: list[Item]) -> BaseGeometry:
    shapes = [item_shape(part) for part in parts]
    if len(shapes) == 1:
        return shapes[0]
    polygons = shapes[0].geom_type == "Polygon"
    return shapely.multipolygons(shapes) if polygons else shapely.multilinestrings(shapes)


def item_shape(item: Item) -> BaseGeometry:
    """Return the shape that an annotation's type makes of its vertices."""
    xy, count = item.xy, len(item.xy)
    if count == 0:
        return NOTHING
    if item.kind in _AREAS and count >= 3:
        return shape_of_rings([xy, *item.holes])
    if item.kind in (*_AREAS, "Measurement") and count >= 2:
        return shapely.linestrings(xy)
    if item.kind == "PointSet" or count > 1:
        return shapely.multipoints(shapely.points(xy))
    return shapely.points(xy[0])


def usual_type(region: Region) -> str:
    """Return the type that a shape is written as."""
    kinds = {"Point": "Dot", "MultiPoint": "PointSet", "LineString": "Measurement",
             "MultiLineString": "Measurement"}  # fmt: skip
    if region.geometry.is_empty:
        return "None"
    return kinds.get(region.geometry.geom_type, "Polygon")


def usual_color(region: Region) -> str:
    """Return the colour that a region is written in."""
    if region.color is not None:
        return color_hex(region.color)
    return color_hex(region.classification.color) if region.classification else DEFAULT_COLOR
