"""Regions -> the XML of ImageScope and of HALO: what `imagescope` reads.

How holes, parts and what the formats have no word for are written is told there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.imagescope import (
    DERIVED,
    HALO_TYPES,
    MICRONS,
    NOTHING,
    ORDER_KEY,
    OWN,
    ROOT,
    Item,
    Layer,
    Numbers,
    Xy,
    assembled,
    line_color,
    plain_region,
    usual_kind,
)
from napari_histomil.annotations.kept import (
    KEY,
    file_members,
    flat,
    kept_members,
    kept_text,
)
from napari_histomil.annotations.model import (
    IGNORE,
    AnnotationClass,
    Region,
    SlideFrame,
    class_named,
)
from napari_histomil.annotations.shapes import (
    ellipse_ring,
    is_ellipse,
)
from napari_histomil.annotations.xml_files import (
    attributes,
    number_texts,
    xml_text,
)

_ORDER = ("Id", "Type", "Zoom", "Selected", "ImageLocation", "ImageFocus", *DERIVED, "Text",
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


class _Layers:
    """Layers that are written: those that were read, and one for each other class."""

    def __init__(self, own: Mapping[str, Any]) -> None:
        self.all: list[Layer] = []
        self.lines: list[list[str]] = []
        self.numbers: list[Numbers] = []
        self._read = 0
        for held in own.get("layers", []) if isinstance(own.get("layers"), list) else []:
            if isinstance(held, Mapping):
                lists = [_texts_of(held.get(key)) for key in ("fields", "headers")]
                self._add(Layer(_texts(held.get("attributes")), *lists))
        self._read = len(self.all)
        self._seen: set[int] = set()
        self._by_label: dict[str, int] = {}
        for n, layer in enumerate(self.all):
            self._by_label.setdefault(layer.label(n + 1), n)
        self._unclassified: int | None = None

    def _add(self, layer: Layer) -> int:
        self.all.append(layer)
        self.lines.append([])
        self.numbers.append(Numbers())
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
                layer.attributes["LineColor"] = line_color(chosen.color)
        return index


def _new_layer(name: str, chosen: AnnotationClass | None, number: int) -> Layer:
    color = line_color(chosen.color if chosen else (255, 0, 0))
    said = _LAYER | {"Id": str(number), "Name": name, "LineColor": color}
    return Layer(said, [dict(each) for each in _FIELDS], [dict(each) for each in _HEADERS])


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
        order = {ORDER_KEY: n} if mixed else {}  # the file goes by layers, the drawing did not
        some = _add_region(layers, index, region, parent, order, mpp or 0.0, halo)
        kept += some
        others += region.geometry.geom_type in ("Point", "MultiPoint", "MultiLineString") or (
            region.geometry.geom_type == "LineString" and not _own(region)
        )
    record = file_members(frame, extra, own=OWN)
    if record and not layers.all:
        layers.index(Region(NOTHING), {})
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
    order: dict[str, Any],
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
    usual = usual_kind(region)
    kind = _kind(region, usual, said[0], parts)
    text = xml_text(region.name or "")
    first = Item("", {"Type": kind, "Text": text}, [], {}, parts[0][0])
    first.holes = [Item("", {}, [], {}, xy) for xy in parts[0][1]]
    alone = _excluded(own) and region.class_name == IGNORE
    classification = class_named(IGNORE) if alone else layer.classification(index + 1)
    plain = plain_region(first, index + 1, numbers.regions, NOTHING, classification)
    members = kept_members(region, plain, parent, own=OWN)
    named = halo and count > len(parts)  # HALO has no number by which a hole names its region
    if len(parts) > 1 or named:
        members["id"] = region.id
    if len(parts) > 1 or assembled([first], None).geom_type != region.geometry.geom_type:
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


def _kind(
    region: Region, usual: str, said: Mapping[str, Any], parts: list[tuple[Xy, list[Xy]]]
) -> str:
    """Return the type that the region had, if it still gives the shape, else the usual one."""
    had = said.get("Type")
    if not isinstance(had, str) or usual == "2" or len(parts) != 1:
        return usual
    item = Item("", {"Type": had}, [], {}, parts[0][0])
    item.holes = [Item("", {}, [], {}, xy) for xy in parts[0][1]]
    same = assembled([item], None).geom_type == region.geometry.geom_type
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
        kind = HALO_TYPES.get(said["Type"], said["Type"])
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
    """Return length and area in level-0 pixels and in µm; `mpp` is 0 where it is unknown."""
    if len(xy) >= 3 and shape.geom_type in ("Polygon", "MultiPolygon"):
        ring = shapely.Polygon(xy)
    elif kind == "2":
        ring = shapely.Polygon(ellipse_ring(*xy[0], *xy[1]))
    else:
        ring = shapely.LineString(xy) if len(xy) >= 2 else NOTHING
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
    return {name: str(text) for name, text in value.items() if name.replace("_", "").isalnum()}


def _texts_of(value: Any) -> list[dict[str, str]]:
    return [_texts(each) for each in value] if isinstance(value, list) else []
