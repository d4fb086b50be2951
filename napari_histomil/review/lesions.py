"""The lesions of an annotation, with their size group and the best score that lies in each.

The list to read when a slide was missed: which lesion, how large, and how near the model came. How
hits are counted over a set of slides is a matter of `froc.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import shapely

from napari_histomil.annotations.model import Region
from napari_histomil.errors import AnnotationError
from napari_histomil.review.tile_scores import TileScores

SIZE_GROUPS = (("isolated cells", 0.2), ("micro", 2.0), ("macro", float("inf")))
"""Name of each group, with the longest axis in mm up to which lesions are in it; the limits of
nodal metastases in the TNM classification."""


@dataclass(frozen=True, slots=True)
class Lesion:
    """One annotated lesion as a model saw it."""

    region: str
    """Id of the annotation."""
    xy_px0: tuple[float, float]
    """Corner (x, y) of its bounding box, level-0 px."""
    size_px0: tuple[float, float]
    longest_mm: float
    """Its longest axis: the greatest distance between two of its points."""
    area_mm2: float
    group: str
    """A name of `SIZE_GROUPS`."""
    best: float
    """Highest score of the tiles that touch it; NaN where none was looked at."""
    tiles: int
    """How many tiles with a score touch it."""


def lesions_of(
    regions: Iterable[Region], class_name: str, tiles: TileScores, mpp_xy: tuple[float, float]
) -> list[Lesion]:
    """Return the lesions of a class, those that the model came least near to first.

    Parameters
    ----------
    regions
        The annotations of the slide; regions of other classes are passed over.
    class_name
        What counts as a lesion.
    tiles
        The scores of the slide's tiles.
    mpp_xy
        µm a level-0 pixel spans along (x, y).

    Raises
    ------
    AnnotationError
        If the outline of one is broken.
    """
    x, y, width, height = tiles.rects_px0.T
    tree = shapely.STRtree(shapely.box(x, y, x + width, y + height))
    found = []
    for region in regions:
        if region.class_name != class_name or not region.is_areal:
            continue
        problem = region.problem()
        if problem:
            raise AnnotationError(problem)
        touched = tree.query(region.geometry, predicate="intersects")
        scores = tiles.scores[touched]
        scores = scores[np.isfinite(scores)]
        longest = longest_axis_um(region.geometry, mpp_xy) / 1000
        x0, y0, x1, y1 = region.geometry.bounds
        found.append(
            Lesion(
                region.id,
                (x0, y0),
                (x1 - x0, y1 - y0),
                longest,
                region.area_um2(mpp_xy) * 1e-6,
                size_group(longest),
                float(scores.max()) if len(scores) else float("nan"),
                len(scores),
            )
        )
    # what nobody looked at comes before what was looked at and missed
    return sorted(found, key=lambda each: -1.0 if np.isnan(each.best) else each.best)


def size_group(longest_mm: float) -> str:
    """Return the name of the group of `SIZE_GROUPS` that a lesion of this length is in."""
    return next(name for name, most in SIZE_GROUPS if longest_mm <= most)


def longest_axis_um(
    geometry: shapely.geometry.base.BaseGeometry, mpp_xy: tuple[float, float]
) -> float:
    """Return the greatest distance between two points of a shape, in µm."""
    corners = shapely.get_coordinates(shapely.convex_hull(geometry)) * mpp_xy
    apart = corners[:, None] - corners[None]
    return float(np.sqrt((apart**2).sum(-1).max(initial=0.0)))
