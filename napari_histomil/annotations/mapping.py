"""Groups and layers of other programs -> classes; and what one group cuts out of the others.

A mapping is a small file that a project shares. As JSON::

    {"metastases": "Tumor", "Exclusion": "subtract", "normal": "ignore", "*": "Other"}

or as a table with the columns ``group,class`` and, if wanted, ``color``. What is mapped is found
by its class (the group or layer that it came from), else by its colour (``#rrggbb``); ``none``
stands for what has no class, ``*`` for all that is not named. It becomes

* a class, by its name, or ``{"class": "Tumor", "color": [200, 0, 0]}``;
* ``subtract``: its area is cut out of all regions that it touches; of those of some classes only
  with ``{"subtract": ["Tumor"]}``;
* ``ignore``: it is left out, and a note says how many.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.files import AnnotationFile, parsed_json, read_bytes
from napari_histomil.annotations.kept import flat, nested
from napari_histomil.annotations.model import AnnotationClass, Region, class_named
from napari_histomil.annotations.spatial import shapes_of
from napari_histomil.annotations.xml_files import color_hex, hex_color
from napari_histomil.errors import AnnotationError

NONE = "none"
REST = "*"
IGNORE_WORD, SUBTRACT_WORD = "ignore", "subtract"


@dataclass(frozen=True, slots=True)
class Ignored:
    """What is mapped to this is left out."""


@dataclass(frozen=True, slots=True)
class Subtracted:
    """What is mapped to this is cut out of the others."""

    classes: tuple[str, ...] = ()
    """Of those of these classes only; of all where it is empty."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """What is mapped to this gets a class."""

    classification: AnnotationClass


Target = Mapped | Subtracted | Ignored


@dataclass(frozen=True, slots=True)
class ClassMapping:
    """Which group or layer becomes what."""

    targets: Mapping[str, Target] = field(default_factory=dict)

    def target(self, region: Region) -> Target | None:
        """Return what a region becomes; None for no change."""
        name, keys = region.class_name, [NONE]
        if name is not None:
            keys = [name]
        color = region.classification.color if region.classification else region.color
        keys += [color_hex(color)] if color else []
        for key in (*keys, REST):
            if key in self.targets:
                return self.targets[key]
        return None


_TUMOR = Mapped(class_named("Tumor"))

BUILT_IN: Mapping[str, ClassMapping] = {
    "camelyon": ClassMapping(
        {
            **dict.fromkeys(("_0", "_1", "Tumor", "metastases", "metastasis"), _TUMOR),
            **dict.fromkeys(("_2", "Exclusion"), Subtracted(("Tumor",))),
            "normal": Mapped(AnnotationClass("Normal", class_named("Normal").color)),
        }
    )
}
"""Mappings known by name. CAMELYON: groups ``_0`` and ``_1`` are tumour, ``_2`` is cut out."""


def read_mapping(path: Path) -> ClassMapping:
    """Return the mapping in a JSON or CSV file, or the one in `BUILT_IN` of that name.

    Raises
    ------
    AnnotationError
        If it cannot be read or says something else than a mapping does.
    """
    if str(path) in BUILT_IN and not path.exists():
        return BUILT_IN[str(path)]
    data = read_bytes(path)
    try:
        if data.lstrip()[:1] in (b"{", b"["):
            return mapping_of(parsed_json(data, path.name))
        return _table(data)
    except AnnotationError as error:
        text = str(error)
        if text.startswith(path.name):
            raise
        raise AnnotationError(f"{path.name} is no mapping of groups to classes: {text}.") from None


def mapping_of(value: Any) -> ClassMapping:
    """Return the mapping that a parsed JSON object says.

    Raises
    ------
    AnnotationError
        If it says something else.
    """
    if not isinstance(value, dict):
        raise AnnotationError('it should be one object like {"metastases": "Tumor"}')
    return ClassMapping({name: _target(name, target) for name, target in value.items()})


def _target(name: str, value: Any) -> Target:
    if isinstance(value, str) and value.strip():
        word = value.strip()
        if word.lower() == IGNORE_WORD:
            return Ignored()
        return Subtracted() if word.lower() == SUBTRACT_WORD else Mapped(class_named(word))
    if isinstance(value, dict) and set(value) == {SUBTRACT_WORD}:
        classes = value[SUBTRACT_WORD]
        classes = [classes] if isinstance(classes, str) else classes
        if isinstance(classes, list) and all(isinstance(each, str) for each in classes):
            return Subtracted(tuple(classes))
    if isinstance(value, dict) and isinstance(value.get("class"), str) and value["class"]:
        found, color = class_named(value["class"]), value.get("color")
        if color is None:
            return Mapped(found)
        if isinstance(color, str) and (read := hex_color(color)):
            return Mapped(replace(found, color=read))
        if (
            isinstance(color, list)
            and len(color) == 3
            and all(type(v) is int and 0 <= v <= 255 for v in color)
        ):
            return Mapped(replace(found, color=(color[0], color[1], color[2])))
    raise AnnotationError(
        f"'{name}' should become a class, 'subtract' or 'ignore', not {json.dumps(value)[:60]}"
    )


def _table(data: bytes) -> ClassMapping:
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error):
        raise AnnotationError("it is neither JSON nor a table") from None
    if not rows or not {"group", "class"} <= set(rows[0]):
        raise AnnotationError("a table needs the columns group and class")
    targets = {}
    for number, row in enumerate(rows, 2):
        group, name, color = row["group"], row["class"], row.get("color")
        if not group or not name:
            raise AnnotationError(f"line {number} lacks a group or a class")
        targets[group] = _target(group, {"class": name, "color": color} if color else name)
    return ClassMapping(targets)


# --- applying it ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cutout:
    """An area that is cut out of regions."""

    geometry: BaseGeometry
    classes: tuple[str, ...]
    """Of regions of these classes; of all where it is empty. ``None`` is no class."""
    label: str
    """What messages call it."""


def mapped(file: AnnotationFile, mapping: ClassMapping | None) -> AnnotationFile:
    """Return a file's regions with classes of one's own, cut and left out as the mapping says.

    The classes that a ``subtract`` names are those after mapping.
    """
    if mapping is None:
        return file
    kept: list[tuple[Region, str]] = []
    cutouts: list[Cutout] = []
    ignored: dict[str, int] = {}
    lines = 0
    for region, parent in flat(file.regions):
        alone = replace(region, children=()) if region.children else region
        target = mapping.target(region)
        if isinstance(target, Ignored):
            name = region.class_name or NONE
            ignored[name] = ignored.get(name, 0) + 1
        elif isinstance(target, Subtracted) and region.is_areal:
            cutouts.append(Cutout(region.geometry, target.classes, region.label))
        else:
            lines += isinstance(target, Subtracted)
            if isinstance(target, Mapped):
                alone = alone.but(classification=target.classification)
            kept.append((alone, parent))
    notes = [
        f"{count} regions of {name} were left out, as the mapping says."
        for name, count in ignored.items()
    ]
    if lines:
        notes.append(f"{lines} points and lines have no area to subtract: they were kept.")
    regions, cut = cut_out(nested(kept), cutouts)
    return replace(file, regions=regions, notes=(*file.notes, *notes, *cut))


def cut_out(
    regions: tuple[Region, ...], cutouts: Sequence[Cutout]
) -> tuple[tuple[Region, ...], list[str]]:
    """Cut areas out of the regions they touch, and return notes on what could not be cut.

    A cutout that lies inside a region becomes a hole of it with the very vertices it was drawn
    with.
    """
    if not cutouts:
        return regions, []
    pairs = [
        (replace(region, children=()) if region.children else region, parent)
        for region, parent in flat(regions)
    ]
    areas = np.array([cutout.geometry for cutout in cutouts], dtype=object)
    odd = ~shapely.is_valid(areas)
    areas[odd] = shapely.make_valid(areas[odd])
    areal = [n for n, (region, _) in enumerate(pairs) if region.is_areal]
    shapes = shapes_of([pairs[n][0] for n in areal])
    sound = shapely.is_valid(shapes)
    # By bounds first: GEOS cannot say whether a broken shape touches another.
    near = shapely.STRtree(shapes).query(areas)  # [2, pairs]: cutout, region
    broken = {areal[index] for index in np.unique(near[1]) if not sound[index]}
    near = near[:, sound[near[1]]]
    near = near[:, shapely.intersects(areas[near[0]], shapes[near[1]])]
    holes: dict[int, list[BaseGeometry]] = {}
    used: set[int] = set()
    for number, index in sorted(near.T.tolist()):
        classes, n = cutouts[number].classes, areal[index]
        if not classes or (pairs[n][0].class_name or "None") in classes:
            holes.setdefault(n, []).append(areas[number])
            used.add(number)
    idle = len(cutouts) - len(used)
    gone = 0
    result = []
    for n, (region, parent) in enumerate(pairs):
        if n in holes:
            rest = without(region.geometry, holes[n])
            if rest.is_empty:
                gone += 1
                continue
            region = region.but(geometry=rest)
        result.append((region, parent))
    notes = []
    if idle:
        notes.append(f"{idle} areas to subtract touch no region that they could be cut out of.")
    if gone:
        notes.append(f"{gone} regions lie wholly in areas to subtract: nothing is left of them.")
    if broken:
        notes.append(
            f"{len(broken)} regions have broken outlines, so that nothing could be cut out of "
            f"them: mend them first (the first is {pairs[min(broken)][0].label})."
        )
    return nested(result), notes


def without(shape: BaseGeometry, holes: list[BaseGeometry]) -> BaseGeometry:
    """Return a valid shape without the holes: as rings where they lie inside, else by area."""
    if shape.geom_type == "Polygon" and all(hole.geom_type == "Polygon" for hole in holes):
        rings = [*shape.interiors, *(hole.exterior for hole in holes)]
        inside = not any(len(hole.interiors) for hole in holes)
        pierced = shapely.polygons(shape.exterior, rings)
        if inside and shapely.is_valid(pierced):
            return pierced
    rest = shapely.difference(shape, shapely.union_all(holes))
    parts = [part for part in shapely.get_parts(rest) if part.geom_type == "Polygon"]
    if not parts:
        return shapely.Polygon()
    return parts[0] if len(parts) == 1 else shapely.multipolygons(parts)
