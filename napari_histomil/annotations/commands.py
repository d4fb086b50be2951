"""What a person wants -> the `Command` that does it. Nothing is done here.

Every function takes the set as it is and returns what would change; `AnnotationSet.do`, or the
keeper that has it on disk too, does it. Regions that are fixed (locked, see `Region.is_fixed`)
are refused where shape, class, name or existence would change.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any, Literal

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.collection import AnnotationSet, Command
from napari_histomil.annotations.edit import Matrix
from napari_histomil.annotations.model import (
    RGB,
    AnnotationClass,
    Extra,
    Region,
    State,
    each_but,
)
from napari_histomil.annotations.stamps import Stamp, as_drawn, as_edited, judged, with_entry
from napari_histomil.errors import AnnotationError

Known = Literal["copy", "replace", "skip"]
"""What becomes of regions that come in and are there already."""

ELLIPSE = "isEllipse"
"""QuPath's word for a polygon that stands for the ellipse in its bounds."""


# --- regions come and go ----------------------------------------------------------------------


def add(regions: Collection[Region], stamp: Stamp, text: str | None = None) -> Command:
    """Return the command that adds new regions, on top of all others."""
    drawn = [as_drawn(region, stamp) for region in regions]
    return Command(text or f"draw {counted(drawn)}", added=_by_id(drawn))


def bring_in(
    annotations: AnnotationSet,
    regions: Sequence[Region],
    source: str,
    *,
    known: Known = "copy",
    extra: Mapping[str, Any] | None = None,
) -> Command:
    """Return the command that imports regions as they are, without a stamp.

    Parameters
    ----------
    regions
        In drawing order.
    source
        Where they come from: the name of a file.
    known
        What becomes of a region whose id is in the set already: it comes in with a new id, in
        place of the old one, or not at all.
    extra
        What the set then says as a whole, `extras.joined`; None leaves it.

    Raises
    ------
    AnnotationError
        If a fixed region would be replaced.
    """
    again = [region for region in regions if region.id in annotations]
    removed: dict[str, Region] = {}
    if known == "copy":
        copies = iter(each_but(again, id=[str(uuid.uuid4()) for _ in again]))
        came = [next(copies) if region.id in annotations else region for region in regions]
        told = ""
    elif known == "replace":
        came = list(regions)
        removed = _by_id(_free(annotations, [region.id for region in again], "replaced"))
        told = f" ({len(again):,} replaced)" if again else ""
    else:
        came = [region for region in regions if region.id not in annotations]
        told = f" ({len(again):,} were there already)" if again else ""
    said = None if extra is None or extra is annotations.extra else (annotations.extra, extra)
    text = f"import {counted(came)} from {source}{told}"
    return Command(text, removed, _by_id(came), extra=said)


def delete(annotations: AnnotationSet, ids: Collection[str]) -> Command:
    """Return the command that deletes regions."""
    gone = _free(annotations, ids, "deleted")
    return Command(f"delete {counted(gone)}", removed=_by_id(gone))


def duplicate(
    annotations: AnnotationSet, ids: Collection[str], offset_px0: tuple[float, float], stamp: Stamp
) -> Command:
    """Return the command that adds copies of regions, moved by (x, y), as drafts of their own."""
    copies = []
    for moved in _transformed(annotations.pick(ids), (1, 0, 0, 1, *offset_px0)):
        kept = {"note": moved.note} if moved.note else {}
        fresh = moved.but(id=str(uuid.uuid4()), metadata=kept, locked=False, children=())
        copies.append(as_drawn(fresh, stamp))
    return Command(f"duplicate {counted(copies)}", added=_by_id(copies))


def exchange(
    annotations: AnnotationSet,
    ids: Collection[str],
    regions: Collection[Region],
    text: str,
    stamp: Stamp,
) -> Command:
    """Return the command that puts regions in the place of others: merged, split, clipped.

    Parameters
    ----------
    ids
        Regions that are used up. One that is among `regions` too is replaced.
    regions
        What there is instead; an id that is not in `ids` is new.
    text
        What is done, in words: ``merge 2 regions``.
    """
    removed = _by_id(_free(annotations, ids, "changed"))
    added = {}
    for region in regions:
        old = removed.get(region.id)
        if old is None:
            added[region.id] = as_drawn(region, stamp)
        elif region != old:
            (metadata,) = as_edited([region.metadata], stamp)
            added[region.id] = region.but(metadata=metadata)
        else:
            del removed[region.id]
    return Command(text, removed, added)


