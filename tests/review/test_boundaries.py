"""Distances of outlines, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from shapely.geometry import LineString, MultiLineString, Point, box

from napari_histomil.annotations.masks import LabelTable, MaskGrid
from napari_histomil.annotations.model import Region, class_named
from napari_histomil.annotations.raster import prepare
from napari_histomil.review.boundaries import boundary_distance, class_outline

TUMOR, STROMA = class_named("Tumor"), class_named("Stroma")
GRID = MaskGrid(100, 100, (1.0, 1.0), (0.5, 0.5))


def outline(regions, area=(0, 0, 100, 100), mpp=(0.5, 0.5)):
    painting = prepare(regions, GRID, LabelTable.of([TUMOR, STROMA]), fully_annotated=True)
    return class_outline(painting, 1, [box(*area)], mpp)


def test_parallel_lines_are_as_far_apart_as_they_are():
    found = boundary_distance(LineString([(0, 0), (100, 0)]), LineString([(0, 3), (100, 3)]))
    assert found.mean_um == pytest.approx(3)
    assert found.median_um == pytest.approx(3)
    assert found.hausdorff95_um == pytest.approx(3)
    assert found.step_um == 1


def test_circles_of_one_centre():
    inner, outer = (Point(0, 0).buffer(r, quad_segs=200).boundary for r in (50, 60))
    found = boundary_distance(inner, outer)
    assert found.mean_um == pytest.approx(10, abs=0.01)
    assert found.hausdorff95_um == pytest.approx(10, abs=0.01)


def test_the_order_does_not_matter_and_both_directions_count():
    short, long = LineString([(0, 0), (10, 0)]), LineString([(0, 1), (110, 1)])
    there, back = boundary_distance(short, long), boundary_distance(long, short)
    assert there.mean_um == pytest.approx(back.mean_um)
    assert there.hausdorff95_um == back.hausdorff95_um
    # 10 µm of the short at 1; of the long 10 at 1, the rest by its distance from the end
    beyond = np.hypot(np.arange(0.5, 100), 1)
    assert there.mean_um == pytest.approx((20 + beyond.sum()) / 120)
    assert there.hausdorff95_um == pytest.approx(np.hypot(94.5, 1), abs=0.6)


def test_points_count_by_length_whatever_the_vertices():
    dense = LineString([(x, 0) for x in np.r_[np.linspace(0, 1, 1000), 100]])
    slope = LineString([(0, 0), (100, 10)])
    plain = boundary_distance(LineString([(0, 0), (100, 0)]), slope)
    assert boundary_distance(dense, slope).mean_um == pytest.approx(plain.mean_um, rel=0.02)


def test_no_outline_gives_no_distance():
    assert boundary_distance(LineString(), LineString([(0, 0), (1, 0)])) is None
    assert boundary_distance(LineString([(0, 0), (1, 0)]), MultiLineString()) is None


def test_long_outlines_are_sampled_more_coarsely(monkeypatch):
    monkeypatch.setattr("napari_histomil.review.boundaries.MAX_SAMPLES", 10)
    found = boundary_distance(LineString([(0, 0), (100, 0)]), LineString([(0, 3), (100, 3)]))
    assert found.step_um == 10
    assert found.mean_um == pytest.approx(3)


def test_an_outline_is_in_micrometres_and_ends_at_the_area():
    lines = outline([Region(box(10, 10, 30, 50), TUMOR)], mpp=(0.5, 0.25))
    assert lines.bounds == (5, 2.5, 15, 12.5)
    assert lines.length == pytest.approx(2 * 10 + 2 * 10)
    left = outline([Region(box(10, 10, 30, 50), TUMOR)], area=(0, 0, 20, 100))
    assert left.length == pytest.approx((40 + 10 + 10) * 0.5)


def test_shapes_of_a_class_are_one_and_what_is_painted_over_is_cut_off():
    two = [Region(box(10, 10, 30, 30), TUMOR), Region(box(20, 10, 50, 30), TUMOR)]
    assert outline(two).length == pytest.approx((40 + 20) * 2 * 0.5)
    over = [*two, Region(box(40, 0, 60, 60), STROMA), Region(box(0, 0, 15, 60), STROMA)]
    assert outline(over).bounds == (7.5, 5, 20, 15)
    assert outline([over[2], over[3], *two]).bounds == (5, 5, 25, 15)
