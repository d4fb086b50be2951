"""Vertices and the box of handles: geometry of editing, without a window."""

from __future__ import annotations

import numpy as np
import pytest
from shapely.geometry import LineString, MultiPoint, MultiPolygon, Point, Polygon, box

from napari_histomil.errors import AnnotationError
from napari_histomil.geometry import Rect
from napari_histomil.ui.drawing import vertices
from napari_histomil.ui.drawing.handles import Grip, grip_at, handles_of, matrix_of, moved_by
from napari_histomil.ui.drawing.pointer import Pointer
from napari_histomil.ui.drawing.vertices import (
    Place,
    nearest_edge,
    nearest_vertex,
    rebuilt,
    rings_of,
)

HOLED = Polygon([(0, 0), (100, 0), (100, 80), (0, 80)], [[(20, 20), (40, 20), (40, 40), (20, 40)]])


@pytest.mark.parametrize(
    "shape",
    [
        HOLED,
        MultiPolygon([HOLED, box(200, 0, 220, 10)]),
        LineString([(0, 0), (5, 9)]),
        Point(3, 4),
        MultiPoint([(1, 2), (3, 4)]),
    ],
    ids=lambda shape: shape.geom_type,
)
def test_a_shape_is_what_its_vertices_say(shape):
    assert rebuilt(shape, rings_of(shape)).equals(shape)


def test_a_vertex_of_a_hole_is_found_moved_put_in_and_taken_away():
    rings = rings_of(HOLED)
    place = nearest_vertex(rings, (41, 42), 5)
    assert place == Place(1, 2)
    assert nearest_vertex(rings, (60, 60), 5) is None
    moved = rebuilt(HOLED, vertices.with_moved(rings, place, (50, 50)))
    assert moved.area == pytest.approx(HOLED.area - 200)
    edge = nearest_edge(rings, (30, 18), 5, closed=True)
    assert edge == Place(1, 1)
    wider = rebuilt(HOLED, vertices.with_inserted(rings, edge, (30, 10)))
    assert wider.area == pytest.approx(HOLED.area - 100)
    less = rebuilt(HOLED, vertices.without(rings, place))
    assert less.area == pytest.approx(HOLED.area + 200)
    assert len(rings[1]) == 4  # the given ones are as they were


def test_the_edge_back_to_the_first_vertex_counts_where_the_chain_is_closed():
    rings = rings_of(box(0, 0, 10, 10))
    ring = rings[0]
    middle = (ring[0] + ring[-1]) / 2
    assert nearest_edge(rings, tuple(middle), 1, closed=True) == Place(0, 4)
    assert nearest_edge(rings, tuple(middle), 1, closed=False) is None


def test_an_outline_that_crosses_itself_is_mended_and_a_hole_of_two_is_filled():
    rings = rings_of(box(0, 0, 10, 10))
    corner = nearest_vertex(rings, (0, 0), 1)
    crossed = rebuilt(box(0, 0, 10, 10), vertices.with_moved(rings, corner, (20, 5)))
    assert crossed.is_valid
    holed = rings_of(HOLED)
    for _ in range(2):
        holed = vertices.without(holed, Place(1, 0))
    assert rebuilt(HOLED, holed).equals(box(0, 0, 100, 80))
    triangle = Polygon([(0, 0), (9, 0), (0, 9)])
    with pytest.raises(AnnotationError, match="delete it"):
        rebuilt(triangle, vertices.without(rings_of(triangle), Place(0, 0)))


BOX = Rect(100, 200, 60, 40)


def transformed(grip, began, now, points, **keys):
    matrix = matrix_of(grip, BOX, began, Pointer(now, 1.0, **keys))
    return moved_by(np.array(points, float), matrix)


def test_the_box_is_held_by_its_corners_its_sides_its_arm_and_its_inside():
    def held(x, y):
        return grip_at(BOX, Pointer((x, y), 1.0))

    assert held(100, 200) == Grip("scale", (0.0, 0.0))
    assert held(160, 221) == Grip("scale", (1.0, 0.5))
    assert held(130, 172) == Grip("turn")
    assert held(120, 220) == Grip("move")
    assert held(90, 260) is None
    assert len(handles_of(BOX, 1.0)) == 9


def test_scaling_keeps_the_opposite_side_and_turning_the_middle():
    corner = Grip("scale", (1.0, 1.0))
    np.testing.assert_allclose(
        transformed(corner, (160, 240), (220, 260), [(100, 200), (160, 240)]),
        [(100, 200), (220, 260)],
    )
    np.testing.assert_allclose(
        transformed(corner, (160, 240), (220, 260), [(160, 240)], add=True), [(220, 280)]
    )
    side = Grip("scale", (0.0, 0.5))
    np.testing.assert_allclose(
        transformed(side, (100, 220), (130, 300), [(100, 200), (160, 240)]),
        [(130, 200), (160, 240)],
    )
    np.testing.assert_allclose(
        transformed(Grip("turn"), (130, 172), (178, 220), [(130, 200), (130, 220)]),
        [(150, 220), (130, 220)],
    )
    assert matrix_of(corner, BOX, (160, 240), Pointer((100, 240))) is None  # nothing is left
