"""What has to be mended before the annotations of a slide are done: each thing found, and where.

Nothing is changed here. The person is led from one `Finding` to the next; when none is left the
regions may be called reviewed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from napari_histomil.annotations.classes import ClassSet
from napari_histomil.annotations.edit import GRID_PX0
from napari_histomil.annotations.model import Region
from napari_histomil.annotations.spatial import shapes_of
from napari_histomil.geometry import Rect

Kind = Literal["empty", "broken", "outside", "unclassified", "foreign", "overlap"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that has to be mended."""

    kind: Kind
    ids: tuple[str, ...]
    """The regions concerned: one, or the two that overlap."""
    sentence: str
    bounds_px0: Rect | None
    """Where to look, in level-0 pixels; None if the region has no place."""


def findings(regions: Iterable[Region], classes: ClassSet, slide_px0: Rect) -> list[Finding]:
    """Return what is not done yet, in the order in which it is best mended.

    Parameters
    ----------
    regions
        Of one slide. A detection (a cell, a tile) needs no class: a program made it.
    classes
        Of the project. Where its lead has locked them, a class that is not among them is a
        finding, and so are overlaps of classes that exclude each other.
    slide_px0
        The slide; a region may not reach beyond it by more than the rounding of coordinates.
    """
    given = list(regions)
    shapes = shapes_of(given)
    valid = shapely.is_valid(shapes)
    empty = shapely.is_empty(shapes)
    found = [
        Finding("empty", (given[n].id,), f"{given[n].label} has no shape.", None)
        for n in np.flatnonzero(empty)
    ]
    found += [
        Finding("broken", (given[n].id,), given[n].problem() or "", _bounds(shapes[n]))
        for n in np.flatnonzero(~valid)
    ]
    x0, y0, x1, y1 = shapely.bounds(shapes).T
    outside = ~empty & (
        (x0 < slide_px0.x_px0 - GRID_PX0)
        | (y0 < slide_px0.y_px0 - GRID_PX0)
        | (x1 > slide_px0.right_px0 + GRID_PX0)
        | (y1 > slide_px0.bottom_px0 + GRID_PX0)
    )
    found += [_outside(given[n], slide_px0) for n in np.flatnonzero(outside)]
    found += _classes(given, classes)
    return found + _overlaps(given, shapes, valid & ~empty, classes)


def _outside(region: Region, slide_px0: Rect) -> Finding:
    place = _bounds(region.geometry)
    assert place is not None, "what has no bounds is not outside"
    part = "lies outside the slide" if place.intersection(slide_px0) is None else (
        "reaches beyond the slide's edge"
    )  # fmt: skip
    return Finding("outside", (region.id,), f"{region.label} {part}.", place)


def _classes(regions: list[Region], classes: ClassSet) -> list[Finding]:
    known = {each.name for each in classes.classes}
    found = []
    for region in regions:
        name = region.class_name
        if name is None and region.object_type == "annotation":
            sentence = f"{region.label} has no class."
            found.append(Finding("unclassified", (region.id,), sentence, _bounds(region.geometry)))
        elif name is not None and classes.locked and name not in known:
            sentence = f"{region.label} has a class that this project does not have."
            found.append(Finding("foreign", (region.id,), sentence, _bounds(region.geometry)))
    return found


def _overlaps(
    regions: list[Region], shapes: NDArray[np.object_], sound: NDArray[np.bool_], classes: ClassSet
) -> list[Finding]:
    """Find pairs of exclusive classes that share more than a line rounded to the grid."""
    rivals = {name: classes.rivals(name) for group in classes.exclusive for name in group}
    if not rivals:
        return []
    areal = shapely.get_dimensions(shapes) == 2
    of_group = np.array([region.class_name in rivals for region in regions], bool)
    index = np.flatnonzero(sound & areal & of_group)
    one, other = shapely.STRtree(shapes[index]).query(shapes[index], predicate="intersects")
    one, other = index[one[one < other]], index[other[one < other]]
    meant = np.array(
        [
            regions[b].class_name in rivals[regions[a].class_name or ""]
            for a, b in zip(one, other, strict=True)
        ],
        bool,
    )
    one, other = one[meant], other[meant]
    shared = shapely.intersection(shapes[one], shapes[other])
    really = shapely.area(shared) > GRID_PX0 * shapely.length(shared)
    return [
        Finding(
            "overlap",
            (regions[a].id, regions[b].id),
            f"{regions[a].label} and {regions[b].label} overlap, and their classes exclude each "
            f"other.",
            _bounds(where),
        )
        for a, b, where in zip(one[really], other[really], shared[really], strict=True)
    ]


def _bounds(shape: shapely.Geometry) -> Rect | None:
    if shape.is_empty:
        return None
    x0, y0, x1, y1 = shape.bounds
    return Rect(x0, y0, x1 - x0, y1 - y0)
