"""Sizes in µm and mm², also where pixels are not square; diameters against all pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from annotations.shapes_of_all_kinds import many_blobs
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from shapely.geometry import LineString, MultiPoint, Point, Polygon, box

from napari_histomil.annotations import measure
from napari_histomil.annotations.model import Region

MPP = (0.5, 0.25)
BOW_TIE = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])


def test_sizes_of_a_rectangle_with_a_hole():
    shape = box(0, 0, 2000, 4000).difference(box(100, 100, 200, 300))
    assert measure.area_mm2(shape, MPP) == pytest.approx((1000 * 1000 - 50 * 50) * 1e-6)
    assert measure.length_um(shape, MPP) == pytest.approx(4000 + 200)
    assert measure.diameter_um(shape, MPP) == pytest.approx(1000 * math.sqrt(2))


def test_sizes_of_lines_points_and_broken_shapes():
    line = LineString([(0, 0), (6, 0), (6, 16)])
    assert measure.length_um(line, MPP) == pytest.approx(3 + 4)
    assert measure.diameter_um(line, MPP) == pytest.approx(5)
    assert measure.area_mm2(line, MPP) == 0
    assert measure.diameter_um(Point(3, 3), MPP) == 0
    assert measure.diameter_um(MultiPoint([(0, 0), (6, 16)]), MPP) == pytest.approx(5)
    assert measure.diameter_um(Polygon(), MPP) == 0
    assert math.isnan(measure.area_mm2(BOW_TIE, MPP))


@given(st.lists(many_blobs, max_size=4))
def test_a_list_is_measured_like_each(shapes):
    shapes = [*shapes, LineString([(0, 0), (3, 4)]), BOW_TIE, Polygon()]
    found = measure.sizes([Region(shape) for shape in shapes], MPP)
    np.testing.assert_allclose(found.area_mm2, [measure.area_mm2(s, MPP) for s in shapes])
    np.testing.assert_allclose(found.length_um, [measure.length_um(s, MPP) for s in shapes])


@given(
    st.lists(st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=2, max_size=30),
    st.sampled_from([(1, 1), MPP]),
)
def test_the_diameter_is_the_largest_of_all_distances(xy, mpp):
    found = measure.diameter_um(MultiPoint(xy), mpp)
    assert found == pytest.approx(pdist(np.array(xy) * mpp).max())


@pytest.mark.parametrize("quarter", [1, 2, 3, 50, 1000])
def test_the_diameter_of_circles_with_many_parallel_edges(quarter):
    circle = Point(7, 7).buffer(100, quad_segs=quarter)
    assert measure.diameter_um(circle, (1, 1)) == pytest.approx(200)
    corners = shapely.get_coordinates(shapely.segmentize(circle, 3))
    assert measure.diameter_um(Polygon(corners), (1, 1)) == pytest.approx(200)


@given(many_blobs, many_blobs)
def test_which_share_another_covers(a, b):
    share = measure.overlap_fraction(a, b)
    assert 0 <= share <= 1 + 1e-9
    assert share * a.area == pytest.approx(measure.overlap_fraction(b, a) * b.area, abs=1e-6)
    assert measure.overlap_fraction(a, a) == pytest.approx(1)


def test_no_share_of_nothing():
    assert math.isnan(measure.overlap_fraction(Point(0, 0), box(0, 0, 1, 1)))
    assert math.isnan(measure.overlap_fraction(BOW_TIE, box(0, 0, 1, 1)))
    assert measure.overlap_fraction(box(0, 0, 4, 4), box(2, 0, 4, 4)) == 0.5
