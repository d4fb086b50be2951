"""Regions -> ASAP's XML: what `asap` reads, and ASAP itself.

How parts, holes and what ASAP has no word for are written is told in `asap`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.asap import (
    HOLES_COLOR,
    HOLES_OF,
    NO_GROUP,
    NOTHING,
    OWN,
    RECORD,
    ROOT,
    SUFFIX,
    Item,
    item_shape,
    plain_region,
    usual_color,
    usual_type,
)
from napari_histomil.annotations.kept import (
    file_members,
    flat,
    kept_members,
    kept_text,
    multi_member,
)
from napari_histomil.annotations.model import (
    AnnotationClass,
    Region,
    SlideFrame,
    class_named,
)
from napari_histomil.annotations.xml_files import (
    attributes,
    color_hex,
    hex_color,
    number_texts,
    xml_text,
)

_XML_NAME = re.compile(r"[^\W\d][\w.-]*")


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
        if name in (NO_GROUP, ""):
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
            name = "holes" if group == NO_GROUP else f"{group} holes"
            while name in self._read or name in self._colors or name in self._holes.values():
                name += " "
            self._holes[group] = name
        return self._holes[group]

    def lines(self) -> Iterator[str]:
        names = dict.fromkeys((*self._read, *self._colors))
        for name in names:
            group = self._read.get(name, {})
            parent = str(group.get("parent", NO_GROUP))
            if parent not in names:
                parent = NO_GROUP  # ASAP would make a nameless group of it
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
    group = classification.name if classification else NO_GROUP
    parts = _parts(region.geometry)
    kind = _written_kind(region, own, parts)
    color = _written_color(region, own)
    token = region.id.replace("-", "")[:12]
    whole = len(parts) > 1 or any(holes for _, holes in parts)
    name = xml_text(region.name or "")
    if not whole and SUFFIX.search(name):
        whole = True  # a name that looks like ours gets a suffix of its own
    item = Item("", number, name, kind, group, color, None, parts[0][0])
    plain = plain_region(item, NOTHING, classification, color)
    members = kept_members(region, plain, parent, own=OWN) | multi_member(region.geometry)
    notes.kept += bool(members)
    notes.lines += kind == "Measurement" and len(parts[0][0]) > 2
    record = kept_text(members) if members else None
    before = f"{name} " if name else ""
    result: list[str] = []
    for index, (xy, _) in enumerate(parts, 1):
        called = f"{before}[part {index} of {len(parts)}, {token}]" if whole else name
        result.append(_annotation(called, kind, group, color, xy, record if index == 1 else None))
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
    result: list[tuple[NDArray[np.float64], list[NDArray[np.float64]]]] = []
    for part in shapely.get_parts(geometry):
        if part.geom_type == "LineString":
            result.append((shapely.get_coordinates(part), []))
        else:
            rings = [shapely.get_coordinates(ring)[:-1] for ring in shapely.get_rings(part)]
            result.append((rings[0], rings[1:]))
    return result


def _written_kind(
    region: Region,
    own: Mapping[str, Any],
    parts: list[tuple[NDArray[np.float64], list[NDArray[np.float64]]]],
) -> str:
    """Return the type that ASAP had, if it still gives the shape, else the usual one."""
    usual, had = usual_type(region), own.get("type")
    if not isinstance(had, str) or len(parts) != 1:
        return usual
    if had == "Rectangle" and usual == "Polygon" and len(parts[0][0]) != 4:
        return usual
    xy, holes = parts[0]
    same = item_shape(Item("", 0, "", had, "", None, None, xy, holes))
    return had if same.geom_type == region.geometry.geom_type else usual


def _written_color(region: Region, own: Mapping[str, Any]) -> str:
    """Return the colour that ASAP had, unless the region has its own by now."""
    had = own.get("color")
    if isinstance(had, str) and region.color in (None, hex_color(had)):
        return had
    return usual_color(region)


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
