"""Aperio ImageScope's XML, and HALO's ``.annotations`` <-> regions.

A layer (``Annotation``) holds regions; its name is the class, its ``LineColor`` (blue, green, red
in one number, as Windows has it) the colour. A layer without a name is called by its description,
else by the name of its first field, else ``Layer 2``. Regions with ``NegativeROA="1"`` are holes:
of the region that ``InputRegionId`` names, else of the smallest that holds them.

Types 0, 1 and 2 are outlines, rectangles and ellipses in two corners; others (arrows, rulers) are
not areas. Length and area are computed anew when a file is written. What these formats have no
word for stands in a field ``histomil`` of the region, which ImageScope keeps.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any
from xml.etree.ElementTree import Element

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
    kept_text,
    made_id,
    nested,
    parsed_text,
    restored,
)
from napari_histomil.annotations.mapping import Cutout, cut_out, without
from napari_histomil.annotations.model import (
    IGNORE,
    RGB,
    AnnotationClass,
    Extra,
    Region,
    SlideFrame,
    class_named,
)
from napari_histomil.annotations.shapes import (
    ELLIPSE,
    ellipse_ring,
    is_ellipse,
    shape_of_rings,
)
from napari_histomil.annotations.xml_files import (
    DECIMALS,
    attributes,
    number_texts,
    positions,
    xml_text,
)
from napari_histomil.errors import AnnotationError

ROOT = "Annotations"

OWN = "imagescope"
"""Member of a region's and a file's extra that holds what only these formats use."""

MICRONS = "MicronsPerPixel"

_AREAS = {"0": "0", "1": "1", "2": "2", "Polygon": "0", "Rectangle": "1", "Ellipse": "2"}
_HALO = {"0": "Polygon", "1": "Rectangle", "2": "Ellipse"}
_DERIVED = ("Length", "Area", "LengthMicrons", "AreaMicrons")
_ORDER = ("Id", "Type", "Zoom", "Selected", "ImageLocation", "ImageFocus", *_DERIVED, "Text",
          "NegativeROA", "InputRegionId", "Analyze", "DisplayId")  # fmt: skip
_LAYER = {"Id": "", "Name": "", "ReadOnly": "0", "NameReadOnly": "0", "LineColorReadOnly": "0",
          "Incremental": "0", "Type": "4", "LineColor": "", "Visible": "1", "Selected": "0",
          "MarkupImagePath": "", "MacroName": ""}  # fmt: skip
_FIELDS = [{"Name": "Description", "Id": "0", "Value": ""}]
_HEADERS = [
    {"Id": number, "Name": name, "ColumnWidth": "-1"}
    for number, name in (
        ("9999", "Region"), ("9997", "Length"), ("9996", "Area"), ("9998", "Text"),
        ("1", "Description"),
    )
]  # fmt: skip
_ORDER_KEY = "at"
"""Under which a region's place in the order of drawing is kept."""

_NOTHING = shapely.Polygon()
Xy = NDArray[np.float64]


# --- layers -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Layer:
    """A layer with all that its element says."""

    attributes: dict[str, str]
    fields: list[dict[str, str]]
    headers: list[dict[str, str]]

    def label(self, number: int) -> str:
        """Return the name of the class that the layer stands for."""
        if name := self.attributes.get("Name", ""):
            return name
        for each in self.fields:
            if each.get("Name") == "Description" and each.get("Value"):
                return each["Value"]
        first = self.fields[0].get("Name", "") if self.fields else ""
        return first if first not in ("", "Description") else f"Layer {number}"

    def color(self) -> RGB | None:
        """Return the colour of the layer's lines."""
        return _rgb(self.attributes.get("LineColor", ""))

    def classification(self, number: int) -> AnnotationClass:
        """Return the class that the layer stands for."""
        found = class_named(self.label(number))
        color = self.color()
        return found if color is None else replace(found, color=color)


def _rgb(text: str) -> RGB | None:
    try:
        value = int(text) & 0xFFFFFF if len(text) < 12 else -1
    except ValueError:
        return None
    return None if value < 0 else (value & 255, (value >> 8) & 255, value >> 16)


def _line_color(color: RGB) -> str:
    return str(color[0] | color[1] << 8 | color[2] << 16)


