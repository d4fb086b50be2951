"""Label mask -> regions: outlines along the edges of pixels, band after band.

A region is one connected part of a class (by edges, not corners), with its holes. Where it
crosses from one band into the next its pieces are joined, and vertices on straight edges are
taken out, so the result does not depend on the bands. Memory is that of a band and of the
outlines.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import shapes as gdal_shapes
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from shapely.geometry import Polygon
from skimage.measure import label

from napari_histomil.annotations.masks import LabelImage, LabelTable, MaskGrid
from napari_histomil.annotations.model import REGION, Region, class_named

PIXELS_AT_ONCE = 2**22
"""Rows of this many pixels are traced together: GDAL and the numbering take 50 bytes a pixel."""


def regions_from_mask(
    bands: Iterable[LabelImage], grid: MaskGrid, table: LabelTable
) -> list[Region]:
    """Trace every class of a mask.

    Painting the regions again on the same grid (`raster.prepare`, not fully annotated) gives
    the same mask. To that end ``Region*`` covers each connected part of what is labelled if
    some of it is background.

    Parameters
    ----------
    bands
        The mask from top to bottom, arrays [rows, columns]; together `grid.rows` rows.
    grid
        The mask's pixels.
    table
        The classes; values that are not in it are traced as classes named ``Value N``.

    Returns
    -------
    list of Region
        In level-0 pixels. First ``Region*``, then the classes in the table's order; each from
        top to bottom, from left to right.
    """
    known = Tracer(skip=(table.background, table.unlabelled))
    labelled = Tracer(skip=(0,))
    for band in bands:
        known.add(band)
        seen = (band != table.unlabelled).astype(np.uint8)
        labelled.add(seen, marks=band == table.background)
    known.end()
    labelled.end()
    rank = {value: i for i, value in enumerate(table.values)}
    kinds = dict(zip(table.values, table.classes, strict=True))

    def place(outline: Outline) -> tuple[int, float, float]:
        left, top, _, _ = outline.polygon.bounds
        return rank.get(outline.value, len(rank) + outline.value), top, left

    exhaustive = [outline for outline in labelled.outlines if outline.marked]
    found = [
        Region(on_slide(outline.polygon, grid), class_named(REGION))
        for outline in sorted(exhaustive, key=place)
    ]
    for outline in sorted(known.outlines, key=place):
        kind = kinds.get(outline.value) or class_named(f"Value {outline.value}")
        found.append(Region(on_slide(outline.polygon, grid), kind))
    return found


def on_slide(polygon: Polygon, grid: MaskGrid) -> Polygon:
    """Return a polygon in mask pixels in level-0 pixels."""
    return shapely.transform(polygon, lambda xy: xy * grid.pixel_px0)


@dataclass(frozen=True, slots=True)
class Outline:
    """One connected part of a value."""

    value: int
    polygon: Polygon
    """In mask pixels, valid; vertices are corners of pixels, where the outline turns."""
    marked: bool
    """Whether one of its pixels was marked."""


@dataclass(slots=True)
class _Part:
    """A connected part, as far as it is known."""

    value: int
    pieces: list[Polygon]
    marked: bool


@dataclass(slots=True)
class Tracer:
    """Traces bands as they come; after `end`, `outlines` holds all parts."""

    skip: tuple[int, ...] = ()
    """Values that are not traced."""
    outlines: list[Outline] = field(default_factory=list)
    """Parts that are complete, in the order in which they end."""
    _row: int = 0
    _open: list[_Part] = field(default_factory=list)
    """Parts that reach down to the last row so far."""
    _seam: NDArray[np.int64] | None = None
    """For each pixel of that row the index of its part in `_open`; -1 for skipped values."""

    def add(self, band: LabelImage, marks: NDArray[np.bool_] | None = None) -> None:
        """Trace the next rows.

        Parameters
        ----------
        band
            [rows, columns].
        marks
            bool [rows, columns]; the part of a marked pixel is `Outline.marked`.
        """
        step = max(PIXELS_AT_ONCE // band.shape[1], 1)
        for top in range(0, len(band), step):
            rows = slice(top, top + step)
            self._add(band[rows], None if marks is None else marks[rows])

    def end(self) -> None:
        """Complete what reaches down to the last row."""
        self.outlines += [_outline(part) for part in self._open]
        self._open, self._seam = [], None

    def _add(self, band: LabelImage, marks: NDArray[np.bool_] | None) -> None:
        parts = self._open.copy()
        first, last = np.full(band.shape[1], -1), np.full(band.shape[1], -1)
        wanted = ~np.isin(band, self.skip, kind="table")
        used = np.flatnonzero(wanted.any(axis=0))
        if len(used):  # slides are annotated here and there: only what lies between is numbered
            columns = slice(int(used[0]), int(used[-1]) + 1)
            numbers, values = _numbered(band[:, columns], wanted[:, columns])
            marked = np.zeros(len(values), bool)
            if marks is not None:
                marked[numbers[marks[:, columns]]] = True
            part_of = np.full(len(values), -1)  # number -> index in `parts`; -1 for skipped
            origin = columns.start, self._row
            for shape, number in gdal_shapes(numbers, numbers > 0, connectivity=4):
                n = int(number)
                part_of[n] = len(parts)
                parts.append(_Part(int(values[n]), [_piece(shape, origin)], bool(marked[n])))
            first[columns], last[columns] = part_of[numbers[0]], part_of[numbers[-1]]
        self._join(parts, first, last)
        self._row += len(band)

    def _join(self, parts: list[_Part], first: NDArray[np.int64], last: NDArray[np.int64]) -> None:
        """Join a band's parts to those above; complete what ends in it, keep what goes on.

        Parameters
        ----------
        parts
            The open ones, and behind them those of the band.
        first, last
            For each pixel of the band's first and last row the index in `parts`, or -1.
        """
        above = first if self._seam is None else self._seam
        value = np.array([*(part.value for part in parts), -1])  # the last is for -1
        touch = (above >= 0) & (value[above] == value[first])
        links = np.unique(np.stack([above[touch], first[touch]]), axis=1)
        graph = coo_array((np.ones(links.shape[1], bool), links), shape=(len(parts),) * 2)
        count, group = connected_components(graph, directed=False) if parts else (0, first)
        whole: list[_Part | None] = [None] * count
        for number, part in zip(group.tolist(), parts, strict=False):
            one = whole[number]
            if one is None:
                whole[number] = _Part(part.value, list(part.pieces), part.marked)
            else:
                one.pieces += part.pieces
                one.marked |= part.marked
        going = np.unique(group[last[last >= 0]]) if parts else np.empty(0, np.int64)
        self._open = [one for n in going.tolist() if (one := whole[n]) is not None]
        ending = sorted(set(range(count)) - set(going.tolist()))
        self.outlines += [_outline(one) for n in ending if (one := whole[n]) is not None]
        self._seam = np.full(len(last), -1)
        self._seam[last >= 0] = np.searchsorted(going, group[last[last >= 0]])


def _numbered(band: LabelImage, wanted: NDArray[np.bool_]) -> tuple[NDArray[np.int32], LabelImage]:
    """Give every connected part of a value its number.

    Returns
    -------
    numbers
        int32 [rows, columns], 1, 2, 3, ...; 0 for what is not wanted.
    values
        Value of each number.
    """
    shifted = np.where(wanted, band.astype(np.int32) + 1, 0)  # 0 may itself be a value
    numbers = label(shifted, connectivity=1, background=0)  # type: ignore[no-untyped-call]
    numbers = numbers.astype(np.int32)
    values = np.zeros(int(numbers.max()) + 1, band.dtype)
    values[numbers] = band  # the same for all pixels of a part
    return numbers, values


def _piece(shape: dict[str, Any], origin: tuple[int, int]) -> Polygon:
    """Return a polygon of GDAL's, moved to where its corner (x, y) lies in the mask."""
    shell, *holes = (np.add(ring, origin) for ring in shape["coordinates"])
    return Polygon(shell, holes)


def _outline(part: _Part) -> Outline:
    """Unite the pieces; all coordinates are whole numbers, so nothing is rounded."""
    whole = part.pieces[0] if len(part.pieces) == 1 else shapely.union_all(part.pieces)
    assert isinstance(whole, Polygon), whole.geom_type
    shell, *holes = (_corners(ring) for ring in (whole.exterior, *whole.interiors))
    return Outline(part.value, Polygon(shell, holes), part.marked)


def _corners(ring: shapely.LinearRing) -> NDArray[np.float64]:
    """Return the vertices [N, 2] at which a ring along pixel edges turns."""
    xy = shapely.get_coordinates(ring)[:-1]
    before, after = xy - np.roll(xy, 1, axis=0), np.roll(xy, -1, axis=0) - xy
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    corners: NDArray[np.float64] = xy[turns]
    return corners