# --- shapes -----------------------------------------------------------------------------------


def reshape(
    annotations: AnnotationSet,
    shapes: Mapping[str, BaseGeometry],
    text: str,
    stamp: Stamp,
) -> Command:
    """Return the command that gives regions other geometries.

    Parameters
    ----------
    shapes
        The new geometry of each region, in level-0 pixels, by id.
    text
        What is done, in words: ``brush``, ``move vertex``.
    """
    old = _free(annotations, shapes, "changed")
    columns = {
        "geometry": list(shapes.values()),
        "extra": [without_ellipse(region.extra) for region in old],
    }
    return _edit(old, text, stamp, columns)


def transform(
    annotations: AnnotationSet,
    ids: Collection[str],
    matrix: Matrix,
    stamp: Stamp,
    text: str = "transform",
) -> Command:
    """Return the command that moves, turns, scales or shears regions with their children.

    Parameters
    ----------
    matrix
        In level-0 pixels; `edit.turned_by` and `edit.scaled_by` make them.
    """
    old = _free(annotations, ids, "moved")
    moved = _transformed(old, matrix)
    columns = {
        "geometry": [region.geometry for region in moved],
        "nucleus": [region.nucleus for region in moved],
        "children": [region.children for region in moved],
        "extra": [region.extra for region in moved],
    }
    return _edit(old, f"{text} {counted(old)}", stamp, columns)


def move(
    annotations: AnnotationSet, ids: Collection[str], offset_px0: tuple[float, float], stamp: Stamp
) -> Command:
    """Return the command that moves regions by (x, y)."""
    return transform(annotations, ids, (1, 0, 0, 1, *offset_px0), stamp, "move")


def restack(annotations: AnnotationSet, ids: Collection[str], *, on_top: bool) -> Command:
    """Return the command that brings regions to the front, or to the back, in their order."""
    wanted = set(ids)
    moving = {region.id: region for region in annotations if region.id in wanted}
    start = len(annotations) - len(moving) if on_top else 0
    places = {each: start + n for n, each in enumerate(moving)}
    where = "front" if on_top else "back"
    return Command(f"bring {counted(moving)} to the {where}", moving, moving, added_at=places)


# --- what is said about regions ---------------------------------------------------------------


def set_class(
    annotations: AnnotationSet,
    ids: Collection[str],
    classification: AnnotationClass | None,
    stamp: Stamp,
) -> Command:
    """Return the command that gives regions a class, or none."""
    old = _free(annotations, ids, "given another class")
    name = classification.name if classification else "unclassified"
    columns: dict[str, Iterable[Any]] = {"classification": repeat(classification, len(old))}
    if any(region.extra.classification for region in old):
        columns["extra"] = [_other_class(region.extra) for region in old]
    return _edit(old, f"set class of {counted(old)} to {name}", stamp, columns)


def set_name(
    annotations: AnnotationSet, ids: Collection[str], name: str | None, stamp: Stamp
) -> Command:
    """Return the command that names regions; None takes the name away."""
    old = _free(annotations, ids, "renamed")
    return _edit(old, f"name {counted(old)}", stamp, {"name": repeat(name or None, len(old))})


def set_color(
    annotations: AnnotationSet, ids: Collection[str], color: RGB | None, stamp: Stamp
) -> Command:
    """Return the command that gives regions a colour of their own, or that of their class."""
    old = annotations.pick(ids)
    return _edit(old, f"colour {counted(old)}", stamp, {"color": repeat(color, len(old))})


def set_note(annotations: AnnotationSet, ids: Collection[str], note: str, stamp: Stamp) -> Command:
    """Return the command that writes a note about regions; an empty one takes it away."""
    old = annotations.pick(ids)
    notes = [with_entry(region.metadata, "note", note) for region in old]
    return _edit(old, f"note on {counted(old)}", stamp, {"metadata": notes})