# --- reading ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Item:
    """A region's element."""

    where: str
    said: dict[str, str]
    fields: list[dict[str, str]]
    members: Mapping[str, Any]
    xy: Xy
    holes: list[_Item] = field(default_factory=list)

    @property
    def areal(self) -> bool:
        """Whether it is an outline."""
        kind = _AREAS.get(self.said.get("Type", "0"))
        return kind is not None and (len(self.xy) >= 3 or (kind != "0" and len(self.xy) == 2))

    def ring(self) -> Xy:
        """Return the vertices of the outline; of an ellipse or a rectangle from its corners."""
        kind = _AREAS.get(self.said.get("Type", "0"))
        if len(self.xy) != 2 or kind == "0":
            return self.xy
        (x0, y0), (x1, y1) = self.xy.min(axis=0), self.xy.max(axis=0)
        if kind == "2":
            return ellipse_ring(x0, y0, x1, y1)
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])

    @property
    def ellipse(self) -> bool:
        """Whether it is an ellipse, given by its corners."""
        return _AREAS.get(self.said.get("Type", "0")) == "2" and len(self.xy) == 2


def read_imagescope(root: Element, *, frame: SlideFrame | None = None) -> AnnotationFile:
    """Return what the root element of a file of ImageScope or HALO holds.

    Parameters
    ----------
    root
        The element ``Annotations``.
    frame
        Frame of the slide that the person says it belongs to. Both programs count from the
        corner of the whole slide.

    Raises
    ------
    AnnotationError
        If a coordinate is missing or not a finite number, or what this program kept is damaged.
    """
    layers: list[_Layer] = []
    found: list[tuple[Region, str, int]] = []
    loose: list[Cutout] = []
    notes: list[str] = []
    counts = {"odd": 0, "heights": 0, "alone": 0}
    record: Any = {}
    halo = False
    for number, element in enumerate(root.iterfind("Annotation"), 1):
        fields = [dict(each.items()) for each in element.iterfind("Attributes/Attribute")]
        kept = [each for each in fields if each.get("Name") == KEY]
        if kept and not record:
            record = parsed_text(kept[0].get("Value", ""), "the file")
        layer = _Layer(
            dict(element.items()),
            [each for each in fields if each.get("Name") != KEY],
            [dict(each.items()) for each in element.iterfind("Regions/RegionAttributeHeaders/*")],
        )
        layers.append(layer)
        items = [
            _item(each, f"region {n} of layer {number}", counts)
            for n, each in enumerate(element.iterfind("Regions/Region"), 1)
        ]
        halo = halo or any(item.said.get("Type", "0") in _HALO.values() for item in items)
        found += _layer_regions(items, layers, loose, counts)
    if counts["odd"]:
        notes.append(
            f"{counts['odd']} outlines have one or two points only: they were read as points "
            f"and lines."
        )
    if counts["heights"]:
        notes.append(f"{counts['heights']} regions have heights (Z), which were left out.")
    if counts["alone"]:
        notes.append(
            f"{counts['alone']} excluded regions (NegativeROA) lie in no region of their layer: "
            f"they were read as {IGNORE}."
        )
    found.sort(key=lambda each: each[2])
    regions, again = with_own_ids(nested((region, parent) for region, parent, _ in found))
    regions, cut = cut_out(regions, loose)
    name, fingerprint, extra = file_facts(record)
    said, other = plain_frame(frame, name, fingerprint)
    own = {
        "attributes": dict(root.items()),
        "layers": [
            {"attributes": each.attributes, "fields": each.fields, "headers": each.headers}
            for each in layers
        ],
    }
    return AnnotationFile(
        regions, said, (*other, *notes, *again, *cut), extra | {OWN: own},
        "halo" if halo else "imagescope",
    )  # fmt: skip


def _item(element: Element, where: str, counts: dict[str, int]) -> _Item:
    text = element.get("Text", "")
    where += f" ({text[:40]})" if text else ""
    vertices = [each for each in element.iterfind("Vertices/*") if each.tag in ("Vertex", "V")]
    counts["heights"] += any(each.get("Z", "0").strip("-0.") for each in vertices)
    fields = [dict(each.items()) for each in element.iterfind("Attributes/Attribute")]
    kept = [each.get("Value", "") for each in fields if each.get("Name") == KEY]
    members = parsed_text(kept[0], where) if kept else {}
    if not isinstance(members, Mapping):
        raise AnnotationError(f"what this program kept of {where} is damaged")
    said = {name: value for name, value in element.items() if name not in _DERIVED}
    fields = [each for each in fields if each.get("Name") != KEY]
    return _Item(where, said, fields, members, positions(vertices, where))


