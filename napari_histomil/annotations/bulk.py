"""Commands that reshape many regions at once: merged, taken apart, filled, simplified, mended.

Like `commands.py` these return what would change, and do nothing. The geometry is in `edit.py`.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection

import shapely
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations import commands, edit
from napari_histomil.annotations.collection import AnnotationSet, Command
from napari_histomil.annotations.commands import counted
from napari_histomil.annotations.model import Region
from napari_histomil.annotations.stamps import Stamp
from napari_histomil.errors import AnnotationError


def merge(annotations: AnnotationSet, ids: Collection[str], stamp: Stamp) -> Command:
    """Return the command that makes one region of several; the largest lives on, with its words.

    Raises
    ------
    AnnotationError
        If there are fewer than two, they have different classes, one is fixed, or one has no
        area.
    """
    regions = annotations.pick(ids)
    if len(regions) < 2:
        raise AnnotationError("Select two regions or more to merge them.")
    names = list(dict.fromkeys(region.class_name or "unclassified" for region in regions))
    if len(names) > 1:
        raise AnnotationError(
            f"The regions have different classes ({', '.join(names)}): give them one class first."
        )
    whole = edit.merge(region.geometry for region in regions)
    largest = max(regions, key=lambda region: region.geometry.area)
    told = dict.fromkeys(region.note for region in regions if region.note)
    metadata = dict(largest.metadata)
    if told:
        metadata["note"] = "\n".join(told)
    children = tuple(child for region in regions for child in region.children)
    merged = largest.but(geometry=whole, metadata=metadata, children=children)
    text = f"merge {counted(regions)}"
    return commands.exchange(annotations, ids, [_plain(largest, merged)], text, stamp)


def take_apart(annotations: AnnotationSet, ids: Collection[str], stamp: Stamp) -> Command:
    """Return the command that makes each part of regions a region of its own.

    The largest part keeps the region's id and its children.

    Raises
    ------
    AnnotationError
        If none of them has several parts, or one that has is fixed.
    """
    several = [r for r in annotations.pick(ids) if shapely.get_num_geometries(r.geometry) > 1]
    if not several:
        raise AnnotationError("No selected region has several parts: nothing to take apart.")
    result = []
    for region in several:
        parts = sorted(shapely.get_parts(region.geometry), key=lambda part: -part.area)
        result.append(_plain(region, region.but(geometry=parts[0])))
        result += [
            _plain(region, region.but(id=str(uuid.uuid4()), geometry=part, children=()))
            for part in parts[1:]
        ]
    text = f"take {counted(several)} apart"
    return commands.exchange(annotations, [r.id for r in several], result, text, stamp)


def fill_holes(annotations: AnnotationSet, ids: Collection[str], stamp: Stamp) -> Command:
    """Return the command that fills the holes of regions.

    Raises
    ------
    AnnotationError
        If none of them has holes, or one that has is fixed or broken.
    """
    shapes = {
        region.id: edit.fill_holes(region.geometry)
        for region in annotations.pick(ids)
        if region.is_areal and _has_holes(region.geometry)
    }
    if not shapes:
        raise AnnotationError("No selected region has holes.")
    return commands.reshape(annotations, shapes, f"fill holes of {counted(shapes)}", stamp)


def simplify(
    annotations: AnnotationSet, ids: Collection[str], tolerance_px0: float, stamp: Stamp
) -> Command:
    """Return the command that leaves out vertices of regions, by no more than the tolerance.

    Raises
    ------
    AnnotationError
        If that leaves out none, or one of the regions is fixed.
    """
    shapes: dict[str, BaseGeometry] = {}
    before = after = 0
    for region in annotations.pick(ids):
        simple = edit.simplify(region.geometry, tolerance_px0)
        old, new = (shapely.get_num_coordinates(s) for s in (region.geometry, simple))
        if new < old and not simple.is_empty:
            shapes[region.id] = simple
            before, after = before + old, after + new
    if not shapes:
        raise AnnotationError("No vertex can be left out: choose a larger tolerance.")
    text = f"simplify {counted(shapes)}, {before:,} to {after:,} vertices"
    return commands.reshape(annotations, shapes, text, stamp)


def mend(annotations: AnnotationSet, ids: Collection[str], stamp: Stamp) -> Command:
    """Return the command that mends broken regions, see `edit.mended`.

    Raises
    ------
    AnnotationError
        If none of them is broken, one is fixed, or nothing would be left.
    """
    shapes = {
        region.id: edit.mended(region.geometry)
        for region in annotations.pick(ids)
        if not shapely.is_valid(region.geometry)
    }
    if not shapes:
        raise AnnotationError("No selected region is broken.")
    return commands.reshape(annotations, shapes, f"mend {counted(shapes)}", stamp)


def remove_measurement(
    annotations: AnnotationSet, region_id: str, name: str, stamp: Stamp
) -> Command:
    """Return the command that takes a measurement of a region away."""
    region = annotations.get(region_id)
    left = {key: value for key, value in region.measurements.items() if key != name}
    changed = region.but(measurements=left)
    return commands.exchange(
        annotations, [region_id], [changed], f"take measurement {name} away", stamp
    )


def _has_holes(shape: BaseGeometry) -> bool:
    return bool(shapely.get_num_interior_rings(shapely.get_parts(shape)).any())


def _plain(old: Region, new: Region) -> Region:
    """Leave out the mark of an ellipse where the shape is another one."""
    return new.but(extra=commands.without_ellipse(old.extra))
