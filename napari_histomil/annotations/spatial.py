"""Which regions touch a rectangle, quickly, while regions come, change and go.

The bulk lies in an R-tree that is packed once and never changed; what changed since then is a
short list that is looked through one by one. When the list has grown long, the tree is packed
again: 0.05 s for 100,000 regions, once in some thousand changes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.model import Region
from napari_histomil.geometry import Rect

FEWEST_CHANGES = 512
"""So many changed regions are looked through one by one at least, before the tree is packed."""

CHANGED_SHARE = 0.02
"""... and this share of all."""

Bounds = tuple[float, float, float, float]


def shapes_of(regions: Collection[Region]) -> NDArray[np.object_]:
    """Return object [N]: the geometries of regions, for shapely's functions on arrays."""
    shapes = np.empty(len(regions), dtype=object)
    shapes[:] = [region.geometry for region in regions]
    return shapes


def classes_at(
    xy_px0: NDArray[np.floating[Any]], regions: Collection[Region]
) -> dict[str | None, NDArray[np.bool_]]:
    """Return which of some places lie in regions of which class.

    Parameters
    ----------
    xy_px0
        [N, 2]: (x, y), level-0 px.
    regions
        Areal ones.

    Returns
    -------
    dict of bool [N]
        One for each class that has a region; None is what has no class.
    """
    listed = list(regions)
    inside = {region.class_name: np.zeros(len(xy_px0), bool) for region in listed}
    places, found = shapely.STRtree(shapes_of(listed)).query(
        shapely.points(xy_px0), predicate="intersects"
    )
    for place, number in zip(places.tolist(), found.tolist(), strict=True):
        inside[listed[number].class_name][place] = True
    return inside


def rect_of(regions: Collection[Region]) -> Rect | None:
    """Return the smallest rectangle around regions; None if none has a place."""
    if not regions:
        return None
    x0, y0, x1, y1 = shapely.total_bounds(shapes_of(regions)).tolist()
    return None if x0 != x0 else Rect(x0, y0, x1 - x0, y1 - y0)  # NaN is not itself


def moved_of(removed: Mapping[str, Region], added: Mapping[str, Region]) -> list[str]:
    """Return the ids of regions that are new or have another geometry than before."""
    return [
        each
        for each, old, new in zip(added, map(removed.get, added), added.values(), strict=True)
        if old is None or old.geometry is not new.geometry
    ]


class SpatialIndex:
    """Finds the ids of regions by the bounds of their geometry.

    Parameters
    ----------
    regions
        What is there at first, by id.
    """

    def __init__(self, regions: Mapping[str, Region]) -> None:
        self._shapes: dict[str, BaseGeometry] = {
            each: region.geometry for each, region in regions.items()
        }
        self._tree: shapely.STRtree | None = None
        self._packed: list[str] = []
        self._gone: set[str] = set()
        self._recent: dict[str, Bounds] = {}

    def replace(
        self, removed: Mapping[str, Region], added: Mapping[str, Region], moved: Collection[str]
    ) -> None:
        """Take note that regions went and others came, of which `moved` lie elsewhere."""
        gone = [each for each in removed if each not in added]
        for each in gone:
            del self._shapes[each]
        for each in moved:
            self._shapes[each] = added[each].geometry
        if self._tree is None:
            return
        most = max(FEWEST_CHANGES, CHANGED_SHARE * len(self._shapes))
        if len(self._recent) + len(self._gone) + len(moved) + len(gone) > most:
            self._tree = None  # packed again when somebody asks
            return
        for each in (*gone, *moved):
            self._gone.add(each)
            self._recent.pop(each, None)
        for each in moved:
            if not self._shapes[each].is_empty:
                self._recent[each] = self._shapes[each].bounds

    def touching(self, rect: Rect) -> list[str]:
        """Return the ids of the regions whose bounds touch a rectangle, in no order."""
        tree = self._tree or self._pack()
        x0, y0, x1, y1 = rect.x_px0, rect.y_px0, rect.right_px0, rect.bottom_px0
        found = [self._packed[n] for n in tree.query(shapely.box(x0, y0, x1, y1)).tolist()]
        if self._gone:
            found = [each for each in found if each not in self._gone]
        found += [
            each
            for each, (left, top, right, bottom) in self._recent.items()
            if left <= x1 and right >= x0 and top <= y1 and bottom >= y0
        ]
        return found

    def _pack(self) -> shapely.STRtree:
        self._packed = list(self._shapes)
        shapes = np.empty(len(self._packed), dtype=object)
        shapes[:] = list(self._shapes.values())
        self._tree = shapely.STRtree(shapes)
        self._gone.clear()
        self._recent.clear()
        return self._tree