def _layer_regions(
    items: list[_Item], layers: list[_Layer], loose: list[Cutout], counts: dict[str, int]
) -> list[tuple[Region, str, int]]:
    """Return the regions of the last of the layers, the ids of their parents, and their order."""
    classification = layers[-1].classification(len(layers))
    positive = [item for item in items if not (_negative(item) and item.areal)]
    alone = _place_holes(
        [item for item in items if _negative(item) and item.areal], positive, loose, classification
    )
    counts["alone"] += len(alone)
    regions: list[list[_Item]] = []
    by_id: dict[Any, list[_Item]] = {}
    lonely = set(map(id, alone))
    for item in items:
        if _negative(item) and item.areal and id(item) not in lonely:
            continue
        whole = by_id.get(item.members.get("part_of"))
        if whole is not None:
            whole.append(item)
            continue
        regions.append([item])
        if isinstance(item.members.get("id"), str):
            by_id[item.members["id"]] = regions[-1]
        counts["odd"] += (
            _AREAS.get(item.said.get("Type", "0")) is not None
            and len(item.xy) in (1, 2)
            and not item.areal
            and "shape" not in item.members
        )
    numbers = _Numbers()
    return [_region(parts, layers, numbers, id(parts[0]) in lonely) for parts in regions]


def _negative(item: _Item) -> bool:
    return item.said.get("NegativeROA", "0").strip().lower() in ("1", "true")


def _place_holes(
    holes: list[_Item],
    positive: list[_Item],
    loose: list[Cutout],
    classification: AnnotationClass,
) -> list[_Item]:
    """Give every hole to the region that it is a hole of; return those that lie in none."""
    if not holes:
        return []
    areal = [item for item in positive if item.areal]
    shapes = np.array([shape_of_rings([item.ring()]) for item in areal], dtype=object)
    sound = shapely.is_valid(shapes)
    areas = shapely.area(shapes)
    tree = shapely.STRtree(shapes)
    by_id: dict[str, list[int]] = {}
    for n, item in enumerate(areal):
        by_id.setdefault(item.said.get("Id", ""), []).append(n)
    ours: dict[Any, list[_Item]] = {}
    for item in areal:
        ours.setdefault(item.members.get("id", item.members.get("part_of")), []).append(item)
    alone = []
    for hole in holes:
        parts, part = ours.get(hole.members.get("hole_of"), []), hole.members.get("part")
        if hole.members and type(part) is int and 0 <= part < len(parts):
            parts[part].holes.append(hole)
            continue
        shape = shape_of_rings([hole.ring()])
        near = tree.query(shape)
        named = by_id.get(hole.said.get("InputRegionId", ""), [])
        if len(named) == 1 and named[0] in near and not sound[named[0]]:
            areal[named[0]].holes.append(hole)  # there is no telling inside from outside
            continue
        if not shapely.is_valid(shape):
            shape = shapely.make_valid(shape)
        near = near[sound[near]]
        touched = near[shapely.intersects(shapes[near], shape)]
        inside = touched[shapely.covers(shapes[touched], shape)]
        if len(named) == 1 and named[0] in inside:
            areal[named[0]].holes.append(hole)
        elif len(inside):
            areal[inside[np.argmin(areas[inside])]].holes.append(hole)
        elif len(touched):
            loose.append(Cutout(shape, (classification.name,), hole.where))
        else:
            alone.append(hole)
    return alone


class _Numbers:
    """What elements of a layer say where nobody says otherwise."""

    def __init__(self) -> None:
        self.regions = 0
        self._elements = 0

    def defaults(self, kind: str, text: str = "", hole_of: str = "") -> dict[str, str]:
        """Return the attributes of the next element."""
        self._elements += 1
        number = str(self._elements)
        return {
            "Id": number, "Type": kind, "Zoom": "0", "Selected": "0", "ImageLocation": "",
            "ImageFocus": "-1", "Text": text, "NegativeROA": "1" if hole_of else "0",
            "InputRegionId": hole_of or "0", "Analyze": "1", "DisplayId": number,
            "HasEndcaps": "0",
        }  # fmt: skip


