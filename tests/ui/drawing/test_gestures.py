"""A hand's way -> a shape, without a window."""

from __future__ import annotations

import math

import numpy as np
import pytest
from shapely.geometry import LineString, Point, Polygon

from napari_histomil.errors import AnnotationError
from napari_histomil.ui.drawing.gestures import (
    Box,
    Clicks,
    Freehand,
    Points,
    Straight,
    Stroke,
)
from napari_histomil.ui.drawing.pointer import Pointer


def at(x, y, scale=1.0):
    return Pointer((x, y), scale)


def click(gesture, x, y):
    done = gesture.press(at(x, y))
    return done or gesture.release(at(x, y))


def drag(gesture, *places, scale=1.0):
    gesture.press(at(*places[0], scale))
    for place in places[1:]:
        gesture.move(at(*place, scale), down=True)
    return gesture.release(at(*places[-1], scale))


CORNERS = [(0, 0), (100, 0), (100, 50)]


def test_a_polygon_by_clicks_is_closed_by_a_double_click_enter_or_its_first_vertex():
    for close in (
        lambda gesture: gesture.double(at(100, 50)),
        lambda gesture: gesture.enter(),
        lambda gesture: gesture.press(at(3, 4)),
    ):
        gesture = Clicks(closed=True)
        for corner in CORNERS:
            assert click(gesture, *corner) is None
        drawn = close(gesture)
        assert drawn.shape.equals(Polygon(CORNERS))
        assert not gesture.busy


def test_vertices_are_taken_back_one_by_one_until_nothing_is_begun():
    gesture = Clicks(closed=True)
    for corner in [*CORNERS, (70, 200)]:
        click(gesture, *corner)
    assert gesture.vertices == 4
    assert gesture.back()
    assert gesture.enter().shape.equals(Polygon(CORNERS))
    for corner in CORNERS[:2]:
        click(gesture, *corner)
    assert gesture.enter() is None  # two are no polygon; it goes on
    assert gesture.busy
    assert gesture.back()
    assert gesture.back()
    assert not gesture.busy
    assert not gesture.back()


def test_the_preview_follows_the_pointer_between_clicks():
    gesture = Clicks(closed=True)
    click(gesture, 0, 0)
    gesture.move(at(30, 40), down=False)
    assert gesture.path == [(0, 0), (30, 40)]


def test_a_line_is_drawn_by_clicks_or_by_one_drag():
    gesture = Clicks(closed=False)
    for corner in CORNERS:
        click(gesture, *corner)
    assert gesture.double(at(100, 50)).shape.equals(LineString(CORNERS))
    assert drag(gesture, (0, 0), (20, 10), (40, 30)).shape.equals(LineString([(0, 0), (40, 30)]))


@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_a_freehand_outline_is_as_fine_as_the_screen(scale):
    way = [(1000 + 500 * math.cos(a), 1000 + 500 * math.sin(a)) for a in np.linspace(0, 6.28, 400)]
    shape = drag(Freehand(), *way, scale=scale).shape
    assert shape.symmetric_difference(Polygon(way)).area < 2 * math.pi * 500 * scale
    assert len(shape.exterior.coords) < 120 / math.sqrt(scale)
    assert drag(Freehand(), (0, 0), (1, 1), (2, 0)) is None  # a click
    with pytest.raises(AnnotationError):
        drag(Freehand(), (0, 0), (100, 100))


def test_boxes_go_from_corner_to_corner_and_a_click_makes_none():
    assert drag(Box(is_ellipse=False), (50, 40), (10, 90)).shape.bounds == (10, 40, 50, 90)
    ellipse = drag(Box(is_ellipse=True), (0, 0), (40, 20))
    assert ellipse.shape.bounds == (0, 0, 40, 20)
    assert ellipse.extra.geometry == {"isEllipse": True}
    assert ellipse.shape.area == pytest.approx(math.pi * 20 * 10, rel=0.02)
    assert click(Box(is_ellipse=False), 5, 5) is None
    with pytest.raises(AnnotationError):
        drag(Box(is_ellipse=False), (0, 0), (100, 0))


def test_a_stroke_is_as_wide_as_the_brush_was_when_it_began():
    widths = iter([10.0, 99.0])
    gesture = Stroke(lambda: next(widths))
    shape = drag(gesture, (0, 0), (50, 0), (100, 0)).shape
    assert shape.symmetric_difference(LineString([(0, 0), (100, 0)]).buffer(10)).area < 5
    dab = click(Stroke(lambda: 7.0), 20, 30).shape
    assert dab.bounds == pytest.approx((13, 23, 27, 37))


def test_points_and_straight_lines():
    assert click(Points(), 3.256, 4).shape.equals(Point(3.26, 4))
    assert drag(Straight(), (0, 0), (5, 9), (30, 40)).shape.length == 50
    assert click(Straight(), 3, 3) is None
