"""Two annotations of one slide: how far they agree, and where they differ.

They are painted on the same grid and compared pixel by pixel inside an area in which both are
complete: what both readers marked as ``Region*``, or a rectangle, or all if the slide was fully
annotated; never in what either ignores or has left without a class. Outlines are compared as
drawn (`boundaries.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from shapely.geometry import Polygon, box
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.masks import LabelImage, LabelTable, MaskGrid
from napari_histomil.annotations.model import REGION, AnnotationClass, Region, class_named, walk
from napari_histomil.annotations.raster import (
    Painting,
    Priority,
    is_unknown,
    paint_area,
    prepare,
    sound_shapes,
    window,
    window_rows,
)
from napari_histomil.annotations.tracing import Tracer, on_slide
from napari_histomil.errors import AnnotationError
from napari_histomil.geometry import Rect
from napari_histomil.review import metrics
from napari_histomil.review.boundaries import BoundaryDistance, boundary_distance, class_outline
from napari_histomil.review.metrics import Confusion, Score
from napari_histomil.slides.slide import SlideInfo

BACKGROUND = "background"
MAX_CLASSES = 250


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Two annotations made ready to be compared."""

    first: Painting
    second: Painting
    area: Painting
    polygons: tuple[Polygon, ...]
    """The area, in level-0 pixels."""
    slide_mpp: tuple[float, float]
    raters: tuple[str, str]
    notes: tuple[str, ...]

    @property
    def grid(self) -> MaskGrid:
        """The pixels that are compared."""
        return self.area.grid

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, background last; a pair of them is ``first * K + second``."""
        return (*(kind.name for kind in self.first.table.classes), BACKGROUND)

    @property
    def outside(self) -> int:
        """Value of what is not compared, in `pair_bands` and `difference_map`."""
        return 255 if len(self.names) ** 2 < 255 else 65535


@dataclass(frozen=True, slots=True)
class ClassAgreement:
    """Agreement on one class against all others."""

    name: str
    first_mm2: float
    second_mm2: float
    dice: Score
    """The same number as the positive agreement."""
    iou: Score
    kappa: Score
    negative_agreement: Score
    boundary: BoundaryDistance | None
    """None for background, and where one of the two has no outline inside the area."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One connected place where the two say different things."""

    first: str
    second: str
    area_mm2: float
    region: Region
    """Its class is ``A: first, B: second`` in words, its measurement ``Area mm^2``."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The answer."""

    raters: tuple[str, str]
    area_mm2: float
    """What was compared."""
    mpp: tuple[float, float]
    """µm/px at which it was."""
    confusion: Confusion
    observed: Score
    kappa: Score
    classes: tuple[ClassAgreement, ...]
    differences: tuple[Difference, ...]
    """From large to small."""
    slivers: int
    """Differences that are too small to be listed."""
    slivers_mm2: float
    notes: tuple[str, ...]


def prepare_comparison(
    first: Iterable[Region],
    second: Iterable[Region],
    info: SlideInfo,
    mpp: float,
    *,
    rect: Rect | None = None,
    fully_annotated: bool = False,
    classes: LabelTable | None = None,
    priority: Priority = "drawn",
    mend: bool = False,
    raters: tuple[str, str] = ("A", "B"),
) -> Comparison:
    """Make two annotations ready to be compared.

    Parameters
    ----------
    first, second
        Regions of the same slide.
    info
        The slide.
    mpp
        µm/px at which pixels are compared.
    rect
        Where both are complete; by default what both have marked as ``Region*``.
    fully_annotated
        Whether both are complete everywhere.
    classes
        The classes to be compared; by default all that either has.
    priority, mend
        As for `raster.prepare`.
    raters
        What the two are called.

    Raises
    ------
    AnnotationError
        If there is no area in which both are complete, a shape is broken, or there are more
        than `MAX_CLASSES`.
    MissingMppError
        If the slide's µm/px are unknown.
    """
    sides = tuple(first), tuple(second)
    table = classes or LabelTable.of_regions([*sides[0], *sides[1]])
    table = LabelTable.of(table.classes)  # 1, 2, 3, ...
    if len(table.classes) > MAX_CLASSES:
        raise AnnotationError(
            f"{len(table.classes)} classes are more than can be compared: name those that matter."
        )
    grid = MaskGrid.cover(info, mpp)
    polygons = _common_area(sides, info, rect, fully_annotated, mend, raters)
    notes = []
    paintings = []
    for rater, regions in zip(raters, sides, strict=True):
        painting = prepare(
            regions, grid, table, priority=priority, fully_annotated=True, mend=mend
        )
        notes += [f"{rater}: {note}" for note in painting.notes]
        paintings.append(painting)
    return Comparison(
        first=paintings[0],
        second=paintings[1],
        area=paint_area(polygons, grid),
        polygons=tuple(polygons),
        slide_mpp=info.mpp_xy,
        raters=raters,
        notes=tuple(notes),
    )


