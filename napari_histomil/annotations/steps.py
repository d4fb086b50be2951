"""Commands as JSON, for the journal: exact both ways, and quick for 100,000 regions.

Regions that come or go, and those that change, are written in columns: their ids and geometries,
and of every field that is not as usual its different values, once, and which each region has::

    {"added": {"ids": ["...", "..."],
               "geometry": [{"type": "Polygon", "coordinates": [...]}, ...],
               "classification": {"values": [{"name": "Tumor", ...}], "rows": [0, 0]}},
     "changed": {"ids": [...], "before": {"name": ...}, "after": {"name": ...}},
     "removed": {...}, "removed_at": {id: place}, "added_at": {id: place},
     "extra": [before, after]}

Geometries of many regions, or vertices, are WKB in base64. Positions are level-0 pixels of the
whole slide, brought to what ``annotations.geojson`` can hold before a command is done (`settled`).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.collection import Command
from napari_histomil.annotations.edit import DECIMALS, on_grid
from napari_histomil.annotations.model import AnnotationClass, Extra, Region, each_but
from napari_histomil.annotations.shapes import Shift
from napari_histomil.annotations.spatial import moved_of
from napari_histomil.errors import AnnotationError

Present = Callable[[str], Region]
"""Gives the region of an id as it is now."""

MOST_READABLE = 200
"""Geometries of more regions are written as WKB, ten times as quickly."""

MOST_VERTICES = 2000
"""The same for a few regions with many vertices: a brush must not wait for its own text."""

_BLANK = Region(Polygon(), id="00000000-0000-0000-0000-000000000000")


# --- what a file can hold -----------------------------------------------------------------------


def settled(command: Command, shift: Shift) -> Command:
    """Return a command whose new shapes are as ``annotations.geojson`` would give them back.

    Parameters
    ----------
    shift
        Origin of the file's frame: coordinates are hundredths of a pixel from there.
    """
    moved = moved_of(command.removed, command.added)
    new = _settled_regions([command.added[each] for each in moved], shift)
    changes = {r.id: r for r in new if r is not command.added[r.id]}
    return replace(command, added={**command.added, **changes}) if changes else command


def _settled_regions(regions: Sequence[Region], shift: Shift) -> list[Region]:
    """Return regions with settled shapes; those that are settled as they are."""
    found = [
        region.but(
            nucleus=region.nucleus and _settled_shapes([region.nucleus], shift)[0],
            children=tuple(_settled_regions(region.children, shift)),
        )
        if region.nucleus is not None or region.children
        else region
        for region in regions
    ]
    shapes = _settled_shapes([region.geometry for region in found], shift)
    odd = [n for n, region in enumerate(found) if shapes[n] is not region.geometry]
    new = each_but([found[n] for n in odd], geometry=[shapes[n] for n in odd])
    for n, region in zip(odd, new, strict=True):
        found[n] = region
    return [old if now == old else now for old, now in zip(regions, found, strict=True)]


def _settled_shapes(given: Sequence[BaseGeometry], shift: Shift) -> list[BaseGeometry]:
    shapes = _array(given)
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    odd = shapely.is_empty(shapes) | shapely.has_z(shapes)
    odd[owner[(xy != _rounded(xy, shift)).any(axis=1)]] = True
    moved = shapely.transform(shapely.force_2d(shapes[odd]), lambda xy: _rounded(xy, shift))
    broken = ~shapely.is_valid(moved) & shapely.is_valid(shapes[odd])
    for n in np.flatnonzero(broken):  # too fine for the grid: mended one by one
        in_file = on_grid(shapely.transform(shapes[odd][n], lambda xy: xy - shift))
        moved[n] = shapely.transform(in_file, lambda xy: _rounded(xy + shift, shift))
    moved[shapely.is_empty(moved)] = Polygon()
    shapes[odd] = moved
    return list(shapes)


def _rounded(xy: NDArray[np.float64], shift: Shift) -> NDArray[np.float64]:
    """Return coordinates as they come back from a file; see `shapes.py`."""
    in_file = np.round(xy - shift, DECIMALS)
    return np.round(in_file + shift, 6) if any(shift) else in_file


# --- commands -----------------------------------------------------------------------------------


def step_from_command(command: Command) -> dict[str, Any]:
    """Return the JSON of a command, as `AnnotationSet.do` returned it."""
    removed, added = command.removed, command.added
    member: dict[str, Any] = {
        "removed": _table([region for each, region in removed.items() if each not in added]),
        "added": _table([region for each, region in added.items() if each not in removed]),
        "removed_at": dict(command.removed_at),
        "added_at": dict(command.added_at),
    }
    changed = [each for each in removed if each in added]
    if changed:
        before = [removed[each] for each in changed]
        after = [added[each] for each in changed]
        names = [name for name in _FIELDS if _differs(name, before, after)]
        member["changed"] = {
            "ids": changed,
            "before": _columns(before, names),
            "after": _columns(after, names),
        }
    if command.extra is not None:
        member["extra"] = [dict(each) for each in command.extra]
    return {name: value for name, value in member.items() if value}


def command_from_step(
    step: Mapping[str, Any], text: str, present: Present, *, done: bool
) -> Command:
    """Return the command of a step.

    Parameters
    ----------
    present
        Regions as they are just after the step if it is `done`, just before it if not.

    Raises
    ------
    AnnotationError
        If the step does not fit what is there.
    """
    try:
        gone, came = step.get("removed"), step.get("added")
        removed = _regions(gone) if done else _present(gone, present)
        added = _present(came, present) if done else _regions(came)
        changed = step.get("changed")
        if changed:
            now = [present(each) for each in changed["ids"]]
            other = each_but(now, **_values(changed["before" if done else "after"], len(now)))
            for one, another in zip(now, other, strict=True):
                before, after = (another, one) if done else (one, another)
                removed[one.id], added[one.id] = before, after
        places = [
            {str(each): int(place) for each, place in step.get(name, {}).items()}
            for name in ("removed_at", "added_at")
        ]
        extra = step.get("extra")
        said = None if extra is None else (dict(extra[0]), dict(extra[1]))
    except (LookupError, TypeError, ValueError, AttributeError, shapely.GEOSException) as error:
        raise AnnotationError(f"The step '{text}' cannot be used: {error!r}.") from error
    return Command(text, removed, added, places[0], places[1], said)


def region_beyond(
    step: Mapping[str, Any], region_id: str, region: Region | None, *, back: bool
) -> tuple[bool, Region | None]:
    """Return whether a step touched a region, and the region on its other side.

    Parameters
    ----------
    region
        The region just after the step (`back`), or just before it; None if it was not there.
    """
    here, there = ("added", "removed") if back else ("removed", "added")
    found = _row(step.get(there), region_id)
    if found is not None:
        return True, _regions({"ids": [region_id], **_one(step[there], found)})[region_id]
    if _row(step.get(here), region_id) is not None:
        return True, None
    found = _row(step.get("changed"), region_id)
    if found is None or region is None:
        return False, region
    told = _one(step["changed"]["before" if back else "after"], found)
    return True, each_but([region], **_values(told, 1))[0]


# --- tables of regions --------------------------------------------------------------------------


def _table(regions: Sequence[Region]) -> dict[str, Any]:
    """Return regions in columns; of fields other than the geometry only those that are unusual."""
    if not regions:
        return {}
    blank = [_BLANK] * len(regions)
    names = [name for name in _FIELDS if name != "geometry" and _differs(name, regions, blank)]
    ids = [region.id for region in regions]
    return {"ids": ids, **_columns(regions, ["geometry", *names])}


def _regions(table: Mapping[str, Any] | None) -> dict[str, Region]:
    if not table:
        return {}
    ids = table["ids"]
    columns = {"geometry": table["geometry"], **table}
    del columns["ids"]
    new = each_but([_BLANK] * len(ids), id=ids, **_values(columns, len(ids)))
    return {region.id: region for region in new}


def _present(table: Mapping[str, Any] | None, present: Present) -> dict[str, Region]:
    """Return the regions of a table that are there: as they are."""
    return {each: present(each) for each in table["ids"]} if table else {}


def _row(table: Mapping[str, Any] | None, region_id: str) -> int | None:
    """Return in which row of a table a region is."""
    return table["ids"].index(region_id) if table and region_id in table["ids"] else None


def _one(columns: Mapping[str, Any], row: int) -> dict[str, Any]:
    """Return one row of columns."""
    return {
        name: [column[row]]
        if isinstance(column, list)
        else {"values": [column["values"][column["rows"][row]]], "rows": [0]}
        for name, column in columns.items()
        if name != "ids"
    }


def _differs(name: str, some: Iterable[Region], others: Iterable[Region]) -> bool:
    for one, other in zip(some, others, strict=True):
        a, b = getattr(one, name), getattr(other, name)
        if a is not b and a != b:
            return True
    return False


def _columns(regions: Sequence[Region], names: Iterable[str]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name in names:
        column = [getattr(region, name) for region in regions]
        if name in _SHAPES:
            columns[name] = _written_shapes(column)
            continue
        values: list[Any] = []
        rows: list[int] = []
        known: dict[int, int] = {}  # by identity: what is equal is mostly the same
        for value in column:
            row = known.get(id(value))
            if row is None:
                row = known[id(value)] = len(values)
                values.append(_FIELDS[name].write(value))
            rows.append(row)
        columns[name] = {"values": values, "rows": rows}
    return columns


def _values(columns: Mapping[str, Any], count: int) -> dict[str, list[Any]]:
    """Return the values of columns, as `each_but` takes them."""
    found: dict[str, list[Any]] = {}
    for name, column in columns.items():
        if name in _SHAPES:
            found[name] = _read_shapes(column)
        else:
            values = [_FIELDS[name].read(value) for value in column["values"]]
            found[name] = [values[row] for row in column["rows"]]
        if len(found[name]) != count:
            raise ValueError(f"{len(found[name])} values of {name} for {count} regions")
    return found


# --- fields -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Field:
    """How a value of a field is written as JSON and read again."""

    write: Callable[[Any], Any] = lambda value: value
    read: Callable[[Any], Any] = lambda value: value


def _read_class(value: Any) -> AnnotationClass | None:
    return value and AnnotationClass(value["name"], tuple(value["color"]), value["alpha"])


_SHAPES = ("geometry", "nucleus")

_FIELDS: Mapping[str, _Field] = {
    "geometry": _Field(),
    "classification": _Field(
        lambda own: own and {"name": own.name, "color": list(own.color), "alpha": own.alpha},
        _read_class,
    ),
    "name": _Field(),
    "color": _Field(read=lambda value: value and tuple(value)),
    "locked": _Field(),
    "object_type": _Field(),
    "measurements": _Field(write=dict),
    "metadata": _Field(write=dict),
    "nucleus": _Field(),
    "children": _Field(_table, lambda value: tuple(_regions(value).values())),
    "extra": _Field(
        lambda extra: {each.name: dict(getattr(extra, each.name)) for each in fields(Extra)},
        lambda value: Extra(**value),
    ),
}
"""All fields but the id, which never changes."""


def _written_shapes(shapes: Sequence[BaseGeometry | None]) -> list[Any]:
    """Return GeoJSON geometries, or WKB where there is much; None stays None."""
    array = _array(shapes)
    if len(shapes) > MOST_READABLE or shapely.get_num_coordinates(array).sum() > MOST_VERTICES:
        return [wkb and base64.b64encode(wkb).decode() for wkb in shapely.to_wkb(array)]
    return [None if shape is None else json.loads(shapely.to_geojson(shape)) for shape in shapes]


def _read_shapes(values: Sequence[Any]) -> list[BaseGeometry | None]:
    if any(isinstance(value, str) for value in values):
        wkb = [value and base64.b64decode(value, validate=True) for value in values]
        return list(shapely.from_wkb(_array(wkb)))
    texts = [None if value is None else json.dumps(value) for value in values]
    return list(shapely.from_geojson(_array(texts)))


def _array(values: Sequence[Any]) -> NDArray[np.object_]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
