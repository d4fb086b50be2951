"""Geometry of editing: areas add up, results are valid and on the grid, nothing left is said."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import shapely
from annotations.shapes_of_all_kinds import many_blobs
from hypothesis import assume, given
from hypothesis import strategies as st
from shapely import affinity
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

from napari_histomil.annotations import edit
from napari_histomil.annotations.model import Region, class_named
from napari_histomil.errors import AnnotationError

BOW_TIE = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])


def check(shape) -> None:
    """What every function promises."""
    assert isinstance(shape, Polygon | MultiPolygon)
    assert shape.is_valid
    xy = shapely.get_coordinates(shape)
    assert (xy == np.round(xy, 2)).all()


def slack(*shapes) -> float:
    """Area that rounding to hundredths may move: along every outline."""
    return 0.02 * sum(shape.length for shape in shapes) + 1


@given(many_blobs, many_blobs)
def test_adding_is_the_union_and_does_not_mind_the_order(a, b):
    both = edit.add_to(a, b)
    check(both)
    assert both.area == pytest.approx(a.union(b).area, abs=slack(a, b))
    assert both.area == pytest.approx(edit.add_to(b, a).area, abs=slack(a, b))
    assert edit.add_to(a, a).area == pytest.approx(a.area, abs=slack(a))


@given(many_blobs, many_blobs)
def test_what_is_subtracted_and_added_again_is_the_union(a, b):
    assume(a.difference(b).area > 100)
    rest = edit.subtract(a, b)
    check(rest)
    assert rest.area == pytest.approx(a.area - a.intersection(b).area, abs=slack(a, b))
    again = edit.add_to(rest, b)
    assert again.symmetric_difference(a.union(b)).area <= slack(a, b)


@given(many_blobs)
def test_subtracting_all_leaves_nothing_which_is_said(a):
    with pytest.raises(AnnotationError, match=r"^Nothing of the region would be left\.$"):
        edit.subtract(a, a.buffer(1))


@given(st.lists(many_blobs, min_size=1, max_size=4))
def test_merging_covers_all_and_parts_take_it_apart(shapes):
    merged = edit.merge(shapes)
    check(merged)
    assert merged.area == pytest.approx(shapely.union_all(shapes).area, abs=slack(*shapes))
    pieces = edit.parts(merged)
    assert sum(piece.area for piece in pieces) == pytest.approx(merged.area)
    assert [piece.area for piece in pieces] == sorted((p.area for p in pieces), reverse=True)


@given(many_blobs, st.integers(-400, 400))
def test_a_cut_loses_nothing_and_leaves_no_overlap(a, y):
    line = LineString([(-2000, y), (2000, y + 1)])
    assume(a.intersection(line).length > 5)
    pieces = edit.split(a, line)
    assert len(pieces) > 1
    for piece in pieces:
        check(piece)
    assert sum(piece.area for piece in pieces) == pytest.approx(a.area, abs=slack(*pieces))
    for one, other in itertools.combinations(pieces, 2):
        assert one.intersection(other).area <= slack(line) / 10


def test_a_line_through_a_ring_cuts_it_in_two_and_far_parts_stay_with_the_larger():
    ring = box(0, 0, 100, 100).difference(box(40, 40, 60, 60))
    both = MultiPolygon([ring, box(500, 0, 510, 10)])
    larger, smaller = edit.split(both, LineString([(-5, 45), (105, 45)]))
    assert smaller.equals(ring.intersection(box(0, 0, 100, 45)))
    assert larger.equals(shapely.union(ring.intersection(box(0, 45, 100, 100)), both.geoms[1]))


@pytest.mark.parametrize(
    "line", [[(-9, 5), (5, 5)], [(3, 3), (6, 6)], [(50, 0), (50, 9)], [(0, 0), (10, 0)]]
)
def test_a_line_that_cuts_nothing_off_is_refused(line):
    with pytest.raises(AnnotationError, match="does not cut"):
        edit.split(box(0, 0, 10, 10), LineString(line))


def test_holes_are_filled_up_to_a_size_with_what_lies_in_them():
    small, large = box(1, 1, 2, 2), box(10, 10, 40, 40)
    shape = box(0, 0, 50, 50).difference(small).difference(large)
    assert edit.fill_holes(shape).equals(box(0, 0, 50, 50))
    assert edit.fill_holes(shape, 10).equals(box(0, 0, 50, 50).difference(large))
    island = shape.union(box(20, 20, 30, 30))
    assert edit.fill_holes(island).equals(box(0, 0, 50, 50))


@given(many_blobs, st.floats(0.5, 30))
def test_a_simple_outline_lies_near_the_old_one(a, tolerance):
    dense = shapely.segmentize(a, 5)
    simple = edit.simplify(dense, tolerance)
    check(simple)
    assert shapely.get_num_coordinates(simple) <= shapely.get_num_coordinates(dense)
    assert dense.boundary.hausdorff_distance(simple.boundary) <= 2 * tolerance + 5


def test_lines_are_simplified_too():
    line = LineString([(0, 0), (5, 0.1), (10, 0)])
    assert edit.simplify(line, 1) == LineString([(0, 0), (10, 0)])


def test_mending_keeps_both_lobes_and_fills_what_is_gone_round_twice():
    mended = edit.mended(BOW_TIE)
    check(mended)
    assert mended.area == pytest.approx(50)
    t = np.linspace(0, 4 * math.pi, 200, endpoint=False)
    twice = Polygon(np.stack([(50 + t) * np.cos(t), (50 + t) * np.sin(t)], axis=1))
    assert not twice.is_valid
    assert len(edit.mended(twice).interiors) == 0
    good = box(0, 0, 1.005, 1)
    assert edit.mended(good) is good
    with pytest.raises(AnnotationError, match="Nothing of the mended region"):
        edit.mended(Polygon([(0, 0), (5, 5), (9, 9)]))


@given(many_blobs, many_blobs)
def test_clipped_shapes_stay_apart_and_refused_ones_are_named(a, b):
    other = Region(b, classification=class_named("Stroma"))
    if a.intersection(b).area <= slack(a, b):
        return
    with pytest.raises(AnnotationError, match="overlap Region Stroma"):
        edit.exclusive(a, [other], "refuse")
    if a.difference(b).area < 100:
        return
    clipped = edit.exclusive(a, [other], "clip")
    check(clipped)
    assert edit.overlapping(clipped, [other]) == []
    assert clipped.area == pytest.approx(a.difference(b).area, abs=slack(a, b))
    assert edit.exclusive(clipped, [other], "refuse").equals(clipped)


def test_neighbours_do_not_overlap_and_points_have_no_say():
    a = box(0, 0, 10, 10)
    others = [Region(box(10, 0, 20, 10)), Region(Point(5, 5)), Region(box(9, 9, 12, 12))]
    assert edit.overlapping(a, others) == [others[2]]
    with pytest.raises(AnnotationError, match=r"beside Region \(\w+\) would be left"):
        edit.exclusive(a, [Region(box(-1, -1, 11, 11))], "clip")
    with pytest.raises(AnnotationError, match=r"Region \(\w+\) and 1 more"):
        edit.exclusive(a, [Region(box(5, 5, 6, 6)), *others], "refuse")


@pytest.mark.parametrize("wrong", [Point(0, 0), LineString([(0, 0), (1, 1)]), BOW_TIE])
def test_what_has_no_area_or_is_broken_is_refused(wrong):
    good = box(0, 0, 9, 9)
    for refused in (
        lambda: edit.add_to(good, wrong),
        lambda: edit.subtract(wrong, good),
        lambda: edit.merge([good, wrong]),
        lambda: edit.split(wrong, LineString([(0, 5), (10, 5)])),
        lambda: edit.fill_holes(wrong),
        lambda: edit.exclusive(wrong, [], "clip"),
    ):
        with pytest.raises(AnnotationError, match=r"mend it first|has no area"):
            refused()


def test_nothing_to_merge_is_said():
    with pytest.raises(AnnotationError, match="Nothing of the merged regions"):
        edit.merge([])


@given(many_blobs, st.floats(0.001, 3), st.floats(0, 1))
def test_a_valid_shape_stays_valid_on_the_grid(a, factor, shift):
    small = affinity.translate(affinity.scale(a, factor / 100, factor / 100), shift, shift)
    assume(small.is_valid)
    again = edit.on_grid(small)
    xy = shapely.get_coordinates(again)
    assert (xy == np.round(xy, 2)).all()
    assert again.is_valid or small.area < 0.01
    assert edit.on_grid(again).equals_exact(again)


def test_a_shape_below_the_grid_is_only_rounded():
    assert not edit.on_grid(box(0, 0, 0.001, 0.001)).is_empty
    broken = edit.on_grid(BOW_TIE)
    assert broken.equals_exact(BOW_TIE)


@given(st.floats(-720, 720), st.tuples(st.floats(-9, 9), st.floats(-9, 9)))
def test_turning_and_scaling_leave_their_centre(degrees, centre):
    for matrix in (edit.turned_by(degrees, centre), edit.scaled_by((2, -3), centre)):
        moved = affinity.affine_transform(Point(centre), list(matrix))
        assert moved.distance(Point(centre)) < 1e-9
    turned = affinity.affine_transform(box(0, 0, 4, 2), list(edit.turned_by(degrees, centre)))
    assert turned.area == pytest.approx(8)
    scaled = affinity.affine_transform(box(0, 0, 4, 2), list(edit.scaled_by((2, -3), centre)))
    assert scaled.area == pytest.approx(48)


def test_a_quarter_turn_is_clockwise_on_the_screen_and_nothing_is_scaled_to_nothing():
    right = affinity.affine_transform(Point(1, 0), list(edit.turned_by(90, (0, 0))))
    assert (right.x, right.y) == (pytest.approx(0), pytest.approx(1))
    with pytest.raises(AnnotationError, match="by 0"):
        edit.scaled_by((1, 0), (0, 0))
