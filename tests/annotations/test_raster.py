"""Regions -> mask: which pixel belongs to what, whatever the bands."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

from napari_histomil.annotations import raster
from napari_histomil.annotations.masks import LabelTable, MaskGrid
from napari_histomil.annotations.model import Region, class_named
from napari_histomil.errors import AnnotationError

TUMOR, STROMA = class_named("Tumor"), class_named("Stroma")
WHERE, IGNORED = class_named("Region*"), class_named("Ignore*")
TABLE = LabelTable.of([TUMOR, STROMA])


def paint(regions, grid, *, rows=None, table=TABLE, **options):
    painting = raster.prepare(regions, grid, table, **options)
    return np.concatenate(list(raster.bands(painting, rows)))


def grid_of(columns, rows, pixel=(1.0, 1.0)):
    return MaskGrid(columns, rows, pixel)


# --- which pixels -----------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
def test_a_pixel_is_inside_if_its_centre_is(reverse):
    shape = box(0.6, 1.4, 3.4, 3.6)
    region = Region(shapely.reverse(shape) if reverse else shape, TUMOR)
    mask = paint([region], grid_of(5, 5))
    expected = np.full((5, 5), 255)
    expected[1:4, 1:3] = 1  # centres 1.5 and 2.5; rows 1.5, 2.5 and 3.5
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_centre_on_the_outline_belongs_to_the_left_and_the_upper_edge(reverse):
    outer, hole = box(0.5, 0.5, 5.5, 5.5), box(2.5, 2.5, 4.5, 4.5)
    turn = shapely.reverse if reverse else (lambda shape: shape)
    region = Region(Polygon(turn(outer).exterior, [turn(hole).exterior]), TUMOR)
    mask = paint([region], grid_of(7, 7), fully_annotated=True)
    expected = np.zeros((7, 7))
    expected[0:5, 0:5] = 1
    expected[2:4, 2:4] = 0
    np.testing.assert_array_equal(mask, expected)


def test_shapes_that_share_edges_through_centres_share_no_pixel_and_leave_none_out():
    square = box(0.5, 0.5, 8.5, 8.5)
    cuts = [LineString([(0.5, 0.5), (8.5, 8.5)]), LineString([(0.5, 8.5), (8.5, 0.5)])]
    cuts += [LineString([(4.5, 0), (4.5, 9)]), LineString([(0, 4.5), (9, 4.5)])]
    cuts += [LineString([(0.5, 2.5), (8.5, 6.5)])]
    pieces = shapely.get_parts(shapely.polygonize([shapely.union_all([square.boundary, *cuts])]))
    assert len(pieces) > 8
    counts = np.zeros((10, 10), int)
    for piece in pieces:
        counts += paint([Region(piece, TUMOR)], grid_of(10, 10)) == 1
    np.testing.assert_array_equal(counts, paint([Region(square, TUMOR)], grid_of(10, 10)) == 1)


@st.composite
def stars(draw):
    """Polygons around a centre, with or without a hole, at coordinates of two decimals."""
    count = draw(st.integers(3, 30))
    center = [draw(st.integers(-500, 4500)) / 100 for _ in range(2)]
    radii = draw(st.lists(st.integers(200, 3000), min_size=count, max_size=count))
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False) + 0.1
    way = np.c_[np.cos(angle), np.sin(angle)]
    shell = np.round(center + way * np.array(radii)[:, None] / 100, 2)
    hole = np.round(center + way * min(radii) / 400, 2)
    shape = Polygon(shell, [hole] if draw(st.booleans()) else None)
    return shape if shape.is_valid else box(*shape.bounds)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(stars(), min_size=1, max_size=5),
    st.tuples(st.floats(0.31, 3.7), st.floats(0.31, 3.7)),
    st.integers(1, 40),
)
def test_every_pixel_is_what_its_centre_says_in_bands_of_any_height(shapes, pixel, rows):
    grid = grid_of(37, 41, pixel)
    regions = [Region(s, (TUMOR, STROMA)[i % 2]) for i, s in enumerate(shapes)]
    mask = paint(regions, grid, rows=rows)
    y, x = np.indices(grid.shape) + 0.5
    x, y = x * pixel[0], y * pixel[1]
    expected = np.full(grid.shape, 255)
    near = np.zeros(grid.shape, bool)  # centres nearer to an outline than arithmetic can tell
    for i, shape in enumerate(shapes):
        expected[shapely.contains_xy(shape, x, y)] = 1 + i % 2
        near |= shapely.distance(shape.boundary, shapely.points(x, y)) < 1e-5
    np.testing.assert_array_equal(mask[~near], expected[~near])
    np.testing.assert_array_equal(mask, paint(regions, grid))


def test_fractional_pixels_do_not_drift():
    pixel = 2 / 0.499  # 4.008 level-0 pixels
    grid = grid_of(20_000, 3, (pixel, pixel))
    edges = np.arange(0, 20_001, 100) * pixel
    stripes = [
        Region(box(a, 0, b, 99), TUMOR) for a, b in zip(edges[::2], edges[1::2], strict=False)
    ]
    mask = paint(stripes, grid)
    expected = np.where(np.arange(20_000) // 100 % 2 == 0, 1, 255)
    np.testing.assert_array_equal(mask[1], expected)


def test_a_window_is_the_same_pixels_as_the_bands():
    rng = np.random.default_rng(0)
    shapes = [Point(x, y).buffer(r) for x, y, r in rng.uniform(5, 60, (20, 3))]
    painting = raster.prepare(
        [Region(s, TUMOR) for s in shapes] + [Region(box(0, 0, 70, 70), WHERE)],
        grid_of(50, 40, (1.7, 1.3)),
        TABLE,
    )
    whole = np.concatenate(list(raster.bands(painting)))
    np.testing.assert_array_equal(raster.window(painting, (11, 7), (20, 13)), whole[7:20, 11:31])
    assert (raster.window(painting, (90, 90), (3, 3)) == 255).all()


def test_a_polygon_that_spans_the_bands_with_all_its_vertices_outside_is_filled():
    mask = paint([Region(box(-1000, -1000, 1000, 3000), TUMOR)], grid_of(10, 2000), rows=7)
    assert (mask == 1).all()


def test_bands_are_small_whatever_the_slide():
    assert raster.band_rows(grid_of(25_000, 20_000)) == 1024
    assert raster.band_rows(grid_of(400_000, 10)) == 512
    assert raster.band_rows(grid_of(10, 10)) == 2048
    painting = raster.prepare([], grid_of(3, 5000), TABLE)
    assert [len(band) for band in raster.bands(painting)] == [2048, 2048, 904]


# --- what is painted --------------------------------------------------------------------------


def test_not_annotated_is_background_only_within_region():
    regions = [
        Region(box(0, 0, 4, 4), WHERE),
        Region(box(1, 1, 2, 2), TUMOR),
        Region(box(3, 0, 4, 4), IGNORED),
        Region(box(5, 5, 6, 6), STROMA),
    ]
    expected = np.full((7, 7), 255)
    expected[:4, :4] = 0
    expected[:4, 3] = 255
    expected[1, 1], expected[5, 5] = 1, 2
    np.testing.assert_array_equal(paint(regions, grid_of(7, 7)), expected)
    # The order of drawing does not hide what is drawn below a Region*, nor show the ignored.
    np.testing.assert_array_equal(paint(regions[::-1], grid_of(7, 7)), expected)


def test_without_region_nothing_is_background_unless_all_was_annotated():
    regions = [Region(box(1, 1, 2, 2), TUMOR)]
    painting = raster.prepare(regions, grid_of(3, 3), TABLE)
    assert painting.notes == (
        "There is no Region*: all that is outside of the regions is unlabelled.",
    )
    assert set(np.unique(paint(regions, grid_of(3, 3)))) == {1, 255}
    assert set(np.unique(paint(regions, grid_of(3, 3), fully_annotated=True))) == {0, 1}


def test_overlap_goes_to_the_later_drawn_or_to_the_later_class():
    regions = [Region(box(0, 0, 3, 1), STROMA), Region(box(2, 0, 5, 1), TUMOR)]
    grid = grid_of(5, 1)
    assert paint(regions, grid).tolist() == [[2, 2, 1, 1, 1]]
    assert paint(regions[::-1], grid).tolist() == [[2, 2, 2, 1, 1]]
    for order in (regions, regions[::-1]):
        assert paint(order, grid, priority="classes").tolist() == [[2, 2, 2, 1, 1]]


def test_parts_and_holes_are_one_region():
    ring = box(0, 0, 5, 5).difference(box(1, 1, 4, 4))
    region = Region(MultiPolygon([ring, box(2, 2, 3, 3)]), TUMOR)
    expected = np.ones((5, 5))
    expected[1:4, 1:4] = 255
    expected[2, 2] = 1
    np.testing.assert_array_equal(paint([region], grid_of(5, 5)), expected)


def test_children_are_painted_over_their_parents():
    child = Region(box(1, 0, 2, 1), STROMA)
    parent = Region(box(0, 0, 3, 1), TUMOR, children=(child,))
    assert paint([parent], grid_of(3, 1)).tolist() == [[1, 2, 1]]


def test_what_is_not_in_the_mask_is_told():
    regions = [
        Region(Point(1, 1), TUMOR),
        Region(LineString([(0, 0), (3, 3)])),
        Region(box(0, 0, 1, 1), class_named("Necrosis")),
        Region(box(1, 0, 2, 1)),
        Region(box(0, 0, 4, 1), object_type="tile"),
        Region(box(0, 0, 4, 1), WHERE),
        Region(Polygon(), STROMA),
    ]
    painting = raster.prepare(regions, grid_of(4, 1), TABLE)
    assert set(painting.notes) == {
        "2 points and lines have no area: not in the mask.",
        "1 regions have no class: what they cover is unlabelled.",
        "1 tiles, cells or cores have no class: not in the mask.",
        "1 regions of class Necrosis are left out.",
    }
    assert raster.window(painting, (0, 0), (4, 1)).tolist() == [[0, 255, 0, 0]]


def test_a_broken_shape_is_refused_or_mended_on_request():
    bow_tie = Polygon([(0, 0), (4, 4), (4, 0), (0, 4)])
    region = Region(bow_tie, TUMOR, name="R1")
    with pytest.raises(AnnotationError, match=r"'R1' Tumor .* crosses itself near x = 2, y = 2"):
        raster.prepare([region], grid_of(4, 4), TABLE)
    painting = raster.prepare([region], grid_of(4, 4), TABLE, mend=True)
    assert "It was mended for the mask." in painting.notes[0]
    mask = raster.window(painting, (0, 0), (4, 4))
    # A triangle on the left and one on the right; of centres on an outline, left edges' count.
    assert mask.tolist()[:2] == [[255, 255, 255, 1], [1, 255, 1, 1]]


def test_more_classes_than_a_byte_holds_give_two_bytes():
    classes = [class_named(f"class {i}") for i in range(300)]
    table = LabelTable.of(classes)
    mask = paint([Region(box(0, 0, 1, 1), classes[299])], grid_of(2, 1), table=table)
    assert mask.dtype == np.uint16
    assert mask.tolist() == [[300, 65535]]


def test_nothing_drawn_is_nothing_known():
    assert (paint([], grid_of(3, 2)) == 255).all()
