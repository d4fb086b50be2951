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
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
    positions,
    unknown_notes,
    xml_text,
)
from napari_histomil.errors import AnnotationError

ROOT = "Annotations"

OWN = "imagescope"
"""Member of a region's and a file's extra that holds what only these formats use."""

MICRONS = "MicronsPerPixel"

_KNOWN = {
    ROOT: None, "Annotation": None, "Attributes": (), "Attribute": None, "Regions": (),
    "RegionAttributeHeaders": (), "AttributeHeader": None, "Region": None, "Vertices": (),
    "Vertex": ("X", "Y", "Z"), "V": ("X", "Y", "Z"), "Plots": (),
}  # fmt: skip
"""Elements and attributes that are read."""

_AREAS = {"0": "0", "1": "1", "2": "2", "Polygon": "0", "Rectangle": "1", "Ellipse": "2"}
HALO_TYPES = {"0": "Polygon", "1": "Rectangle", "2": "Ellipse"}
DERIVED = ("Length", "Area", "LengthMicrons", "AreaMicrons")
ORDER_KEY = "at"
"""Under which a region's place in the order of drawing is kept."""

NOTHING = shapely.Polygon()
Xy = NDArray[np.float64]


# --- layers -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Layer:
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


def line_color(color: RGB) -> str:
    """Return a colour as ``LineColor``: blue, green, red in one number."""
    return str(color[0] | color[1] << 8 | color[2] << 16)


@dataclass(slots=True)
class Item:
    """A region's element."""

    where: str
    said: dict[str, str]
    fields: list[dict[str, str]]
    members: Mapping[str, Any]
    xy: Xy
    holes: list[Item] = field(default_factory=list)

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
    layers: list[Layer] = []
    found: list[tuple[Region, str, int]] = []
    loose: list[Cutout] = []
    names: dict[str, int] = {}
    notes: list[str] = []
    counts = {"odd": 0, "heights": 0, "alone": 0}
    record: Any = {}
    halo = False
    for number, element in enumerate(root.iterfind("Annotation"), 1):
        fields = [dict(each.items()) for each in element.iterfind("Attributes/Attribute")]
        kept = [each for each in fields if each.get("Name") == KEY]
        if kept and not record:
            record = parsed_text(kept[0].get("Value", ""), "the file")
        layer = Layer(
            dict(element.items()),
            [each for each in fields if each.get("Name") != KEY],
            [dict(each.items()) for each in element.iterfind("Regions/RegionAttributeHeaders/*")],
        )
        layers.append(layer)
        items = [
            _item(each, f"region {n} of layer {number}", counts)
            for n, each in enumerate(element.iterfind("Regions/Region"), 1)
        ]
        halo = halo or any(item.said.get("Type", "0") in HALO_TYPES.values() for item in items)
        label = layer.label(number)
        first_of_name = names.setdefault(label, number) == number
        found += _layer_regions(items, layers, loose, counts, first_of_name)
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
    notes += unknown_notes(root, _KNOWN, "ImageScope")
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


def _item(element: Element, where: str, counts: dict[str, int]) -> Item:
    text = element.get("Text", "")
    where += f" ({text[:40]})" if text else ""
    vertices = [each for each in element.iterfind("Vertices/*") if each.tag in ("Vertex", "V")]
    counts["heights"] += any(each.get("Z", "0").strip("-0.") for each in vertices)
    fields = [dict(each.items()) for each in element.iterfind("Attributes/Attribute")]
    kept = [each.get("Value", "") for each in fields if each.get("Name") == KEY]
    members = parsed_text(kept[0], where) if kept else {}
    if not isinstance(members, Mapping):
        raise AnnotationError(f"what this program kept of {where} is damaged")
    said = {name: value for name, value in element.items() if name not in DERIVED}
    fields = [each for each in fields if each.get("Name") != KEY]
    return Item(where, said, fields, members, positions(vertices, where))


def _layer_regions(
    items: list[Item],
    layers: list[Layer],
    loose: list[Cutout],
    counts: dict[str, int],
    first_of_name: bool,
) -> list[tuple[Region, str, int]]:
    """Return the regions of the last of the layers, the ids of their parents, and their order."""
    classification = layers[-1].classification(len(layers))
    positive = [item for item in items if not (_negative(item) and item.areal)]
    alone = _place_holes(
        [item for item in items if _negative(item) and item.areal], positive, loose, classification
    )
    counts["alone"] += len(alone)
    regions: list[list[Item]] = []
    by_id: dict[Any, list[Item]] = {}
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
    numbers = Numbers()
    return [
        _region(parts, layers, numbers, id(parts[0]) in lonely, first_of_name) for parts in regions
    ]


def _negative(item: Item) -> bool:
    return item.said.get("NegativeROA", "0").strip().lower() in ("1", "true")


def _place_holes(
    holes: list[Item],
    positive: list[Item],
    loose: list[Cutout],
    classification: AnnotationClass,
) -> list[Item]:
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
    ours: dict[Any, list[Item]] = {}
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


class Numbers:
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
    parts: list[Item], layers: list[Layer], numbers: Numbers, alone: bool, first_of_name: bool
) -> tuple[Region, str, int]:
    """Return the region of one element or of several, its parent's id, and its order."""
    first, number = parts[0], len(layers)
    numbers.regions += 1
    classification = class_named(IGNORE) if alone else layers[-1].classification(number)
    geometry = assembled(parts, first.members.get("shape"))
    plain = plain_region(first, number, numbers.regions, geometry, classification)
    parent = ""
    if first.members:
        plain, parent = restored(plain, first.members, first.where)
    own: dict[str, Any] = {}
    if alone or not first_of_name:
        own["layer"] = number
    usual, text = usual_kind(plain), xml_text(plain.name or "")
    elements = []
    for part in parts:
        defaults = numbers.defaults(usual, text if part is first else "")
        elements.append(_unusual(part, defaults))
        holder = part.said.get("Id", defaults["Id"])
        elements += [_unusual(hole, numbers.defaults("0", hole_of=holder)) for hole in part.holes]
    if any(elements):
        own["elements"] = elements
    if own:
        properties = {**plain.extra.properties, OWN: own}
        plain = replace(plain, extra=replace(plain.extra, properties=properties))
    order = first.members.get(ORDER_KEY)
    return plain, parent, order if type(order) is int else sys.maxsize


def _unusual(item: Item, defaults: Mapping[str, str]) -> dict[str, Any]:
    """Return what an element says other than what would be written for it anyway."""
    said: dict[str, Any] = {
        name: value for name, value in item.said.items() if value != defaults.get(name)
    }
    if _AREAS.get(said.get("Type", "")) == defaults["Type"]:  # HALO's word for the same
        del said["Type"]
    return said | ({"fields": item.fields} if item.fields else {})


def plain_region(
    first: Item,
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


def assembled(parts: list[Item], kind: Any) -> BaseGeometry:
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
    return shapely.points(first.xy[0]) if len(first.xy) else NOTHING


def _outline(part: Item) -> BaseGeometry:
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


def usual_kind(region: Region) -> str:
    """Return the type that a region is written as: an ellipse, else an outline."""
    return "2" if is_ellipse(region.geometry, region.extra.geometry) else "0"
