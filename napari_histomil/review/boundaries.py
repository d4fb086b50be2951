"""How far apart the outlines of two annotations lie, in µm.

Outlines are those of the shapes, not of pixels: points are taken along each at equal steps, and
the distance to the nearest point of the other outline is exact. Outlines are looked at only
inside the compared area, on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import LineString, Polygon
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.raster import Painting

STEP_UM = 1.0
MAX_SAMPLES = 200_000
"""Of an outline; beyond it the step grows."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BoundaryDistance:
    """Distances in µm between two outlines, in both directions.

    Every part of an outline counts by its length.
    """

    mean_um: float
    """Of both directions together (average symmetric surface distance)."""
    median_um: float
    """Of both directions together."""
    hausdorff95_um: float
    """The larger of the two directions' 95th percentiles."""
    step_um: float
    """Distance of the points that were taken."""


def class_outline(
    painting: Painting, value: int, area: Sequence[Polygon], mpp_xy: tuple[float, float]
) -> BaseGeometry:
    """Return the lines that bound a class inside the area, in µm.

    What is painted over by another class does not count, as in the mask.

    Parameters
    ----------
    painting
        A rater's regions.
    value
        Value of the class in `painting.table`.
    area
        In level-0 pixels.
    mpp_xy
        µm of a level-0 pixel along (x, y).
    """
    own = np.flatnonzero(painting.values == value)
    shapes = painting.polygons[own].copy()
    classes = np.isin(painting.values, painting.table.values)
    i, other = painting.tree.query(shapes, predicate="intersects")
    later = (other > own[i]) & classes[other] & (painting.values[other] != value)
    i, other = i[later], other[later]
    hidden, starts = np.unique(i, return_index=True)  # the query's answers are in order of i
    for which, above in zip(hidden, np.split(other, starts[1:]), strict=False):
        cover = shapely.union_all(painting.polygons[above])
        shapes[which] = shapely.difference(shapes[which], cover)
    whole = shapely.union_all(shapes)
    if whole.is_empty:  # of an empty collection GEOS knows no boundary
        return LineString()
    outline = shapely.boundary(whole)
    inside = shapely.intersection(outline, shapely.union_all(list(area)))
    return shapely.transform(inside, lambda xy: xy * mpp_xy)


def boundary_distance(
    first: BaseGeometry, second: BaseGeometry, step_um: float = STEP_UM
) -> BoundaryDistance | None:
    """Return how far apart two outlines lie; None where one of them has no length.

    Parameters
    ----------
    first, second
        Lines in µm.
    step_um
        Distance of the points that are taken along them.
    """
    lengths = shapely.length(first), shapely.length(second)
    if min(lengths) == 0:
        return None
    step = max(step_um, float(max(lengths)) / MAX_SAMPLES)
    there, there_um = _directed(first, second, step)
    back, back_um = _directed(second, first, step)
    both, both_um = np.concatenate([there, back]), np.concatenate([there_um, back_um])
    return BoundaryDistance(
        mean_um=float(np.average(both, weights=both_um)),
        median_um=_quantile(both, both_um, 0.5),
        hausdorff95_um=max(_quantile(there, there_um, 0.95), _quantile(back, back_um, 0.95)),
        step_um=step,
    )


def _directed(source: BaseGeometry, target: BaseGeometry, step: float) -> tuple[Floats, Floats]:
    """Return distances [N] of points along `source` to `target`, and the length of each, µm."""
    lines = _lines(source)
    lengths = shapely.length(lines)
    counts = np.maximum(np.ceil(lengths / step), 1).astype(np.int64)
    piece = np.repeat(lengths / counts, counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    along = (np.arange(counts.sum()) - first + 0.5) * piece
    points = shapely.line_interpolate_point(np.repeat(lines, counts), along)
    tree = shapely.STRtree(_segments(target))
    _, distance = tree.query_nearest(points, return_distance=True, all_matches=False)
    return distance, piece


def _lines(shape: BaseGeometry) -> NDArray[np.object_]:
    parts = shapely.get_parts(shape)
    lines: NDArray[np.object_] = parts[shapely.length(parts) > 0]
    return lines


def _segments(shape: BaseGeometry) -> NDArray[np.object_]:
    xy, line = shapely.get_coordinates(_lines(shape), return_index=True)
    same = line[1:] == line[:-1]
    segments: NDArray[np.object_] = shapely.linestrings(
        np.stack([xy[:-1][same], xy[1:][same]], axis=1)
    )
    return segments


def _quantile(values: Floats, weights: Floats, share: float) -> float:
    """Return the smallest value that `share` of the weight does not exceed."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    place = int(np.searchsorted(reached, share * reached[-1] * (1 - 1e-12)))
    return float(values[order][min(place, len(values) - 1)])
