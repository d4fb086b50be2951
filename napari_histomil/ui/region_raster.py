"""Regions -> an RGBA picture of them at the resolution of the screen: outlines, faint fills, dots.

Pure numpy and shapely, no window: it runs in a thread beside the GUI, in steps that let the GUI's
thread have its turn. All segments of all regions are drawn at once, so that a hundred thousand
regions are a matter of tenths of a second.

Methods: outlines by Wu (1991), each pixel covered by its distance from the line; fills by the
crossings of edges with pixel rows, even-odd within a region, so that holes need no care; a pixel
is inside if its centre is. What is smaller than a few pixels, where an outline and its inside
cannot be told apart, is a speck: the ellipse of its bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from napari_histomil.annotations.model import Region, is_starred

CHUNK_REGIONS = 2000
"""So many regions are taken apart at once: GEOS and Python then hold the GUI's thread up for a
millisecond or two."""

CHUNK_PIXELS = 4_000_000

DOT_PX, SPECK_PX = 1.5, 4.0
"""Regions smaller than so many pixels are one pixel, or a speck."""

CHUNK_SPECKS = 20_000

LINE_PX, SELECTED_PX = 1.8, 2.8
"""Widths of outlines."""

POINT_PX = 4.5
"""Radius of a point."""

SELECTED_COLOUR = (255, 230, 0)
"""QuPath's yellow: what is selected."""

DASH_PX = 5
"""Outlines of locked regions are dashed by so many pixels."""

FILL, SELECTED_FILL = 0.16, 0.24
"""Opacities of fills."""

_AREAL = (3, 6)
_POINTS = (0, 4)


@dataclass(frozen=True, eq=False)
class Sheet:
    """Regions as columns, in drawing order: what is drawn of each."""

    ids: list[str]
    shapes: NDArray[np.object_]
    bounds: NDArray[np.float64]
    """[N, 4]: x0, y0, x1, y1 in level-0 pixels; NaN without a place."""
    colours: NDArray[np.uint8]
    """[N, 3]"""
    filled: NDArray[np.bool_]
    """Whether the inside is tinted: not that of ``Region*`` and ``Ignore*``."""
    dashed: NDArray[np.bool_]
    """Whether the outline is that of a locked region."""

    @classmethod
    def of(cls, regions: Sequence[Region], hidden: frozenset[str | None]) -> Sheet:
        """Return what is drawn of regions, without those of hidden classes."""
        if hidden:
            regions = [each for each in regions if each.class_name not in hidden]
        shapes = np.empty(len(regions), dtype=object)
        shapes[:] = [each.geometry for each in regions]
        starred = [is_starred(each.class_name) for each in regions]
        return cls(
            [each.id for each in regions],
            shapes,
            shapely.bounds(shapes).reshape(-1, 4),
            np.array([each.shown_color for each in regions], np.uint8).reshape(-1, 3),
            ~np.array(starred, bool),
            np.array([each.is_fixed for each in regions], bool),
        )


@dataclass(frozen=True, slots=True)
class Frame:
    """Which part of the slide a picture shows, and how finely."""

    x_px0: float
    y_px0: float
    px0_per_pixel: tuple[float, float]
    """Along (x, y)."""
    size: tuple[int, int]
    """(width, height) in pixels."""


class Cancelled(Exception):
    """Another picture is wanted meanwhile."""


def paint(
    sheet: Sheet,
    frame: Frame,
    selected: frozenset[str] = frozenset(),
    *,
    fill: float = FILL,
    line_px: float = LINE_PX,
    turn: Callable[[], None] = lambda: None,
) -> NDArray[np.uint8]:
    """Return the picture of regions.

    Parameters
    ----------
    sheet
        The regions.
    frame
        The part of the slide.
    selected
        Ids of those that are highlighted; they are on top.
    fill
        Opacity of the fills.
    line_px
        Width of outlines.
    turn
        Called between steps; what it raises ends the work.

    Returns
    -------
    uint8 [height, width, 4]
        RGBA, not premultiplied.
    """
    canvas = _Canvas(frame)
    inside = np.flatnonzero(_in_frame(sheet.bounds, frame))
    if selected:
        chosen = np.fromiter((sheet.ids[n] in selected for n in inside), bool, len(inside))
    else:
        chosen = np.zeros(len(inside), bool)
    for rows, is_chosen in ((inside[~chosen], False), (inside[chosen], True)):
        colour = SELECTED_COLOUR if is_chosen else None
        width = line_px + SELECTED_PX - LINE_PX if is_chosen else line_px
        sizes = _sizes_px(sheet.bounds[rows], frame)
        kinds = shapely.get_type_id(sheet.shapes[rows])
        points = np.isin(kinds, _POINTS)
        dots = (sizes < DOT_PX) & ~points
        canvas.dots(sheet, rows[dots], colour)
        turn()
        specks = (sizes < SPECK_PX) & ~dots & np.isin(kinds, _AREAL)
        small = rows[specks]
        for start in range(0, len(small), CHUNK_SPECKS):
            canvas.specks(sheet, small[start : start + CHUNK_SPECKS], width, colour)
            turn()
        large = rows[~dots & ~specks & ~points]
        for start in range(0, len(large), CHUNK_REGIONS):
            part = large[start : start + CHUNK_REGIONS]
            lines = _segments(sheet.shapes[part], frame)
            owner = part[lines.owner]
            turn()
            if fill > 0 or is_chosen:
                tinted = lines.areal & sheet.filled[owner]
                canvas.fill(lines, owner, tinted, sheet, SELECTED_FILL if is_chosen else fill)
                turn()
            canvas.lines(lines, owner, width, sheet, colour)
            turn()
        canvas.points(sheet, rows[points], colour)
        turn()
    return canvas.picture()