def set_measurements(
    annotations: AnnotationSet, measured: Mapping[str, Mapping[str, float]], stamp: Stamp
) -> Command:
    """Return the command that writes measurements, by id; others of the regions stay."""
    old = annotations.pick(measured)
    values = [{**region.measurements, **measured[region.id]} for region in old]
    return _edit(old, f"measure {counted(old)}", stamp, {"measurements": values})


def set_locked(
    annotations: AnnotationSet, ids: Collection[str], locked: bool, stamp: Stamp
) -> Command:
    """Return the command that locks regions against changes (QuPath's lock), or unlocks them."""
    old = annotations.pick(ids)
    word = "lock" if locked else "unlock"
    return _edit(old, f"{word} {counted(old)}", stamp, {"locked": repeat(locked, len(old))})


def set_state(
    annotations: AnnotationSet, ids: Collection[str], state: State, stamp: Stamp
) -> Command:
    """Return the command that judges regions: ``draft``, ``reviewed`` or ``locked``."""
    old = annotations.pick(ids)
    metadata = [judged(region, state, stamp).metadata for region in old]
    return _edit(old, f"set {counted(old)} to {state}", stamp, {"metadata": metadata})


# --- helpers ----------------------------------------------------------------------------------


def counted(regions: Collection[Any]) -> str:
    """Return how many regions these are, in words."""
    return "1 region" if len(regions) == 1 else f"{len(regions):,} regions"


def _by_id(regions: Iterable[Region]) -> dict[str, Region]:
    return {region.id: region for region in regions}


def _free(annotations: AnnotationSet, ids: Iterable[str], done: str) -> list[Region]:
    """Return the regions of these ids, if none of them is fixed."""
    regions = annotations.pick(ids)
    fixed = [region for region in regions if region.locked or region.metadata]
    fixed = [region for region in fixed if region.is_fixed]
    if len(fixed) == 1:
        raise AnnotationError(f"{fixed[0].label} is locked and cannot be {done}: unlock it first.")
    if fixed:
        raise AnnotationError(
            f"{len(fixed):,} of {counted(regions)} are locked and cannot be {done}: unlock them "
            f"first."
        )
    return regions


def _edit(
    old: Sequence[Region], text: str, stamp: Stamp, columns: Mapping[str, Iterable[Any]]
) -> Command:
    """Return the command that changes fields of regions, with the time of the edit."""
    metadata = columns.get("metadata", (region.metadata for region in old))
    new = each_but(old, **{**columns, "metadata": list(as_edited(metadata, stamp))})
    return Command(text, _by_id(old), _by_id(new))


def _transformed(regions: Collection[Region], matrix: Matrix) -> list[Region]:
    """Return regions moved, turned, scaled, with nuclei and children: all in one pass."""
    a, b, d, e, x, y = matrix
    upright = b == d == 0 or a == e == 0  # the bounds still are those of the ellipse
    linear = np.array([[a, d], [b, e]])  # [2, 2], for rows of (x, y)
    shapes = np.empty(2 * len(regions), dtype=object)  # geometries, then nuclei, some None
    shapes[:] = [region.geometry for region in regions] + [region.nucleus for region in regions]
    moved = shapely.transform(shapes, lambda xy: xy @ linear + (x, y)).tolist()
    return each_but(
        regions,
        geometry=moved[: len(regions)],
        nucleus=moved[len(regions) :],
        children=[
            tuple(_transformed(region.children, matrix)) if region.children else ()
            for region in regions
        ],
        extra=[region.extra if upright else without_ellipse(region.extra) for region in regions],
    )


def without_ellipse(extra: Extra) -> Extra:
    """Leave out the mark of an ellipse: QuPath would draw one in the bounds of the new shape."""
    if ELLIPSE not in extra.geometry:
        return extra
    rest = {key: value for key, value in extra.geometry.items() if key != ELLIPSE}
    return Extra(extra.feature, extra.properties, rest, extra.nucleus, extra.classification)


def _other_class(extra: Extra) -> Extra:
    """Leave out what the file said about the class that the region no longer has."""
    return Extra(extra.feature, extra.properties, extra.geometry, extra.nucleus)