def _region(
    parts: list[_Item], layers: list[_Layer], numbers: _Numbers, alone: bool
) -> tuple[Region, str, int]:
    """Return the region of one element or of several, its parent's id, and its order."""
    first, number = parts[0], len(layers)
    numbers.regions += 1
    classification = class_named(IGNORE) if alone else layers[-1].classification(number)
    geometry = _assembled(parts, first.members.get("shape"))
    plain = _plain(first, number, numbers.regions, geometry, classification)
    parent = ""
    if first.members:
        plain, parent = restored(plain, first.members, first.where)
    labels = [each.label(n) for n, each in enumerate(layers, 1)]
    own: dict[str, Any] = {}
    if alone or labels.index(labels[-1]) + 1 != number:
        own["layer"] = number
    usual, text = _usual_kind(plain), xml_text(plain.name or "")
    elements = []
    for part in parts:
        defaults = numbers.defaults(usual, text if part is first else "")
        elements.append(_unusual(part, defaults))
        holder = part.said.get("Id", defaults["Id"])
        elements += [
            _unusual(hole, numbers.defaults("0", hole_of=holder)) for hole in part.holes
        ]
    if any(elements):
        own["elements"] = elements
    if own:
        properties = {**plain.extra.properties, OWN: own}
        plain = replace(plain, extra=replace(plain.extra, properties=properties))
    order = first.members.get(_ORDER_KEY)
    return plain, parent, order if type(order) is int else sys.maxsize


def _unusual(item: _Item, defaults: Mapping[str, str]) -> dict[str, Any]:
    """Return what an element says other than what would be written for it anyway."""
    said: dict[str, Any] = {
        name: value for name, value in item.said.items() if value != defaults.get(name)
    }
    if _AREAS.get(said.get("Type", "")) == defaults["Type"]:  # HALO's word for the same
        del said["Type"]
    return said | ({"fields": item.fields} if item.fields else {})


def _plain(
    first: _Item,
    layer: int,
    number: int,
    geometry: BaseGeometry,
    classification: AnnotationClass,
) -> Region:
    """Return the region that the format's own words describe."""
    extra = {ELLIPSE: True} if first.ellipse and not first.holes else {}
    try:
        return Region(
            geometry,
            classification,
            id=made_id(f"imagescope {layer} {number}", np.round(first.xy, DECIMALS)),
            name=first.said.get("Text") or None,
            extra=Extra(geometry=extra),
        )
    except AnnotationError as error:
        raise AnnotationError(f"{first.where}: {str(error).rstrip('.')}") from None


def _assembled(parts: list[_Item], kind: Any) -> BaseGeometry:
    """Return the shape of a region's parts.

    Parameters
    ----------
    parts
        One, or several if this program wrote them.
    kind
        What kind of shape was kept; None if the parts say it themselves.
    """
    if kind == "MultiPoint":
        return shapely.multipoints(shapely.points(np.concatenate([part.xy for part in parts])))
    if kind in ("LineString", "MultiLineString"):
        lines = [shapely.linestrings(part.xy) for part in parts if len(part.xy) >= 2]
        if lines:
            return lines[0] if kind == "LineString" else shapely.multilinestrings(lines)
    if kind == "MultiPolygon":
        areas = [_outline(part) for part in parts if part.areal]
        if areas:
            return shapely.multipolygons(areas)
    first = parts[0]
    if first.areal:
        return _outline(first)
    if len(first.xy) >= 2:
        return shapely.linestrings(first.xy)
    return shapely.points(first.xy[0]) if len(first.xy) else _NOTHING


def _outline(part: _Item) -> BaseGeometry:
    """Return an outline with its holes, cut out by area where they overlap."""
    whole = shape_of_rings([part.ring(), *(hole.ring() for hole in part.holes)])
    if part.holes and not shapely.is_valid(whole):
        alone = shape_of_rings([part.ring()])
        holes = [shape_of_rings([hole.ring()]) for hole in part.holes]
        if shapely.is_valid(alone) and bool(np.all(shapely.is_valid(holes))):
            rest = without(alone, holes)
            if rest.geom_type == "Polygon" and not rest.is_empty:
                return rest
    return whole


# --- writing ----------------------------------------------------------------------------------


