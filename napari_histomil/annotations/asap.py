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
from collections.abc import Iterable, Iterator, Mapping
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
    file_members,
    flat,
    kept_members,
    kept_text,
    made_id,
    multi_member,
    nested,
    parsed_text,
    restored,
)
from napari_histomil.annotations.mapping import Cutout, cut_out
from napari_histomil.annotations.model import (
    AnnotationClass,
    Extra,
    Region,
    SlideFrame,
    class_named,
)
from napari_histomil.annotations.shapes import shape_of_rings
from napari_histomil.annotations.xml_files import (
    DECIMALS,
    attributes,
    color_hex,
    hex_color,
    number_texts,
    positions,
    xml_text,
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

_NO_GROUP = "None"
_AREAS = ("Polygon", "Spline", "Rectangle")
_SUFFIX = re.compile(r" ?\[(hole of )?part ([0-9]{1,6})(?: of [0-9]{1,6})?, ([0-9a-f]{12})\]\Z")
_XML_NAME = re.compile(r"[^\W\d][\w.-]*")
_NOTHING = shapely.Polygon()


# --- reading ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Item:
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
        if group not in (_NO_GROUP, "") and group not in groups:
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
        "parent": element.get("PartOfGroup", _NO_GROUP),
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
) -> tuple[list[list[_Item]], list[Cutout], list[str]]:
    """Return the annotations, those of one region together, and holes that belong to no part."""
    items: list[list[_Item]] = []
    parts: dict[tuple[str, int], _Item] = {}
    by_token: dict[str, list[_Item]] = {}
    holes: list[tuple[_Item, tuple[str, int] | None]] = []
    unsorted = 0
    for number, element in enumerate(elements):
        item, in_order = _item(element, number)
        unsorted += not in_order
        suffix = _SUFFIX.search(item.name)
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


def _item(element: Element, number: int) -> tuple[_Item, bool]:
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
    kind = element.get("Type", _NO_GROUP)
    group = element.get("PartOfGroup", _NO_GROUP)
    color, record = element.get("Color"), element.get(RECORD)
    return _Item(where, number, name, kind, group, color, record, xy), in_order


def _region(parts: list[_Item], colors: Mapping[str, Any]) -> tuple[Region, str]:
    """Return the region of one annotation, or of several that are its parts; and its parent."""
    first = parts[0]
    classification = None
    if first.group not in (_NO_GROUP, ""):
        classification = class_named(first.group)
        color = colors.get(first.group)
        if color is not None:
            classification = replace(classification, color=color)
    members = parsed_text(first.record, first.where) if first.record else None
    geometry = as_multi(_geometry(parts), members)
    plain = _plain(first, geometry, classification, first.color)
    parent = ""
    if members is not None:
        plain, parent = restored(plain, members, first.where)
    own = {}
    if first.kind != _kind_of(plain):
        own["type"] = first.kind
    if first.color != _color_of(plain):
        own["color"] = first.color or ""
    if own:
        properties = {**plain.extra.properties, OWN: own}
        plain = replace(plain, extra=replace(plain.extra, properties=properties))
    return plain, parent


