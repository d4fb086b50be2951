"""Geometry of the tools: freehand, rectangle, ellipse, brush, wand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from annotations.shapes_of_all_kinds import many_blobs, places
from hypothesis import example, given
from hypothesis import strategies as st
from shapely.geometry import LineString, MultiPoint, MultiPolygon, Point, Polygon, box

from napari_histomil.annotations import drawing
from napari_histomil.errors import AnnotationError


def check(shape) -> None:
    assert isinstance(shape, Polygon | MultiPolygon)
    assert shape.is_valid
    xy = shapely.get_coordinates(shape)
    assert (xy == np.round(xy, 2)).all()


def test_freehand_is_simplified_to_a_pixel_of_the_screen():
    t = np.linspace(0, 2 * math.pi, 5000)
    path = np.stack([1000 * np.cos(t), 1000 * np.sin(t)], axis=1)
    fine, coarse = drawing.freehand(path, 0.5), drawing.freehand(path, 8)
    assert len(coarse.exterior.coords) < len(fine.exterior.coords) < 300
    for shape, tolerance in ((fine, 0.5), (coarse, 8)):
        check(shape)
        outline = LineString(path)
        assert shape.exterior.hausdorff_distance(outline) <= tolerance + 0.01
    assert fine.area == pytest.approx(math.pi * 1e6, rel=0.001)


def test_freehand_that_crosses_itself_covers_all_it_goes_round():
    eight = drawing.freehand([(0, 0), (10, 10), (10, 0), (0, 10)], 0.1)
    check(eight)
    assert eight.area == pytest.approx(50)


@given(st.lists(places, min_size=3, max_size=40), st.floats(0, 50))
def test_freehand_gives_a_valid_shape_or_says_that_there_is_none(path, tolerance):
    try:
        shape = drawing.freehand(path, tolerance)
    except AnnotationError:
        assert shapely.make_valid(Polygon(path)).area < 1 or len(set(path)) < 3
    else:
        check(shape)


def test_too_little_is_no_shape():
    for nothing in (
        [],
        [(1, 1)],
        [(1, 1), (2, 2)],
        [(1, 1), (2, 2), (1, 1)],
        [(0, 0), (1, 1), (2, 2)],
    ):
        with pytest.raises(AnnotationError):
            drawing.freehand(nothing, 1)
    for nothing in ([], [(1, 1)], [(1, 1), (1, 1)]):
        with pytest.raises(AnnotationError, match="two different points"):
            drawing.freehand_line(nothing, 1)
    with pytest.raises(AnnotationError, match="no point"):
        drawing.points([])
    with pytest.raises(AnnotationError, match="not a number"):
        drawing.freehand([(0, 0), (1, math.nan), (2, 0)], 1)
    for tool in (drawing.rectangle, drawing.ellipse):
        with pytest.raises(AnnotationError, match="with an area"):
            tool((0, 0), (5, 0))


def test_lines_and_points():
    line = drawing.freehand_line([(0, 0), (5, 0.2), (10.006, 0)], 1)
    assert line == LineString([(0, 0), (10.01, 0)])
    assert drawing.points([(1, 2.346)]) == Point(1, 2.35)
    assert drawing.points([(1, 2), (3, 4)]) == MultiPoint([(1, 2), (3, 4)])


def test_a_rectangle_between_any_two_corners():
    assert drawing.rectangle((9, 1), (2, 5)).equals(box(2, 1, 9, 5))


@given(places, st.integers(1, 20_000), st.integers(1, 20_000))
def test_an_ellipse_has_its_bounds_and_nearly_its_area(corner, width, height):
    x, y = corner
    shape = drawing.ellipse(corner, (x + width, y - height))
    check(shape)
    assert shape.bounds == (x, y - height, x + width, y)
    exact = math.pi * width * height / 4
    assert exact * 0.97 < shape.area < exact + 0.02 * (width + height)
    inside = drawing.ELLIPSE_ERROR_PX0 * shape.length + 0.02 * shape.length
    assert exact - shape.area < inside
    assert len(shape.exterior.coords) < 1100


def test_a_dab_is_a_disc_and_a_way_a_sausage():
    dab = drawing.stroke([(5, 5)], 10)
    check(dab)
    assert dab.area == pytest.approx(math.pi * 100, rel=0.01)
    way = drawing.stroke([(0, 0), (100, 0)], 10)
    assert way.area == pytest.approx(2000 + math.pi * 100, rel=0.01)
    for wrong in (([], 5), ([(0, 0)], 0), ([(0, 0)], math.nan)):
        with pytest.raises(AnnotationError, match="a way and a width"):
            drawing.stroke(*wrong)


@given(st.lists(places, min_size=1, max_size=60), st.floats(1, 200))
@example([(0, 1), (24, 10), (-305, -376), (0, 1), (24, 10)], 2.0)  # GEOS fills the triangle
@example([(0, 1), (24, 3), (0, -376), (0, 1), (24, 3)], 2.0)
def test_a_stroke_covers_its_way_and_no_more(path, radius):
    shape = drawing.stroke(path, radius)
    check(shape)
    steps = [LineString(step) for step in zip(path, [*path[1:], path[-1]], strict=True)]
    less, more = (
        shapely.union_all(shapely.buffer(steps, by))
        for by in (radius * 0.95 - 0.02, radius * 1.05 + 0.02)
    )
    assert less.difference(shape).area < 1e-3 * shape.area + 0.1
    assert shape.difference(more).area < 1e-3 * shape.area + 0.1


@given(many_blobs, st.lists(places, min_size=1, max_size=5), st.floats(2, 80))
def test_what_is_painted_and_wiped_is_gone_and_what_is_wiped_and_painted_is_there(a, path, radius):
    painted = drawing.stroke(path, radius)
    slack = 0.02 * (a.length + painted.length) + 1
    more = drawing.brushed(a, painted)
    check(more)
    assert painted.difference(more).area <= slack
    try:
        less = drawing.brushed(more, painted, erase=True)
    except AnnotationError:
        assert a.difference(painted).area <= slack
    else:
        check(less)
        assert less.intersection(painted).area <= slack
        assert less.symmetric_difference(a.difference(painted)).area <= slack


def test_a_stroke_round_something_leaves_a_hole():
    square = [(0, 0), (100, 0), (100, 100), (0, 100), (0, 0)]
    assert len(drawing.stroke(square, 5).interiors) == 1


# --- wand -------------------------------------------------------------------------------------


def picture() -> np.ndarray:
    """Two pink squares and a purple one between them, on white."""
    rgb = np.full((100, 120, 3), 255, np.uint8)
    rgb[20:60, 10:40] = rgb[20:60, 70:110] = (230, 150, 190)
    rgb[20:60, 40:70] = (90, 50, 140)
    return rgb


def test_the_wand_takes_what_is_connected_and_of_one_colour():
    shape = drawing.wand(
        picture(), (20.5, 30.5), 12, origin_px0=(1000, 2000), px0_per_pixel=4, smooth=0
    )
    check(shape)
    assert shape.equals(box(1040, 2080, 1160, 2240))


def test_a_higher_tolerance_takes_more_and_smoothing_rounds():
    areas = [
        drawing.wand(picture(), (20, 30), tol, origin_px0=(0, 0), px0_per_pixel=1).area
        for tol in (5, 12, 70, 1000)
    ]
    assert areas == sorted(areas)
    assert areas[-1] == 100 * 120


def test_the_wand_ignores_noise_and_keeps_holes():
    rgb = picture().astype(int)
    rgb[30:45, 80:95] = 255
    rng = np.random.default_rng(0)
    noisy = np.clip(rgb + rng.normal(0, 8, rgb.shape), 0, 255).astype(np.uint8)
    shape = drawing.wand(noisy, (75, 25), 15, origin_px0=(0, 0), px0_per_pixel=1)
    check(shape)
    assert len(shape.interiors) == 1
    expected = box(70, 20, 110, 60).difference(box(80, 30, 95, 45))
    assert shape.intersection(expected).area / shape.union(expected).area > 0.8


def test_the_wand_begins_in_the_picture():
    for outside in ((-0.1, 5), (120, 5), (5, 100)):
        with pytest.raises(AnnotationError, match="inside the view"):
            drawing.wand(picture(), outside, 5, origin_px0=(0, 0), px0_per_pixel=1)
    corner = drawing.wand(picture(), (119.9, 99.9), 0.0, origin_px0=(0, 0), px0_per_pixel=1)
    assert corner.area > 0