class _Layers:
    """Layers that are written: those that were read, and one for each other class."""

    def __init__(self, own: Mapping[str, Any]) -> None:
        self.all: list[_Layer] = []
        self.lines: list[list[str]] = []
        self.numbers: list[_Numbers] = []
        self._read = 0
        for held in own.get("layers", []) if isinstance(own.get("layers"), list) else []:
            if isinstance(held, Mapping):
                lists = [_texts_of(held.get(key)) for key in ("fields", "headers")]
                self._add(_Layer(_texts(held.get("attributes")), *lists))
        self._read = len(self.all)
        self._seen: set[int] = set()
        self._by_label: dict[str, int] = {}
        for n, layer in enumerate(self.all):
            self._by_label.setdefault(layer.label(n + 1), n)
        self._unclassified: int | None = None

    def _add(self, layer: _Layer) -> int:
        self.all.append(layer)
        self.lines.append([])
        self.numbers.append(_Numbers())
        return len(self.all) - 1

    def index(self, region: Region, own: Mapping[str, Any]) -> int:
        """Return the layer that a region is written in."""
        given = own.get("layer")
        chosen = region.classification
        name = xml_text(chosen.name) if chosen else ""
        if type(given) is int and 0 < given <= self._read:
            alone = chosen is not None and chosen.name == IGNORE and _excluded(own)
            if alone or self.all[given - 1].label(given) == name:
                return given - 1 if alone else self._colored(given - 1, chosen)
        if not name:
            if self._unclassified is None:
                self._unclassified = self._add(_new_layer("", None, len(self.all) + 1))
            return self._unclassified
        if name not in self._by_label:
            self._by_label[name] = self._add(_new_layer(name, chosen, len(self.all) + 1))
        return self._colored(self._by_label[name], chosen)

    def _colored(self, index: int, chosen: AnnotationClass | None) -> int:
        """Let the first region of a class give its layer the colour that the class has now."""
        layer = self.all[index]
        if chosen is not None and index not in self._seen:
            self._seen.add(index)
            if layer.classification(index + 1).color != chosen.color:
                layer.attributes["LineColor"] = _line_color(chosen.color)
        return index


def _new_layer(name: str, chosen: AnnotationClass | None, number: int) -> _Layer:
    color = _line_color(chosen.color if chosen else (255, 0, 0))
    said = _LAYER | {"Id": str(number), "Name": name, "LineColor": color}
    return _Layer(said, [dict(each) for each in _FIELDS], [dict(each) for each in _HEADERS])


def imagescope_lines(
    regions: Iterable[Region],
    frame: SlideFrame,
    extra: Mapping[str, Any],
    *,
    mpp: float | None = None,
    halo: bool = False,
) -> tuple[Iterator[str], list[str]]:
    """Return the lines of a file of ImageScope or HALO, and notes on what it does not show.

    Parameters
    ----------
    regions
        In level-0 pixels of the whole slide.
    frame
        Its slide is written down; its origin is not: both programs count from the corner.
    extra
        `AnnotationFile.extra`: layers that were read are written again.
    mpp
        Micrometres that a level-0 pixel spans; None takes those of the file that was read.
    halo
        Whether to write HALO's form.
    """
    held = extra.get(OWN)
    own = held if isinstance(held, Mapping) else {}
    said = _texts(own.get("attributes"))
    if mpp is not None:
        said[MICRONS] = f"{mpp:.6f}"
    mpp = _positive(said.get(MICRONS))
    layers = _Layers(own)
    listed = list(flat(regions))
    drawn = [(region, parent) for region, parent in listed if not region.geometry.is_empty]
    chosen = [layers.index(region, _own(region)) for region, _ in drawn]
    mixed = any(later < earlier for earlier, later in pairwise(chosen))
    empty, kept, others = len(listed) - len(drawn), 0, 0
    for n, ((region, parent), index) in enumerate(zip(drawn, chosen, strict=True)):
        order = {_ORDER_KEY: n} if mixed else {}  # the file goes by layers, the drawing did not
        record = _add_region(layers, index, region, parent, order, mpp or 0.0, halo)
        kept += record
        others += region.geometry.geom_type in ("Point", "MultiPoint", "MultiLineString") or (
            region.geometry.geom_type == "LineString" and not _own(region)
        )
    record = file_members(frame, extra, own=OWN)
    if record and not layers.all:
        layers.index(Region(_NOTHING), {})
    program = "HALO" if halo else "ImageScope"
    notes = []
    if kept:
        notes.append(
            f"{program} has no words for everything that {kept} regions hold (ids, measurements, "
            f"notes, locks): it stands in a field '{KEY}' of each."
        )
    if others:
        notes.append(
            f"{others} points and lines were written as outlines of few vertices: only this "
            f"program knows them for what they are."
        )
    if empty:
        notes.append(f"{empty} objects without a shape were left out: {program} knows none.")
    return _file_lines(layers, said, record), notes


