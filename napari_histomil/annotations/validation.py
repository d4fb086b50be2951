"""What is wrong with a set of regions, in sentences: before it becomes ground truth."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import shapely

from napari_histomil.annotations.files import AnnotationFile
from napari_histomil.annotations.model import Region, walk
from napari_histomil.slides.slide import SlideInfo

MIN_OVERLAP_PX2 = 1.0
"""Neighbours that were drawn along one another touch by rounding: less than this is no overlap."""


def findings(
    file: AnnotationFile, slide: SlideInfo | None = None, *, exclusive: Collection[str] = ()
) -> Iterator[str]:
    """Yield one sentence for each thing that is wrong.

    Parameters
    ----------
    file
        Regions with what was noticed on reading.
    slide
        The slide they were drawn on: regions that reach outside it are told, and a file that
        names another slide.
    exclusive
        Classes that must not overlap one another.
    """
    regions = list(walk(file.regions))
    if slide is not None and file.frame.fingerprint not in ("", slide.fingerprint):
        yield f"The file was drawn on another slide ({file.frame.slide}), not {slide.path.name}."
    yield from _double_ids(file)
    for region in regions:
        problem = region.problem()
        if problem:
            yield problem
        elif region.geometry.is_empty and region.object_type == "annotation":
            yield f"{region.label} has no shape."
        if region.classification is None and region.object_type == "annotation":
            yield f"{region.label} has no class."
    if slide is not None:
        yield from _outside(regions, slide)
    yield from overlaps(regions, exclusive)


def _double_ids(file: AnnotationFile) -> Iterator[str]:
    """Yield what reading noticed: it gave those regions new ids."""
    yield from (note for note in file.notes if "had the id of another" in note)


def _outside(regions: Sequence[Region], slide: SlideInfo) -> Iterator[str]:
    bounds = shapely.bounds([region.geometry for region in regions]).reshape(-1, 4)
    size = f"{slide.width_px0} x {slide.height_px0} px"
    out = (bounds[:, 0] < 0) | (bounds[:, 1] < 0)
    out |= (bounds[:, 2] > slide.width_px0) | (bounds[:, 3] > slide.height_px0)
    wholly = (bounds[:, 2] < 0) | (bounds[:, 3] < 0)
    wholly |= (bounds[:, 0] > slide.width_px0) | (bounds[:, 1] > slide.height_px0)
    for index in np.flatnonzero(out).tolist():
        x0, y0 = bounds[index, :2]
        how = "lies outside" if wholly[index] else "reaches outside"
        yield f"{regions[index].label} {how} the slide ({size}), at x = {x0:.0f}, y = {y0:.0f}."


def overlaps(regions: Sequence[Region], exclusive: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each two regions of different exclusive classes that overlap.

    Broken regions are passed over: they have no well-defined area.
    """
    if len(set(exclusive)) < 2:
        return
    chosen = [
        region
        for region in regions
        if region.class_name in exclusive and region.is_areal and shapely.is_valid(region.geometry)
    ]
    shapes = np.array([region.geometry for region in chosen], dtype=object)
    tree = shapely.STRtree(shapes)
    first, second = tree.query(shapes, predicate="intersects")
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        if a < b and chosen[a].class_name != chosen[b].class_name:
            common = shapely.intersection(shapes[a], shapes[b])
            if common.area >= MIN_OVERLAP_PX2:
                spot = common.representative_point()
                yield (
                    f"{chosen[a].label} and {chosen[b].label} overlap near x = {spot.x:.0f}, "
                    f"y = {spot.y:.0f} (level-0 pixels)."
                )