# --- from shapes to segments -------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Segments:
    """Straight pieces of outlines, in pixels of the picture."""

    a: NDArray[np.float32]
    b: NDArray[np.float32]
    owner: NDArray[np.intp]
    """Index of the shape each belongs to."""
    areal: NDArray[np.bool_]


def _in_frame(bounds: NDArray[np.float64], frame: Frame) -> NDArray[np.bool_]:
    width, height = frame.size
    sx, sy = frame.px0_per_pixel
    x0, y0 = frame.x_px0, frame.y_px0
    margin = POINT_PX + 1
    left, top, right, bottom = bounds.T
    return (
        (right >= x0 - margin * sx)
        & (left <= x0 + (width + margin) * sx)
        & (bottom >= y0 - margin * sy)
        & (top <= y0 + (height + margin) * sy)
    )


def _sizes_px(bounds: NDArray[np.float64], frame: Frame) -> NDArray[np.float64]:
    sides = (bounds[:, 2:] - bounds[:, :2]) / np.array(frame.px0_per_pixel)
    return sides.max(axis=1, initial=0)


def _segments(shapes: NDArray[np.object_], frame: Frame) -> _Segments:
    """Take shapes apart: all edges of all rings and lines that come near the picture."""
    areal = np.isin(shapely.get_type_id(shapes), _AREAL)
    places = np.arange(len(shapes))
    polygons, of_areal = shapely.get_parts(shapes[areal], return_index=True)
    rings, of_polygon = shapely.get_rings(polygons, return_index=True)
    parts, of_line = shapely.get_parts(shapes[~areal], return_index=True)
    chains = np.concatenate([rings, parts])
    owners = np.concatenate([places[areal][of_areal[of_polygon]], places[~areal][of_line]])
    xy, chain = shapely.get_coordinates(chains, return_index=True)
    pixels = ((xy - (frame.x_px0, frame.y_px0)) / frame.px0_per_pixel).astype(np.float32)
    same = chain[1:] == chain[:-1]
    a, b, chain = pixels[:-1][same], pixels[1:][same], chain[:-1][same]
    height = frame.size[1]
    low, high = np.minimum(a, b), np.maximum(a, b)
    # What lies beside the picture matters for fills where it is left or right of it.
    near = (high[:, 1] >= -3) & (low[:, 1] <= height + 3)
    a, b, chain = a[near], b[near], chain[near]
    return _Segments(a, b, owners[chain], chain < len(rings))