def _file_lines(layers: _Layers, said: Mapping[str, str], record: Any) -> Iterator[str]:
    yield f"<{ROOT}{attributes(said.items())}>\n"
    for n, (layer, lines) in enumerate(zip(layers.all, layers.lines, strict=True)):
        yield f"\t<Annotation{attributes(layer.attributes.items())}>\n"
        yield "\t\t<Attributes>\n"
        fields = layer.fields
        if n == 0 and record:
            fields = [*fields, {"Name": KEY, "Id": "9000", "Value": kept_text(record)}]
        for each in fields:
            yield f"\t\t\t<Attribute{attributes(each.items())}/>\n"
        yield "\t\t</Attributes>\n\t\t<Regions>\n\t\t\t<RegionAttributeHeaders>\n"
        for each in layer.headers:
            yield f"\t\t\t\t<AttributeHeader{attributes(each.items())}/>\n"
        yield "\t\t\t</RegionAttributeHeaders>\n"
        yield from lines
        yield "\t\t</Regions>\n\t\t<Plots/>\n\t</Annotation>\n"
    yield f"</{ROOT}>\n"


def _add_region(
    layers: _Layers,
    index: int,
    region: Region,
    parent: str,
    order: Mapping[str, int],
    mpp: float,
    halo: bool,
) -> bool:
    """Write a region into a layer; return whether something of it had to be kept."""
    own = _own(region)
    layer, numbers = layers.all[index], layers.numbers[index]
    numbers.regions += 1
    parts = _parts(region)
    held = own.get("elements")
    elements = held if isinstance(held, list) else []
    count = sum(1 + len(holes) for _, holes in parts)
    if len(elements) != count:  # the shape has changed: what its holes said is gone with them
        elements = elements[:1]
    said = [each if isinstance(each, Mapping) else {} for each in elements]
    said += [{}] * (count - len(said))
    usual = _usual_kind(region)
    kind = _kind(region, usual, said[0], parts)
    text = xml_text(region.name or "")
    first = _Item("", {"Type": kind, "Text": text}, [], {}, parts[0][0])
    first.holes = [_Item("", {}, [], {}, xy) for xy in parts[0][1]]
    alone = _excluded(own) and region.class_name == IGNORE
    classification = class_named(IGNORE) if alone else layer.classification(index + 1)
    plain = _plain(first, index + 1, numbers.regions, _NOTHING, classification)
    members = kept_members(region, plain, parent, own=OWN)
    named = halo and count > len(parts)  # HALO has no number by which a hole names its region
    if len(parts) > 1 or named:
        members["id"] = region.id
    if len(parts) > 1 or _assembled([first], None).geom_type != region.geometry.geom_type:
        members["shape"] = region.geometry.geom_type
    lines, n = layers.lines[index], 0
    for part, (xy, holes) in enumerate(parts):
        defaults = numbers.defaults(kind, text if part == 0 else "")
        record = members | order if part == 0 else {"part_of": region.id}
        merged = _merged(defaults, said[n], kind)
        lines += _region_lines(merged, said[n], record, xy, mpp, halo, region.geometry)
        n += 1
        for hole in holes:
            defaults = numbers.defaults("0", hole_of=merged["Id"])
            record = {"hole_of": region.id, "part": part} if named else {}
            of = _merged(defaults, said[n], "0")
            lines += _region_lines(of, said[n], record, hole, mpp, halo, region.geometry)
            n += 1
    return bool(members)


def _own(region: Region) -> Mapping[str, Any]:
    own = region.extra.properties.get(OWN)
    return own if isinstance(own, Mapping) else {}


def _excluded(own: Mapping[str, Any]) -> bool:
    elements = own.get("elements")
    first = elements[0] if isinstance(elements, list) and elements else None
    return isinstance(first, Mapping) and first.get("NegativeROA") in ("1", "true", "True")


def _usual_kind(region: Region) -> str:
    return "2" if is_ellipse(region.geometry, region.extra.geometry) else "0"


def _kind(
    region: Region, usual: str, said: Mapping[str, Any], parts: list[tuple[Xy, list[Xy]]]
) -> str:
    """Return the type that the region had, if it still gives the shape, else the usual one."""
    had = said.get("Type")
    if not isinstance(had, str) or usual == "2" or len(parts) != 1:
        return usual
    item = _Item("", {"Type": had}, [], {}, parts[0][0])
    item.holes = [_Item("", {}, [], {}, xy) for xy in parts[0][1]]
    same = _assembled([item], None).geom_type == region.geometry.geom_type
    return had if same else usual