def pair_bands(comparison: Comparison) -> Iterator[LabelImage]:
    """Yield for every pixel what the two say, from top to bottom.

    Yields
    ------
    uint8 or uint16 array [rows, columns]
        ``first * K + second`` of the indices in `Comparison.names`; `Comparison.outside` where
        nothing is compared.
    """
    c = comparison
    size = len(c.names)
    kind: type[np.unsignedinteger[Any]] = np.uint8 if c.outside == 255 else np.uint16
    table = np.full(256 if c.first.table.dtype == np.uint8 else 65536, size, kind)
    table[[*c.first.table.values, c.first.table.background]] = np.arange(size)
    for xy, extent in window_rows(c.grid, itemsize=8):  # counting takes as much a pixel
        one: LabelImage = table[window(c.first, xy, extent)]
        two: LabelImage = table[window(c.second, xy, extent)]
        band = np.multiply(one, size, dtype=kind) + two  # at most size * size + size, which fits
        known = (one < size) & (two < size) & (window(c.area, xy, extent) == 1)
        band[~known] = c.outside
        yield band


def difference_map(comparison: Comparison) -> tuple[Iterator[LabelImage], LabelTable]:
    """Return the bands of a map of differences, and what its values mean.

    0 where both say the same, a value for each pair of classes elsewhere, unlabelled where
    nothing is compared.
    """
    size = len(comparison.names)
    codes = [code for code in range(size * size) if code // size != code % size]
    kinds = [_pair_class(comparison, code) for code in codes]
    table = LabelTable.of(kinds, codes, unlabelled=comparison.outside)
    return (_only_differences(band, comparison) for band in pair_bands(comparison)), table


def judge(
    comparison: Comparison, bands: Iterable[LabelImage], *, min_um2: float = 0.0
) -> Agreement:
    """Count, trace and measure.

    Parameters
    ----------
    comparison
        From `prepare_comparison`.
    bands
        `pair_bands` of it, perhaps with a progress bar around.
    min_um2
        Differences that are smaller are counted, not listed.

    Raises
    ------
    AnnotationError
        If no pixel lies inside the area.
    """
    c = comparison
    size = len(c.names)
    counts = np.zeros(size * size, np.int64)
    tracer = Tracer(skip=(0, c.outside))
    for band in bands:
        counts += np.bincount(band[band != c.outside], minlength=size * size)
        tracer.add(_only_differences(band, c))
    tracer.end()
    confusion = Confusion(counts.reshape(size, size), c.names, c.raters)
    pixel_mm2, mpp = c.grid.pixel_mm2, c.grid.mpp_xy
    assert pixel_mm2 is not None, "prepare_comparison asks for µm/px"
    assert mpp is not None
    if not confusion.total:
        raise AnnotationError(
            f"No pixel of {mpp[0]:g} µm lies where both are complete: choose a smaller µm/px, or "
            f"another area."
        )
    differences = []
    small = small_px = 0
    for outline in tracer.outlines:
        if outline.polygon.area * pixel_mm2 * 1e6 < min_um2:
            small += 1
            small_px += round(outline.polygon.area)
        else:
            differences.append(_difference(c, outline.value, outline.polygon, pixel_mm2))
    differences.sort(key=lambda d: (-d.area_mm2, d.region.geometry.bounds))
    return Agreement(
        raters=c.raters,
        area_mm2=confusion.total * pixel_mm2,
        mpp=mpp,
        confusion=confusion,
        observed=metrics.accuracy(confusion),
        kappa=metrics.kappa(confusion),
        classes=tuple(_class_agreement(c, confusion, index, pixel_mm2) for index in range(size)),
        differences=tuple(differences),
        slivers=small,
        slivers_mm2=small_px * pixel_mm2,
        notes=c.notes,
    )


def _common_area(
    sides: tuple[tuple[Region, ...], tuple[Region, ...]],
    info: SlideInfo,
    rect: Rect | None,
    fully_annotated: bool,
    mend: bool,
    raters: tuple[str, str],
) -> list[Polygon]:
    """Return where both are complete."""
    area: BaseGeometry = box(0, 0, info.width_px0, info.height_px0)
    if rect is not None:
        area &= box(rect.x_px0, rect.y_px0, rect.right_px0, rect.bottom_px0)
    for rater, regions in zip(raters, sides, strict=True):
        areal = [region for region in walk(regions) if region.is_areal]
        shapes, _ = sound_shapes(areal, mend=mend)
        complete = [s for s, r in zip(shapes, areal, strict=True) if r.class_name == REGION]
        if rect is None and not fully_annotated:
            if not complete:
                raise AnnotationError(
                    f"{rater} has no {REGION}, so it is not known where it is complete: mark "
                    f"that, give a rectangle, or say that the slide is fully annotated."
                )
            area &= shapely.union_all(complete)
        unknown = [s for s, r in zip(shapes, areal, strict=True) if is_unknown(r)]
        area -= shapely.union_all(unknown)
    parts = [part for part in shapely.get_parts(area) if isinstance(part, Polygon) and part.area]
    if not parts:
        raise AnnotationError(
            f"There is no place in which both {raters[0]} and {raters[1]} are complete: their "
            f"{REGION} do not meet, or all of it is ignored."
        )
    return parts


def _only_differences(band: LabelImage, comparison: Comparison) -> LabelImage:
    """Return pairs with 0 for all pairs of the same."""
    size = len(comparison.names)
    same = np.arange(size) * (size + 1)
    return np.where(np.isin(band, same), 0, band).astype(band.dtype)


def _pair_class(comparison: Comparison, code: int) -> AnnotationClass:
    first, second = (comparison.names[i] for i in divmod(code, len(comparison.names)))
    one, two = comparison.raters
    return class_named(f"{one} {first}, {two} {second}")


def _difference(
    comparison: Comparison, code: int, polygon: Polygon, pixel_mm2: float
) -> Difference:
    first, second = (comparison.names[i] for i in divmod(code, len(comparison.names)))
    area_mm2 = polygon.area * pixel_mm2
    region = Region(
        on_slide(polygon, comparison.grid),
        _pair_class(comparison, code),
        measurements={"Area mm^2": area_mm2},
        metadata={comparison.raters[0]: first, comparison.raters[1]: second},
    )
    return Difference(first, second, area_mm2, region)


def _class_agreement(
    comparison: Comparison, confusion: Confusion, index: int, pixel_mm2: float
) -> ClassAgreement:
    c, counts = comparison, confusion.counts
    boundary = None
    if index < len(c.first.table.values):
        value = c.first.table.values[index]
        outlines = [
            class_outline(side, value, c.polygons, c.slide_mpp) for side in (c.first, c.second)
        ]
        boundary = boundary_distance(*outlines)
    return ClassAgreement(
        name=c.names[index],
        first_mm2=float(counts[index].sum() * pixel_mm2),
        second_mm2=float(counts[:, index].sum() * pixel_mm2),
        dice=metrics.dice(confusion, index),
        iou=metrics.iou(confusion, index),
        kappa=metrics.kappa(confusion.one_against_rest(index)),
        negative_agreement=metrics.negative_agreement(confusion, index),
        boundary=boundary,
    )
