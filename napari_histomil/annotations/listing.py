"""Lists of regions: what columns say, how rows are ordered, which are shown, what they sum to.

All are functions of whole columns: 100,000 regions are ordered or filtered in a fraction of a
second, where asking one comparison at a time takes many.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from napari_histomil.annotations.measure import MppXY, diameter_um, sizes
from napari_histomil.annotations.model import Region, State
from napari_histomil.annotations.spatial import shapes_of

HULL_VERTICES = 64
"""Hulls of fewer vertices are measured all together, each vertex against each."""

CHUNK = 2**22
"""Distances that are computed at once."""

COLUMNS = ("Class", "Name", "Size", "Diameter", "Author", "Time", "Note", "State")


# --- sizes --------------------------------------------------------------------------------------


class Measures:
    """Sizes of the regions of one slide; those of shapes that stay are computed once.

    Parameters
    ----------
    mpp_xy
        Micrometres that a level-0 pixel spans along (x, y).
    """

    def __init__(self, mpp_xy: MppXY) -> None:
        self.mpp_xy = mpp_xy
        # A shape is looked up by what it is, and kept, so that its identity stays its own.
        self._sizes: dict[int, tuple[Any, float, float]] = {}
        self._diameters: dict[int, tuple[Any, float]] = {}

    def areas_mm2(self, regions: Collection[Region]) -> NDArray[np.float64]:
        """Return the areas, float [N]: 0 for lines and points, NaN for broken shapes."""
        return self._looked_up(regions, 1)

    def lengths_um(self, regions: Collection[Region]) -> NDArray[np.float64]:
        """Return the lengths of lines and perimeters of areas in µm, float [N]."""
        return self._looked_up(regions, 2)

    def diameters_um(self, regions: Collection[Region]) -> NDArray[np.float64]:
        """Return the largest distances between two points of each region in µm, float [N]."""
        known = self._diameters
        new = [region for region in regions if id(region.geometry) not in known]
        for region, value in zip(new, diameters_um(new, self.mpp_xy).tolist(), strict=True):
            known[id(region.geometry)] = region.geometry, value
        return np.array([known[id(region.geometry)][1] for region in regions], float)

    def _looked_up(self, regions: Collection[Region], which: int) -> NDArray[np.float64]:
        known = self._sizes
        new = [region for region in regions if id(region.geometry) not in known]
        if new:
            found = sizes(new, self.mpp_xy)
            for region, area, length in zip(
                new, found.area_mm2.tolist(), found.length_um.tolist(), strict=True
            ):
                known[id(region.geometry)] = region.geometry, area, length
        return np.array([known[id(region.geometry)][which] for region in regions], float)

    def forget(self, regions: Iterable[Region]) -> None:
        """Keep the sizes of these regions only, if there are many of shapes that are gone."""
        keep = {id(region.geometry) for region in regions}
        if len(self._sizes) > 2 * len(keep) + CHUNK // 2**12:
            self._sizes = {key: each for key, each in self._sizes.items() if key in keep}
            self._diameters = {key: each for key, each in self._diameters.items() if key in keep}


def diameters_um(regions: Collection[Region], mpp_xy: MppXY) -> NDArray[np.float64]:
    """Return `measure.diameter_um` of many regions, quickly for those with few corners.

    Method: the two points that lie farthest apart are vertices of the convex hull; hulls with the
    same number of vertices are looked at together.
    """
    shapes = shapes_of(regions)
    hulls = shapely.transform(shapely.convex_hull(shapes), lambda xy: xy * mpp_xy)
    xy, owner = shapely.get_coordinates(hulls, return_index=True)
    counts = np.bincount(owner, minlength=len(shapes))
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    result = np.zeros(len(shapes))
    for count in np.unique(counts[counts > 1]).tolist():
        rows = np.flatnonzero(counts == count)
        if count > HULL_VERTICES:
            result[rows] = [diameter_um(shapes[row], mpp_xy) for row in rows.tolist()]
            continue
        for part in np.array_split(rows, -(-len(rows) * count * count // CHUNK)):
            points = xy[starts[part][:, None] + np.arange(count)]  # [rows, count, 2]
            apart = points[:, :, None] - points[:, None]
            result[part] = np.hypot(apart[..., 0], apart[..., 1]).max(axis=(1, 2), initial=0)
    return result


# --- order --------------------------------------------------------------------------------------


def last_time(region: Region) -> str:
    """Return when a region was last changed, or drawn: UTC in ISO 8601; empty if unknown."""
    return region.edited or region.created


def order(
    regions: Sequence[Region], column: str, measures: Measures | None, *, descending: bool = False
) -> list[int]:
    """Return the places of regions in the order of a column; equal ones stay as they are.

    Parameters
    ----------
    column
        One of `COLUMNS`.
    measures
        None where µm/px are unknown: sizes are then ordered in pixels.

    Notes
    -----
    What is empty comes last either way. Areas come before lengths of lines, and these before
    points, largest or smallest first.
    """
    if column in ("Size", "Diameter"):
        return _by_number(_numbers(regions, column, measures), descending)
    texts = [_TEXTS[column](region) for region in regions]
    filled = [n for n, text in enumerate(texts) if text]
    empty = [n for n, text in enumerate(texts) if not text]
    filled.sort(key=texts.__getitem__, reverse=descending)
    return filled + empty


def _numbers(
    regions: Sequence[Region], column: str, measures: Measures | None
) -> NDArray[np.float64]:
    measures = measures or Measures((1.0, 1.0))
    if column == "Diameter":
        return measures.diameters_um(regions)
    area, length = measures.areas_mm2(regions), measures.lengths_um(regions)
    dimensions = shapely.get_dimensions(shapes_of(regions))
    # Lines lie between points and the smallest area, in the order of their lengths.
    lines = -1 / (1 + length)
    return np.where(dimensions == 2, area, np.where(dimensions == 1, lines, -2.0))


def _by_number(values: NDArray[np.float64], descending: bool) -> list[int]:
    missing = np.isnan(values)
    key = np.where(missing, np.inf, -values if descending else values)
    return list(map(int, np.argsort(key, kind="stable")))


_STATES: Mapping[State, str] = {"draft": "0", "reviewed": "1", "locked": "2"}

_TEXTS: Mapping[str, Callable[[Region], str]] = {
    "Class": lambda region: (region.class_name or "").casefold(),
    "Name": lambda region: (region.name or "").casefold(),
    "Author": lambda region: region.author.casefold(),
    "Time": last_time,
    "Note": lambda region: region.note.casefold(),
    "State": lambda region: _STATES[region.state],
}


# --- which are shown ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Filter:
    """Which regions a list shows."""

    class_name: str | None = None
    """Those of a class; ``""`` for those without one, None for all."""
    state: str | None = None
    """Those in a state; None for all."""
    text: str = ""
    """Those with all these words in class, name, author, note or id, in any case."""

    def __bool__(self) -> bool:
        return self.class_name is not None or self.state is not None or bool(self.text.strip())

    def shows(self, region: Region) -> bool:
        """Say whether a region is shown."""
        if self.class_name is not None and (region.class_name or "") != self.class_name:
            return False
        if self.state is not None and region.state != self.state:
            return False
        words = self.text.casefold().split()
        if not words:
            return True
        said = (region.class_name, region.name, region.author, region.note, region.id)
        text = "\n".join(each for each in said if each).casefold()
        return all(word in text for word in words)


# --- what they add up to ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Total:
    """What the regions of a class add up to; overlaps count twice."""

    name: str | None
    count: int
    area_mm2: float
    """Of those that are not broken."""
    share: float | None
    """Of the slide's or the tissue's area; None if that is unknown."""


def totals(
    counts: Mapping[str | None, tuple[int, float]], mpp_xy: MppXY, whole_mm2: float | None
) -> list[Total]:
    """Return the totals of each class, the largest area first.

    Parameters
    ----------
    counts
        Count and area in square level-0 pixels by class, from `AnnotationSet.totals`.
    whole_mm2
        Area that shares are of; None if unknown.
    """
    pixel_mm2 = mpp_xy[0] * mpp_xy[1] * 1e-6
    found = []
    for name, (count, area_px0) in counts.items():
        area = area_px0 * pixel_mm2
        found.append(Total(name, count, area, area / whole_mm2 if whole_mm2 else None))
    return sorted(found, key=lambda total: (-total.area_mm2, total.name or ""))


# --- words --------------------------------------------------------------------------------------


def size_text(dimension: int, area_mm2: float, length_um: float) -> str:
    """Return the size of a region with its unit: an area, a length, or nothing for points."""
    if dimension == 2:
        return "broken" if area_mm2 != area_mm2 else f"{area_text(area_mm2)}"
    return f"{length_text(length_um)}" if dimension == 1 else ""


def area_text(area_mm2: float) -> str:
    """Return an area in mm², or in µm² where it is that of cells."""
    if 0 < area_mm2 < 1e-3:
        return f"{area_mm2 * 1e6:.3g} µm²" if area_mm2 < 9.995e-4 else "1000 µm²"
    return f"{area_mm2:.3f} mm²" if area_mm2 < 10 else f"{area_mm2:.1f} mm²"


def length_text(length_um: float) -> str:
    """Return a length in µm, without a fraction from 100 µm on."""
    if length_um < 100:
        return f"{length_um:.1f} µm"
    return f"{length_um:,.0f} µm".replace(",", "\u202f")


def local_time_text(time: str, now: datetime | None = None) -> str:
    """Return a stamp's time in the person's own zone: the hour of today, else the day.

    Parameters
    ----------
    time
        ISO 8601; what is none comes back as it is.
    now
        The present time; for tests.
    """
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return time
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    here = moment.astimezone()
    today = (now or datetime.now(UTC)).astimezone().date()
    return f"{here:%H:%M}" if here.date() == today else f"{here:%Y-%m-%d}"