def _merged(defaults: dict[str, str], said: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Return what an element says: what it said when it was read, else what is usual."""
    held = {name: str(value) for name, value in said.items() if name != "fields"}
    return defaults | held | {"Type": kind, "Text": held.get("Text", defaults["Text"])}


def _parts(region: Region) -> list[tuple[Xy, list[Xy]]]:
    """Return vertices and holes of every element that a shape needs; rings are not closed."""
    shape = region.geometry
    if is_ellipse(shape, region.extra.geometry):
        x0, y0, x1, y1 = shape.bounds
        return [(np.array([[x0, y0], [x1, y1]]), [])]
    result: list[tuple[Xy, list[Xy]]] = []
    for part in shapely.get_parts(shape):
        if part.geom_type == "Polygon":
            rings = [shapely.get_coordinates(ring)[:-1] for ring in shapely.get_rings(part)]
            result.append((rings[0], rings[1:]))
        else:
            result.append((shapely.get_coordinates(part), []))
    return result


def _region_lines(
    said: dict[str, str],
    held: Mapping[str, Any],
    record: Mapping[str, Any],
    xy: Xy,
    mpp: float,
    halo: bool,
    shape: BaseGeometry,
) -> Iterator[str]:
    if halo:
        kind = _HALO.get(said["Type"], said["Type"])
        pairs = {"Type": kind, "HasEndcaps": said["HasEndcaps"]}
        more = {name for name, value in held.items() if name not in ("fields", "Type")}
        pairs |= {name: said[name] for name in said if name in more}
        pairs |= {"Text": said["Text"]} if said["Text"] else {}
        pairs |= {"NegativeROA": said["NegativeROA"]}
    else:
        whole = said | _sizes(said["Type"], xy, mpp, shape)
        pairs = {name: whole.pop(name) for name in _ORDER}
        endcaps = whole.pop("HasEndcaps")
        pairs |= whole | ({"HasEndcaps": endcaps} if "HasEndcaps" in held else {})
    yield f"\t\t\t<Region{attributes(pairs.items())}>\n"
    fields = _texts_of(held.get("fields"))
    if record:
        fields.append({"Name": KEY, "Id": "9000", "Value": kept_text(record)})
    if fields:
        yield "\t\t\t\t<Attributes>\n"
        for each in fields:
            yield f"\t\t\t\t\t<Attribute{attributes(each.items())}/>\n"
        yield "\t\t\t\t</Attributes>\n"
    elif not halo:
        yield "\t\t\t\t<Attributes/>\n"
    tag, z = ("V", "") if halo else ("Vertex", ' Z="0"')
    yield "\t\t\t\t<Vertices>\n"
    for x, y in number_texts(xy):
        yield f'\t\t\t\t\t<{tag} X="{x}" Y="{y}"{z}/>\n'
    yield "\t\t\t\t</Vertices>\n\t\t\t</Region>\n"


def _sizes(kind: str, xy: Xy, mpp: float, shape: BaseGeometry) -> dict[str, str]:
    """Return length and area in level-0 pixels and in µm (0 where nobody says how large one is)."""
    if len(xy) >= 3 and shape.geom_type in ("Polygon", "MultiPolygon"):
        ring = shapely.Polygon(xy)
    elif kind == "2":
        ring = shapely.Polygon(ellipse_ring(*xy[0], *xy[1]))
    else:
        ring = shapely.LineString(xy) if len(xy) >= 2 else _NOTHING
    length, area = float(ring.length), float(ring.area)
    return {
        "Length": f"{length:.1f}", "Area": f"{area:.1f}",
        "LengthMicrons": f"{length * mpp:.1f}", "AreaMicrons": f"{area * mpp * mpp:.1f}",
    }  # fmt: skip


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None


def _texts(value: Any) -> dict[str, str]:
    """Return the texts of an object whose names can stand in XML."""
    if not isinstance(value, Mapping):
        return {}
    return {
        name: str(text) for name, text in value.items() if name.replace("_", "").isalnum()
    }


def _texts_of(value: Any) -> list[dict[str, str]]:
    return [_texts(each) for each in value] if isinstance(value, list) else []
