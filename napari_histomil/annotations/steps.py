"""Commands as JSON, for the journal: exact both ways.

Regions that come or go are Features as in ``annotations.geojson``; of regions that change, only
the fields that do, before and after, each kind of change once with all its ids::

    {"removed": [Feature, ...], "added": [...], "removed_at": {id: place}, "added_at": {...},
     "changed": [{"ids": [...], "before": {"name": null}, "after": {"name": "A"}}]}

Coordinates are hundredths of a pixel in the file's frame: `settled` brings a command there first,
so that what is in memory is what is on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.collection import Command
from napari_histomil.annotations.edit import DECIMALS, on_grid
from napari_histomil.annotations.model import AnnotationClass, Extra, Region
from napari_histomil.annotations.qupath import feature_from_region, region_from_feature
from napari_histomil.annotations.shapes import Shift, read_shape, shape_member
from napari_histomil.annotations.spatial import moved_of
from napari_histomil.errors import AnnotationError
from napari_histomil.journal import json_bytes

Present = Callable[[str], Region]
"""Gives the region of an id as it is now."""


# --- what a file can hold -----------------------------------------------------------------------


def settled(command: Command, shift: Shift) -> Command:
    """Return a command whose new shapes are as a file would give them back."""
    moved = moved_of(command.removed, command.added)
    new = [command.added[each] for each in moved]
    shapes = np.array([region.geometry for region in new] + [Polygon()], dtype=object)[:-1]
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    odd = set(owner[(xy != _rounded(xy, shift)).any(axis=1)].tolist())
    changes = {
        region.id: _settled_region(region, shift)
        for n, region in enumerate(new)
        if n in odd or region.nucleus is not None or region.children or _unusual(region.geometry)
    }
    return replace(command, added={**command.added, **changes}) if changes else command


def _settled_region(region: Region, shift: Shift) -> Region:
    return region.but(
        geometry=_settled_shape(region.geometry, shift),
        nucleus=None if region.nucleus is None else _settled_shape(region.nucleus, shift),
        children=tuple(_settled_region(child, shift) for child in region.children),
    )


def _settled_shape(shape: BaseGeometry, shift: Shift) -> BaseGeometry:
    if shape.is_empty:
        return Polygon()
    flat = shapely.force_2d(shape)
    xy = shapely.get_coordinates(flat)
    if (xy == _rounded(xy, shift)).all():
        return flat
    in_file = on_grid(shapely.transform(flat, lambda xy: xy - shift))
    return shapely.transform(in_file, lambda xy: _rounded(xy + shift, shift))


def _rounded(xy: Any, shift: Shift) -> Any:
    """Return coordinates as they come back from a file; see `shapes.py`."""
    in_file = np.round(xy - shift, DECIMALS)
    return np.round(in_file + shift, 6) if any(shift) else in_file


def _unusual(shape: BaseGeometry) -> bool:
    return bool(shape.is_empty or shape.has_z)


# --- commands -----------------------------------------------------------------------------------


def step_from_command(command: Command, shift: Shift) -> dict[str, Any]:
    """Return the JSON of a command that was done, with all its places.

    Parameters
    ----------
    command
        As `AnnotationSet.do` returned it.
    shift
        (x, y) to take from every coordinate: the origin of the file's frame.
    """
    removed, added = command.removed, command.added
    member: dict[str, Any] = {
        "removed": [feature_from_region(removed[e], shift) for e in removed if e not in added],
        "added": [feature_from_region(added[e], shift) for e in added if e not in removed],
        "removed_at": dict(command.removed_at),
        "added_at": dict(command.added_at),
        "changed": _changes(command, shift),
    }
    return {name: value for name, value in member.items() if value}


def command_from_step(
    step: Mapping[str, Any], text: str, present: Present, shift: Shift, *, done: bool
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
        removed = _read(step.get("removed", ()), None if done else present, shift)
        added = _read(step.get("added", ()), present if done else None, shift)
        for change in step.get("changed", ()):
            told = change["before"] if done else change["after"]
            values = {name: _FIELDS[name].read(value, shift) for name, value in told.items()}
            for each in change["ids"]:
                now = present(each)
                other = now.but(**values)
                removed[each], added[each] = (other, now) if done else (now, other)
        places = [{str(k): int(v) for k, v in step.get(name, {}).items()} for name in _PLACES]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AnnotationError(
            f"The step '{text}' of the journal cannot be used: {error}."
        ) from error
    return Command(text, removed, added, *places)


_PLACES = ("removed_at", "added_at")


def region_beyond(
    step: Mapping[str, Any], region_id: str, region: Region | None, shift: Shift, *, back: bool
) -> tuple[bool, Region | None]:
    """Return whether a step touched a region, and the region on its other side.

    Parameters
    ----------
    region
        The region just after the step (`back`), or just before it; None if it was not there.
    """
    here, there = ("added", "removed") if back else ("removed", "added")
    for feature in step.get(there, ()):
        if feature["id"] == region_id:
            return True, region_from_feature(feature, f"region {region_id}", shift)
    if any(feature["id"] == region_id for feature in step.get(here, ())):
        return True, None
    for change in step.get("changed", ()):
        if region_id in change["ids"] and region is not None:
            told = change["before" if back else "after"]
            values = {name: _FIELDS[name].read(value, shift) for name, value in told.items()}
            return True, region.but(**values)
    return False, region


def _read(features: Any, present: Present | None, shift: Shift) -> dict[str, Region]:
    """Return regions of Features; those that are there are taken as they are."""
    if present is not None:
        return {feature["id"]: present(feature["id"]) for feature in features}
    regions = (region_from_feature(each, f"region {each['id']}", shift) for each in features)
    return {region.id: region for region in regions}


def _changes(command: Command, shift: Shift) -> list[dict[str, Any]]:
    groups: dict[tuple[tuple[str, bytes, bytes], ...], dict[str, Any]] = {}
    known: dict[tuple[str, int], tuple[Any, bytes]] = {}  # many regions share a value

    def written(name: str, value: Any) -> tuple[Any, bytes]:
        if (name, id(value)) not in known:
            plain = _FIELDS[name].write(value, shift)
            known[name, id(value)] = plain, json_bytes(plain)
        return known[name, id(value)]

    for each, old in command.removed.items():
        new = command.added.get(each)
        if new is None or (new is old and each not in command.added_at):
            continue
        pairs = []
        for name in _FIELDS:
            before, after = getattr(old, name), getattr(new, name)
            if before is not after and before != after:
                pairs.append((name, written(name, before), written(name, after)))
        key = tuple((name, before[1], after[1]) for name, before, after in pairs)
        if key not in groups:
            groups[key] = {
                "ids": [],
                "before": {name: before[0] for name, before, _ in pairs},
                "after": {name: after[0] for name, _, after in pairs},
            }
        groups[key]["ids"].append(each)
    return list(groups.values())


# --- fields -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Field:
    """How a field of a region is written as JSON and read again."""

    write: Callable[[Any, Shift], Any]
    read: Callable[[Any, Shift], Any]


def _class_member(value: AnnotationClass | None, _shift: Shift) -> Any:
    return value and {"name": value.name, "color": list(value.color), "alpha": value.alpha}


def _class(value: Any, _shift: Shift) -> AnnotationClass | None:
    return value and AnnotationClass(value["name"], _color(value["color"], _shift), value["alpha"])


def _color(value: Any, _shift: Shift) -> Any:
    return value and tuple(value)


def _shape(value: Any, shift: Shift) -> BaseGeometry:
    return read_shape(value, "a step", shift)[0]


def _plain(value: Any, _shift: Shift) -> Any:
    return value


_PLAIN = _Field(_plain, _plain)
_DICT = _Field(lambda value, _: dict(value), _plain)

_FIELDS: Mapping[str, _Field] = {
    "geometry": _Field(lambda shape, shift: shape_member(shape, {}, shift), _shape),
    "classification": _Field(_class_member, _class),
    "name": _PLAIN,
    "color": _Field(lambda color, _: color and list(color), _color),
    "locked": _PLAIN,
    "object_type": _PLAIN,
    "measurements": _DICT,
    "metadata": _DICT,
    "nucleus": _Field(
        lambda shape, shift: shape_member(shape, {}, shift) if shape is not None else False,
        lambda value, shift: None if value is False else _shape(value, shift),
    ),
    "children": _Field(
        lambda children, shift: [feature_from_region(child, shift) for child in children],
        lambda value, shift: tuple(
            region_from_feature(child, "a child", shift) for child in value
        ),
    ),
    "extra": _Field(
        lambda extra, _: {each.name: dict(getattr(extra, each.name)) for each in fields(Extra)},
        lambda value, _: Extra(**value),
    ),
}
"""All fields but the id, which never changes."""