def _clipped(
    a: NDArray[np.float32], b: NDArray[np.float32], size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Cut segments to the picture and a little around it; which are left (Liang, Barsky 1984)."""
    step = b - a
    start, end = np.zeros(len(a), np.float32), np.ones(len(a), np.float32)
    seen = np.ones(len(a), bool)
    for axis in (0, 1):
        for low, sign in ((-3.0, 1.0), (-(size[axis] + 3.0), -1.0)):
            p, q = sign * step[:, axis], sign * a[:, axis] - low  # inside where q + t p >= 0
            with np.errstate(divide="ignore", invalid="ignore"):
                at = -q / p
            start = np.where(p > 0, np.maximum(start, at), start)
            end = np.where(p < 0, np.minimum(end, at), end)
            seen &= (p != 0) | (q >= 0)
    seen &= start <= end
    cut = (step * start[:, None], step * end[:, None])
    return (a + cut[0])[seen], (a + cut[1])[seen], seen


# --- from segments to pixels -------------------------------------------------------------------


class _Canvas:
    """Colour and cover of each pixel; what is drawn later lies over what was there."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        width, height = frame.size
        self._colour = np.zeros((height * width, 3), np.uint8)
        self._alpha = np.zeros(height * width, np.uint8)

    def picture(self) -> NDArray[np.uint8]:
        width, height = self._frame.size
        whole = np.concatenate([self._colour, self._alpha[:, None]], axis=1)
        return whole.reshape(height, width, 4)

    def dots(self, sheet: Sheet, rows: NDArray[np.intp], colour: Any) -> None:
        """One pixel a region."""
        if not len(rows):
            return
        middle = (sheet.bounds[rows, :2] + sheet.bounds[rows, 2:]) / 2
        at = self._pixels_of(middle)
        self._put(at, _colours(sheet, rows, colour), np.full(len(at), 255, np.uint8))

    def specks(self, sheet: Sheet, rows: NDArray[np.intp], width_px: float, colour: Any) -> None:
        """Draw the ellipse of a region's bounds, as wide as its outline would make it."""
        low = self._places_of(sheet.bounds[rows, :2])
        high = self._places_of(sheet.bounds[rows, 2:])
        middle, radii = (low + high) / 2, (high - low + width_px) / 2
        corner = np.floor(middle - radii - 0.5).astype(np.int64)
        radius = radii.min(axis=1)
        colours = _colours(sheet, rows, colour)
        reach = math.ceil(2 * float(radii.max(initial=0)) + 1) + 1
        for y in range(reach):
            for x in range(reach):
                at = corner + np.array((x, y))
                away = np.hypot(*((at + 0.5 - middle) / radii).T)
                cover = np.clip((1 - away) * radius + 0.5, 0, 1)
                drawn = cover > 0
                alpha = (cover[drawn] * 255).astype(np.uint8)
                self._put(at[drawn], colours[drawn], alpha)

    def points(self, sheet: Sheet, rows: NDArray[np.intp], colour: Any) -> None:
        """Draw a disc for each point, with a dark rim."""
        if not len(rows):
            return
        xy, owner = shapely.get_coordinates(sheet.shapes[rows], return_index=True)
        at = self._pixels_of(xy)
        reach = math.ceil(POINT_PX)
        grid = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T[:, ::-1]
        distance = np.hypot(*grid.T)
        cover = np.clip(POINT_PX + 0.5 - distance, 0, 1)
        grid, cover, distance = grid[cover > 0], cover[cover > 0], distance[cover > 0]
        places = (at[:, None, :] + grid).reshape(-1, 2)
        alpha = np.tile((cover * 255).astype(np.uint8), len(at))
        shade = np.where(distance > POINT_PX - 1.5, 0.35, 1.0)
        colours = _colours(sheet, rows[owner], colour)[:, None, :] * shade[None, :, None]
        self._put(places, colours.reshape(-1, 3).astype(np.uint8), alpha)

    def lines(
        self, lines: _Segments, owner: NDArray[np.intp], width_px: float, sheet: Sheet, colour: Any
    ) -> None:
        """Outlines with smooth edges."""
        a, b, seen = _clipped(lines.a, lines.b, self._frame.size)
        owner = owner[seen]
        steep = np.abs(b[:, 1] - a[:, 1]) > np.abs(b[:, 0] - a[:, 0])
        for is_steep in (False, True):
            rows = steep == is_steep
            first, last = (a[rows], b[rows])
            if is_steep:
                first, last = first[:, ::-1], last[:, ::-1]
            self._stroke(first, last, owner[rows], is_steep, width_px, sheet, colour)

    def _stroke(
        self,
        a: NDArray[np.float32],
        b: NDArray[np.float32],
        owner: NDArray[np.intp],
        is_steep: bool,
        width_px: float,
        sheet: Sheet,
        colour: Any,
    ) -> None:
        """Draw segments that run more along the first axis than along the second."""
        if not len(a):
            return
        back = a[:, 0] > b[:, 0]
        a, b = np.where(back[:, None], b, a), np.where(back[:, None], a, b)
        begin = np.floor(a[:, 0]).astype(np.int64)
        count = np.floor(b[:, 0]).astype(np.int64) - begin + 1
        run = b[:, 0] - a[:, 0]
        slope = np.divide(b[:, 1] - a[:, 1], run, out=np.zeros_like(run), where=run > 0)
        # Measured across the main axis, a slanting line is wider.
        half = width_px / 2 * np.hypot(1, slope)
        for part in _parts(count):
            n = count[part]
            which = np.repeat(np.arange(part.start, part.stop), n)
            along = _counted(n) + begin[which]
            t = np.clip(along + 0.5, a[which, 0], b[which, 0])
            middle = a[which, 1] + slope[which] * (t - a[which, 0])
            reach = half[which]
            if sheet.dashed.any():
                dashed = sheet.dashed[owner[which]]
                gap = ((along + np.floor(middle).astype(np.int64)) // DASH_PX) % 2 == 1
                kept = ~(dashed & gap)
                which, along, middle, reach = (
                    each[kept] for each in (which, along, middle, reach)
                )
            colours = _colours(sheet, owner[which], colour)
            low = np.floor(middle - reach.max(initial=0) + 0.0).astype(np.int64)
            across = math.ceil(2 * float(reach.max(initial=0))) + 1
            for offset in range(across):
                place = low + offset
                cover = np.clip(reach + 0.5 - np.abs(place + 0.5 - middle), 0, 1)
                at = np.stack([place, along] if is_steep else [along, place], axis=1)
                drawn = cover > 0
                alpha = (np.minimum(cover[drawn], 1) * 255).astype(np.uint8)
                self._put(at[drawn], colours[drawn], alpha)

    def fill(
        self,
        lines: _Segments,
        owner: NDArray[np.intp],
        tinted: NDArray[np.bool_],
        sheet: Sheet,
        opacity: float,
    ) -> None:
        """Tint the insides."""
        width, height = self._frame.size
        a, b, owner = lines.a[tinted], lines.b[tinted], owner[tinted]
        low, high = np.minimum(a[:, 1], b[:, 1]), np.maximum(a[:, 1], b[:, 1])
        first = np.clip(np.ceil(low - 0.5), 0, height).astype(np.int64)
        count = np.clip(np.ceil(high - 0.5), 0, height).astype(np.int64) - first
        crossing = count > 0
        a, b, owner, first, count = (each[crossing] for each in (a, b, owner, first, count))
        which = np.repeat(np.arange(len(count)), count)
        row = _counted(count) + first[which]
        share = (row + 0.5 - a[which, 1]) / (b[which, 1] - a[which, 1])
        x = a[which, 0] + share * (b[which, 0] - a[which, 0])
        order = np.lexsort((x, row, owner[which]))
        x, row, of = x[order], row[order], owner[which][order]
        left = np.clip(np.ceil(x[0::2] - 0.5), 0, width).astype(np.int64)
        right = np.clip(np.ceil(x[1::2] - 0.5), 0, width).astype(np.int64)
        start, length = row[0::2] * width + left, right - left
        alpha = np.uint8(round(255 * opacity))
        faint = max(alpha, round(255 * max(FILL, SELECTED_FILL)))
        for part in _parts(length):
            n = length[part]
            at = np.repeat(start[part], n) + _counted(n)
            under = self._alpha[at] <= faint  # outlines of what lies below are still seen
            at = at[under]
            self._colour[at] = np.repeat(sheet.colours[of[0::2][part]], n, axis=0)[under]
            self._alpha[at] = alpha

    def _places_of(self, xy_px0: NDArray[np.float64]) -> NDArray[np.float64]:
        frame = self._frame
        places: NDArray[np.float64] = (xy_px0 - (frame.x_px0, frame.y_px0)) / frame.px0_per_pixel
        return places

    def _pixels_of(self, xy_px0: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.floor(self._places_of(xy_px0)).astype(np.int64)

    def _put(
        self, at: NDArray[np.int64], colours: NDArray[np.uint8], alpha: NDArray[np.uint8]
    ) -> None:
        """Cover pixels (x, y); where several come to one, the strongest wins."""
        width, height = self._frame.size
        inside = (at[:, 0] >= 0) & (at[:, 0] < width) & (at[:, 1] >= 0) & (at[:, 1] < height)
        if not inside.all():
            at, colours, alpha = at[inside], colours[inside], alpha[inside]
        flat = at[:, 1] * width + at[:, 0]
        before = self._alpha[flat]
        np.maximum.at(self._alpha, flat, alpha)
        stronger = (alpha >= self._alpha[flat]) | (before < alpha)
        self._colour[flat[stronger]] = colours[stronger]


def _colours(sheet: Sheet, rows: NDArray[np.intp], colour: Any) -> NDArray[np.uint8]:
    if colour is None:
        return sheet.colours[rows]
    return np.broadcast_to(np.array(colour, np.uint8), (len(rows), 3))


def _counted(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0, 1, ... count - 1 for each count, one after the other."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) - np.repeat(ends - counts, counts)


def _parts(counts: NDArray[np.int64]) -> list[slice]:
    """Return slices of a list of counts, each of which sums to `CHUNK_PIXELS` or so."""
    if not len(counts):
        return []
    block = np.cumsum(counts) // CHUNK_PIXELS
    starts = np.flatnonzero(np.diff(block, prepend=-1))
    return [
        slice(int(start), int(end))
        for start, end in zip(starts, [*starts[1:], len(counts)], strict=True)
    ]
