"""Regions -> label mask, a band or a window at a time, so that no slide is too large.

A pixel belongs to a polygon if its centre lies inside; of a centre exactly on an outline the
left and the upper edges belong to the polygon, so polygons that share an edge share no pixel and
leave none out. GDAL fills (through rasterio); where a polygon's outline runs exactly through
centres GDAL would paint by the direction of drawing, so centres are taken a millionth of a pixel
to the lower right (`NUDGE`), which settles it.

What the values mean follows QuPath's names. ``Region*`` marks what was annotated exhaustively:
inside it no annotation means background, outside it nothing is known. ``Ignore*`` and other
names that end in ``*``, as well as regions without a class, make unlabelled what they cover.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely.geometry import Polygon

from napari_histomil.annotations.masks import LabelImage, LabelTable, MaskGrid
from napari_histomil.annotations.model import REGION, Region, is_starred, walk
from napari_histomil.errors import AnnotationError

Priority = Literal["drawn", "classes"]

BAND_BYTES = 2**25
"""Memory of a band: small beside a tenth of a gigabyte, yet few bands a slide."""

BAND_ROWS = 512
"""Bands are multiples of this high, as the tiles of most files are."""

MAX_BAND_ROWS = 2048
"""GDAL looks at all edges of a polygon in every row of a band: not too many at a time."""

NUDGE = (2.0**-20, 2.0**-20 * 0.6180339887498949)
"""Shift of centres in pixels, (right, down). Along no diagonal that people draw."""

_NO_TISSUE_OBJECTS = ("tile", "tmaCore", "root", "detection", "cell")
"""Kinds of objects that a program made: without a class they say nothing of the tissue."""


@dataclass(frozen=True, slots=True, eq=False)
class Painting:
    """Regions made ready to be filled: what is painted, in which order, with which value."""

    grid: MaskGrid
    table: LabelTable
    base: int
    """Value where nothing is painted."""
    polygons: NDArray[np.object_] = field(repr=False)
    """Polygons [N] in the order of painting: later ones cover earlier ones."""
    values: NDArray[np.int64] = field(repr=False)
    """Value of each, [N]."""
    notes: tuple[str, ...] = ()
    """Sentences for the person about what is not in the mask, and what was assumed."""
    tree: shapely.STRtree = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", shapely.STRtree(self.polygons))


def prepare(
    regions: Iterable[Region],
    grid: MaskGrid,
    table: LabelTable,
    *,
    priority: Priority = "drawn",
    fully_annotated: bool = False,
    mend: bool = False,
) -> Painting:
    """Make regions ready to be painted.

    Parameters
    ----------
    regions
        Of one slide, in the order of drawing; children are painted after their parents. Points
        and lines have no area, and classes that are not in the table are as if not drawn: notes
        say so.
    grid
        The mask's pixels.
    table
        The classes and their values.
    priority
        Where regions overlap: ``drawn``, the one drawn later counts; ``classes``, the one whose
        class stands later in the table.
    fully_annotated
        Whether the whole slide was annotated: then all that is not drawn is background,
        whether or not there is a ``Region*``.
    mend
        Whether broken shapes are mended (GEOS's structure method) and noted, or refused.

    Raises
    ------
    AnnotationError
        If a region with an area is broken, with the sentence of `Region.problem`.
    """
    drawn = [region for region in walk(regions) if not region.geometry.is_empty]
    areal = [region for region in drawn if region.is_areal]
    shapes, notes = sound_shapes(areal, mend=mend)
    if len(areal) < len(drawn):
        notes.append(f"{len(drawn) - len(areal)} points and lines have no area: not in the mask.")
    layers: dict[str, list[int]] = {"region": [], "class": [], "unknown": []}
    values = np.zeros(len(areal), np.int64)
    absent: dict[str, int] = {}
    unclassified = made = 0
    for i, region in enumerate(areal):
        name = region.class_name
        if is_unknown(region):
            unclassified += name is None
            layers["unknown"].append(i)
        elif name is None:
            made += 1
        elif name == REGION:
            layers["region"].append(i)
        elif (value := table.value_of(name)) is None:
            absent[name] = absent.get(name, 0) + 1
        else:
            values[i] = value
            layers["class"].append(i)
    if priority == "classes":
        rank = {value: i for i, value in enumerate(table.values)}
        layers["class"].sort(key=lambda i: rank[int(values[i])])
    values[layers["region"]] = table.background
    values[layers["unknown"]] = table.unlabelled
    order = [i for layer in layers.values() for i in layer]
    if unclassified:
        notes.append(f"{unclassified} regions have no class: what they cover is unlabelled.")
    if made:
        notes.append(f"{made} tiles, cells or cores have no class: not in the mask.")
    notes += [f"{n} regions of class {name} are left out." for name, n in sorted(absent.items())]
    if not layers["region"] and not fully_annotated:
        notes.append(f"There is no {REGION}: all that is outside of the regions is unlabelled.")
    parts, owner = shapely.get_parts(shapes[order], return_index=True)
    return Painting(
        grid=grid,
        table=table,
        base=table.background if fully_annotated else table.unlabelled,
        polygons=parts,
        values=values[order][owner],
        notes=tuple(notes),
    )


def is_unknown(region: Region) -> bool:
    """Say whether a region makes unlabelled what it covers."""
    name = region.class_name
    if name is None:
        return region.object_type not in _NO_TISSUE_OBJECTS
    return is_starred(name) and name != REGION


def paint_area(polygons: Sequence[Polygon], grid: MaskGrid) -> Painting:
    """Make an area ready to be painted: 1 inside, 0 outside.

    Parameters
    ----------
    polygons
        Valid ones, in level-0 pixels.
    grid
        The mask's pixels.
    """
    table = LabelTable((), (), background=1, unlabelled=0)
    shapes = np.array([*polygons, None], object)[:-1]
    return Painting(grid, table, 0, shapes, np.ones(len(shapes), np.int64))


def band_rows(grid: MaskGrid, itemsize: int = 1) -> int:
    """Return how many rows `bands` makes at a time by default."""
    fit = BAND_BYTES // (grid.columns * itemsize * BAND_ROWS)
    return BAND_ROWS * min(max(fit, 1), MAX_BAND_ROWS // BAND_ROWS)


def bands(painting: Painting, rows: int | None = None) -> Iterator[LabelImage]:
    """Yield the mask from top to bottom.

    Parameters
    ----------
    painting
        From `prepare`.
    rows
        How many at a time; the last band may have fewer. By default what fits into
        `BAND_BYTES`, a multiple of `BAND_ROWS`.

    Yields
    ------
    uint8 or uint16 array [rows, columns]
    """
    for xy, size in window_rows(painting.grid, painting.table.dtype.itemsize, rows):
        yield window(painting, xy, size)


def window_rows(
    grid: MaskGrid, itemsize: int = 1, rows: int | None = None
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield corner (column, row) and size (columns, rows) of each band of `bands`."""
    step = rows or band_rows(grid, itemsize)
    for top in range(0, grid.rows, step):
        yield (0, top), (grid.columns, min(step, grid.rows - top))


def window(painting: Painting, xy: tuple[float, float], size: tuple[int, int]) -> LabelImage:
    """Return any part of the mask; only polygons that reach into it are looked at.

    Parameters
    ----------
    painting
        From `prepare`.
    xy
        (column, row) of its upper left corner in mask pixels; may have fractions, and lie
        outside.
    size
        (columns, rows).

    Returns
    -------
    uint8 or uint16 array [rows, columns]
    """
    width, height = painting.grid.pixel_px0
    left, top = xy[0] * width, xy[1] * height
    bottom = top + size[1] * height
    out = np.full((size[1], size[0]), painting.base, painting.table.dtype)
    near = painting.tree.query(shapely.box(left, top, left + size[0] * width, bottom))
    near.sort()  # the order of painting
    shapes = _shapes_between(painting.polygons[near], top, bottom)
    values = painting.values[near].tolist()
    jobs = [(shape, value) for shape, value in zip(shapes, values, strict=True) if shape]
    if jobs:
        x0, y0 = left + NUDGE[0] * width, top + NUDGE[1] * height
        rasterize(jobs, out=out, transform=Affine(width, 0, x0, 0, height, y0))
    return out


def sound_shapes(areal: Sequence[Region], *, mend: bool) -> tuple[NDArray[Any], list[str]]:
    """Return the shapes of regions as an array [N], and notes about those that were mended.

    Raises
    ------
    AnnotationError
        If one is broken and is not to be mended.
    """
    shapes = np.array([*(region.geometry for region in areal), None], object)[:-1]
    broken = np.flatnonzero(~shapely.is_valid(shapes))
    notes = []
    for i in broken.tolist():
        problem = areal[i].problem()
        if not mend:
            raise AnnotationError(f"{problem} Mend the shape first, or have it mended on the way.")
        mended = shapely.get_parts(shapely.make_valid(shapes[i], method="structure"))
        shapes[i] = shapely.multipolygons([p for p in mended if isinstance(p, Polygon)])
        notes.append(f"{problem} It was mended for the mask.")
    return shapes, notes


def _shapes_between(
    polygons: NDArray[np.object_], top: float, bottom: float
) -> list[dict[str, Any] | None]:
    """Return polygons as GDAL is to fill them in rows between `top` and `bottom`.

    GDAL looks at every edge in every row. Of vertices in a row above `top` (or below `bottom`)
    only the first and the last are kept: the edges that cross the rows between are the same
    to the last bit, so the pixels are too. None for a polygon without such edges.
    """
    rings, owner = shapely.get_rings(polygons, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    side = (xy[:, 1] > bottom).astype(np.int8) - (xy[:, 1] < top)
    alike = (side[1:] == side[:-1]) & (side[1:] != 0) & (ring[1:] == ring[:-1])
    keep = np.ones(len(xy), bool)
    keep[1:-1] = ~(alike[1:] & alike[:-1])
    pairs = xy[keep].tolist()
    ends = np.cumsum(np.bincount(ring[keep], minlength=len(rings))).tolist()
    shapes: list[dict[str, Any] | None] = [None] * len(polygons)
    start = 0
    for which, end in zip(owner.tolist(), ends, strict=True):
        coordinates, start = pairs[start:end], end
        if len(coordinates) < 4:  # wholly above or below
            continue
        shape = shapes[which]
        if shape is None:
            shapes[which] = {"type": "Polygon", "coordinates": [coordinates]}
        else:
            shape["coordinates"].append(coordinates)
    return shapes