def _plain(
    first: _Item,
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


def _alike(parts: list[_Item]) -> Iterator[list[_Item]]:
    """Yield the parts that make one shape, and those that somebody has made another kind of."""
    if len(parts) == 1:
        yield parts
        return
    shapes = [_shape(part) for part in parts]
    kinds = [None if shape.is_empty else shape.geom_type for shape in shapes]
    wanted = kinds[0] if kinds[0] in ("Polygon", "LineString") else ""
    alike = [part for part, kind in zip(parts, kinds, strict=True) if kind == wanted]
    if alike:
        yield alike
    yield from ([part] for part, kind in zip(parts, kinds, strict=True) if kind != wanted)


def _geometry(parts: list[_Item]) -> BaseGeometry:
    shapes = [_shape(part) for part in parts]
    if len(shapes) == 1:
        return shapes[0]
    polygons = shapes[0].geom_type == "Polygon"
    return shapely.multipolygons(shapes) if polygons else shapely.multilinestrings(shapes)


def _shape(item: _Item) -> BaseGeometry:
    xy, count = item.xy, len(item.xy)
    if count == 0:
        return _NOTHING
    if item.kind in _AREAS and count >= 3:
        return shape_of_rings([xy, *item.holes])
    if item.kind in (*_AREAS, "Measurement") and count >= 2:
        return shapely.linestrings(xy)
    if item.kind == "PointSet" or count > 1:
        return shapely.multipoints(shapely.points(xy))
    return shapely.points(xy[0])


# --- writing ----------------------------------------------------------------------------------


def asap_lines(
    regions: Iterable[Region], frame: SlideFrame, extra: Mapping[str, Any]
) -> tuple[Iterator[str], list[str]]:
    """Return the lines of an ASAP file, and notes on what ASAP does not show or keep.

    Parameters
    ----------
    regions
        In level-0 pixels of the whole slide.
    frame
        Its slide is written down; its origin is not: ASAP counts from the corner.
    extra
        `AnnotationFile.extra`: groups that ASAP had are written again.
    """
    groups = _Groups(extra.get(OWN))
    annotations: list[str] = []
    notes = _Notes()
    for region, parent in flat(regions):
        annotations.extend(_annotation_lines(region, parent, len(annotations), groups, notes))
    record = file_members(frame, extra, own=OWN)
    root = attributes([(RECORD, kept_text(record))] if record else [])
    lines = ['<?xml version="1.0"?>', f"<{ROOT}{root}>"]
    lines += ["\t<Annotations>", *annotations, "\t</Annotations>"] if annotations else [
        "\t<Annotations />"
    ]  # fmt: skip
    group_lines = list(groups.lines())
    lines += ["\t<AnnotationGroups>", *group_lines, "\t</AnnotationGroups>"] if group_lines else [
        "\t<AnnotationGroups />"
    ]  # fmt: skip
    lines.append(f"</{ROOT}>")
    return (f"{line}\n" for line in lines), notes.sentences()


@dataclass(slots=True)
class _Notes:
    kept: int = 0
    lines: int = 0

    def sentences(self) -> list[str]:
        result = []
        if self.kept:
            result.append(
                f"Of {self.kept} regions ASAP has no words for everything (ids, measurements, "
                f"notes, locks): it stands in the file, but is lost if ASAP saves it."
            )
        if self.lines:
            result.append(
                f"{self.lines} lines of more than two points became measurements, of which ASAP "
                f"may show the ends only."
            )
        return result


class _Groups:
    """Groups that are written: those that were read, and one for each class."""

    def __init__(self, own: Any) -> None:
        self._read: dict[str, dict[str, Any]] = {}
        if isinstance(own, Mapping) and isinstance(own.get("groups"), list):
            for group in own["groups"]:
                if isinstance(group, Mapping) and isinstance(group.get("name"), str):
                    self._read[group["name"]] = dict(group)
        self._colors: dict[str, str] = {}
        self._holes: dict[str, str] = {}

    def declare(self, classification: AnnotationClass) -> AnnotationClass:
        """Return the class that reading will give, in the group that stands for it."""
        name = xml_text(classification.name)
        if name in (_NO_GROUP, ""):
            name = f"{name} (class)".lstrip()
        if name not in self._colors:
            color = color_hex(classification.color)
            read = self._read.get(name, {}).get("color")
            if isinstance(read, str):
                # as the file had it, unless the class has another colour by now
                shown = hex_color(read) or class_named(name).color
                color = read if shown == classification.color else color
            self._colors[name] = color
        shown = hex_color(self._colors[name]) or class_named(name).color
        return replace(class_named(name), color=shown)

    def holes(self, group: str) -> str:
        """Return the group of the holes of a group."""
        if group not in self._holes:
            name = "holes" if group == _NO_GROUP else f"{group} holes"
            while name in self._read or name in self._colors or name in self._holes.values():
                name += " "
            self._holes[group] = name
        return self._holes[group]

    def lines(self) -> Iterator[str]:
        names = dict.fromkeys((*self._read, *self._colors))
        for name in names:
            group = self._read.get(name, {})
            parent = str(group.get("parent", _NO_GROUP))
            if parent not in names:
                parent = _NO_GROUP  # ASAP would make a nameless group of it
            color = self._colors.get(name, str(group.get("color", "")))
            held = group.get("attributes")
            yield from _group_lines(
                name, parent, color, dict(held) if isinstance(held, Mapping) else {}
            )
        for group_name, name in self._holes.items():
            yield from _group_lines(name, group_name, HOLES_COLOR, {HOLES_OF: group_name})


def _group_lines(name: str, parent: str, color: str, held: Mapping[str, Any]) -> Iterator[str]:
    yield f"\t\t<Group{attributes([('Name', name), ('PartOfGroup', parent), ('Color', color)])}>"
    if held:
        yield "\t\t\t<Attributes>"
        for key, value in held.items():
            if not _XML_NAME.fullmatch(key):  # then it does not come from a file of ASAP
                continue
            yield f"\t\t\t\t<Attribute{attributes([(key, value)])} />"
        yield "\t\t\t</Attributes>"
    else:
        yield "\t\t\t<Attributes />"
    yield "\t\t</Group>"


def _annotation_lines(
    region: Region, parent: str, number: int, groups: _Groups, notes: _Notes
) -> list[str]:
    own = region.extra.properties.get(OWN)
    own = own if isinstance(own, Mapping) else {}
    classification = groups.declare(region.classification) if region.classification else None
    group = classification.name if classification else _NO_GROUP
    parts = _parts(region.geometry)
    kind = _written_kind(region, own, parts)
    color = _written_color(region, own)
    token = region.id.replace("-", "")[:12]
    whole = len(parts) > 1 or any(holes for _, holes in parts)
    name = xml_text(region.name or "")
    if not whole and _SUFFIX.search(name):
        whole = True  # a name that looks like ours gets a suffix of its own
    item = _Item("", number, name, kind, group, color, None, parts[0][0])
    plain = _plain(item, _NOTHING, classification, color)
    members = kept_members(region, plain, parent, own=OWN) | multi_member(region.geometry)
    notes.kept += bool(members)
    notes.lines += kind == "Measurement" and len(parts[0][0]) > 2
    record = kept_text(members) if members else None
    before = f"{name} " if name else ""
    result: list[str] = []
    for index, (xy, _) in enumerate(parts, 1):
        called = f"{before}[part {index} of {len(parts)}, {token}]" if whole else name
        result.append(
            _annotation(called, kind, group, color, xy, record if index == 1 else None)
        )
    for index, (_, holes) in enumerate(parts, 1):
        for xy in holes:
            called = f"{before}[hole of part {index}, {token}]"
            result.append(
                _annotation(called, "Polygon", groups.holes(group), HOLES_COLOR, xy, None)
            )
    return result


def _parts(
    geometry: BaseGeometry,
) -> list[tuple[NDArray[np.float64], list[NDArray[np.float64]]]]:
    """Return vertices and holes of every annotation that a shape needs; rings are not closed."""
    if geometry.is_empty or geometry.geom_type in ("Point", "MultiPoint"):
        return [(shapely.get_coordinates(geometry), [])]
    result = []
    for part in shapely.get_parts(geometry):
        if part.geom_type == "LineString":
            result.append((shapely.get_coordinates(part), []))
        else:
            rings = [shapely.get_coordinates(ring)[:-1] for ring in shapely.get_rings(part)]
            result.append((rings[0], rings[1:]))
    return result


def _kind_of(region: Region) -> str:
    """Return the type that a shape is written as."""
    kinds = {"Point": "Dot", "MultiPoint": "PointSet", "LineString": "Measurement",
             "MultiLineString": "Measurement"}  # fmt: skip
    if region.geometry.is_empty:
        return "None"
    return kinds.get(region.geometry.geom_type, "Polygon")


def _written_kind(
    region: Region,
    own: Mapping[str, Any],
    parts: list[tuple[NDArray[np.float64], list[NDArray[np.float64]]]],
) -> str:
    """Return the type that ASAP had, if it still gives the shape, else the usual one."""
    usual, had = _kind_of(region), own.get("type")
    if not isinstance(had, str) or len(parts) != 1:
        return usual
    if had == "Rectangle" and usual == "Polygon" and len(parts[0][0]) != 4:
        return usual
    xy, holes = parts[0]
    same = _shape(_Item("", 0, "", had, "", None, None, xy, holes))
    return had if same.geom_type == region.geometry.geom_type else usual


def _color_of(region: Region) -> str:
    """Return the colour that a region is written in."""
    if region.color is not None:
        return color_hex(region.color)
    return color_hex(region.classification.color) if region.classification else DEFAULT_COLOR


def _written_color(region: Region, own: Mapping[str, Any]) -> str:
    """Return the colour that ASAP had, unless the region has its own by now."""
    had = own.get("color")
    if isinstance(had, str) and region.color in (None, hex_color(had)):
        return had
    return _color_of(region)


def _annotation(
    name: str, kind: str, group: str, color: str, xy: NDArray[np.float64], record: str | None
) -> str:
    pairs = [("Name", name), ("Type", kind), ("PartOfGroup", group), ("Color", color)]
    pairs += [(RECORD, record)] if record else []
    lines = [f"\t\t<Annotation{attributes(pairs)}>"]
    if len(xy):
        lines.append("\t\t\t<Coordinates>")
        lines += [
            f'\t\t\t\t<Coordinate Order="{order}" X="{x}" Y="{y}" />'
            for order, (x, y) in enumerate(number_texts(xy))
        ]
        lines.append("\t\t\t</Coordinates>")
    else:
        lines.append("\t\t\t<Coordinates />")
    lines.append("\t\t</Annotation>")
    return "\n".join(lines)
