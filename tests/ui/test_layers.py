"""Placement: slide, heatmap and polygons agree to the half pixel, at every level."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Shapes

from napari_histomil.geometry import Rect
from napari_histomil.tiling import GridSpec, TileGrid
from napari_histomil.ui.layers import (
    center_of_view_px0,
    corner_um,
    heatmap_layer,
    ours,
    pixel_um,
    polygons_layer,
    rect_in_view_px0,
    shapes_to_px0,
    slide_layer,
    slide_of,
    to_px0,
    to_world_um,
)

ANISOTROPIC = (0.5, 0.25)


def edges_um(layer, data_shape, factor=1.0):
    """World edges [(top, left), (bottom, right)] of the pixels of one level of a layer."""
    first = np.array(layer.data_to_world((-0.5, -0.5)))  # of level 0, which all levels share
    step = np.array(layer.scale) * factor
    return np.array([first, first + step * data_shape])


@pytest.fixture
def slide(array_slide, checkered):
    return array_slide(checkered, ANISOTROPIC)


@pytest.fixture
def slide_image(slide):
    data, attributes, kind = slide_layer(slide)
    assert kind == "image"
    return ViewerModel().add_image(data, **attributes)


def test_slide_layer_begins_at_the_corner_and_spans_micrometres(slide_image):
    top_left = slide_image.data_to_world((-0.5, -0.5))
    np.testing.assert_allclose(top_left, (0, 0), atol=1e-12)
    # The outer corner of pixel (row 511, column 639).
    np.testing.assert_allclose(
        slide_image.data_to_world((511.5, 639.5)), (512 * 0.25, 640 * 0.5), atol=1e-9
    )
    assert [str(unit) for unit in slide_image.units] == ["micrometer", "micrometer"]
    assert slide_image.axis_labels == ("y", "x")


def test_levels_are_exact_factors_so_that_padding_shifts_nothing(slide_image):
    shapes = np.array([level.shape[:2] for level in slide_image.data])
    assert len(shapes) > 3
    for index, factors in enumerate(slide_image.downsample_factors):
        assert tuple(factors) == (2.0**index, 2.0**index)
        assert tuple(shapes[index] * 2**index) == tuple(shapes[0])


def test_every_level_holds_the_same_place(slide_image):
    """The red rectangle's edges lie on multiples of 128 px, so on pixel edges of 7 levels."""
    for level, data in enumerate(slide_image.data):
        factor = 2**level
        red = np.all(np.asarray(data) == (200, 0, 0), axis=2)
        rows, columns = np.nonzero(red)
        first, last = slide_image.data_to_world((-0.5, -0.5)), np.array(slide_image.scale)
        top_left = first + last * factor * (rows.min(), columns.min())
        bottom_right = first + last * factor * (rows.max() + 1, columns.max() + 1)
        np.testing.assert_allclose(top_left, (256 * 0.25, 384 * 0.5), atol=1e-9)
        np.testing.assert_allclose(bottom_right, (512 * 0.25, 640 * 0.5), atol=1e-9)


def test_heatmap_cell_lies_under_its_tile(slide, slide_image):
    grid = TileGrid.cover(slide.info, GridSpec(mpp=1.0, tile_px=96, stride_px=64))
    data, attributes, kind = heatmap_layer(
        np.zeros(grid.shape, np.float32), pixel_um=(grid.spec.cell_um,) * 2, name="scores"
    )
    assert kind == "image"
    heatmap = ViewerModel().add_image(data, **attributes)
    index = int(np.flatnonzero((grid.cells == (1, 3)).all(axis=1))[0])
    x, y, width, height = grid.cell_rects_px0[index]
    corners = np.array([(x, y), (x + width, y + height)])
    np.testing.assert_allclose(heatmap.data_to_world((0.5, 2.5)), (64, 192))
    for cell_corner, px0_corner in zip([(0.5, 2.5), (1.5, 3.5)], corners, strict=True):
        world = heatmap.data_to_world(cell_corner)
        np.testing.assert_allclose(world, to_world_um(px0_corner, slide.info), atol=1e-9)
        # The same place in the slide's own data, whose pixel edges lie at halves.
        np.testing.assert_allclose(
            slide_image.world_to_data(world), px0_corner[::-1] - 0.5, atol=1e-9
        )


def test_heatmap_that_begins_anywhere_says_where():
    data, attributes, _ = heatmap_layer(
        np.zeros((2, 3), np.float32), pixel_um=(10, 20), corner_um=(5, 7), name="attention"
    )
    layer = ViewerModel().add_image(data, **attributes)
    np.testing.assert_allclose(layer.data_to_world((-0.5, -0.5)), (5, 7))
    np.testing.assert_allclose(layer.data_to_world((1.5, 2.5)), (25, 67))
    assert (pixel_um(layer), corner_um(layer)) == ((10, 20), (5, 7))


def test_polygons_lie_on_the_slide_and_come_back(slide):
    box = shapely.box(384, 256, 640, 512)
    hole = shapely.box(400, 300, 420, 330)
    ringed = box.difference(hole)
    data, attributes, kind = polygons_layer([box, ringed], slide.info, name="tumour")
    assert kind == "shapes"
    layer = ViewerModel().add_shapes(data, **attributes)
    assert layer.nshapes == 2
    extent = layer.extent.world
    np.testing.assert_allclose(extent[0], (64, 192), atol=0.2)  # napari adds the line's width
    np.testing.assert_allclose(extent[1], (128, 320), atol=0.2)
    back = shapes_to_px0(layer, slide.info)
    assert len(back) == 2
    assert back[0].symmetric_difference(box).area < 1e-6
    assert back[1].symmetric_difference(ringed).area < 1e-6
    assert len(back[1].interiors) == 1


def test_several_holes_come_back(slide):
    ringed = shapely.box(0, 0, 900, 900)
    for x in (100, 300, 500, 700):
        ringed = ringed.difference(shapely.box(x, x, x + 50, x + 90))
    data, attributes, _ = polygons_layer([ringed], slide.info, name="rings")
    (back,) = shapes_to_px0(Shapes(data, **attributes), slide.info)
    assert back.symmetric_difference(ringed).area < 1e-6
    assert len(back.interiors) == 4


def test_all_kinds_of_shapes(slide):
    layer = Shapes(scale=(0.25, 0.5), units=("um", "um"))
    square = np.array([(10, 20), (10, 60), (50, 60), (50, 20)])
    layer.add(square, shape_type="rectangle")
    layer.add(square, shape_type="ellipse")
    layer.add(np.array([(0, 0), (0, 40), (30, 0)]), shape_type="path")
    layer.add(np.array([(0, 0), (100, 100)]), shape_type="line")
    hourglass = np.array([(0, 0), (0, 10), (10, 0), (10, 10)])
    layer.add(hourglass, shape_type="polygon")
    polygons = shapes_to_px0(layer, slide.info)
    areas = [polygon.area for polygon in polygons]
    assert areas[0] == pytest.approx(1600)
    assert areas[1] == pytest.approx(np.pi * 400, rel=1e-3)
    assert polygons[1].centroid.coords[0] == pytest.approx((40, 30))
    assert areas[2] == pytest.approx(600)
    assert areas[3:] == [pytest.approx(25), pytest.approx(25)]  # its halves


def test_only_selected_shapes(slide):
    layer = Shapes(scale=(0.25, 0.5), units=("um", "um"))
    for x in (0, 100, 200):
        layer.add(np.array([(0, x), (0, x + 10), (10, x + 10), (10, x)]), shape_type="rectangle")
    layer.selected_data = {2, 0}
    lefts = [polygon.bounds[0] for polygon in shapes_to_px0(layer, slide.info, selected_only=True)]
    assert lefts == [0, 200]


def test_shapes_of_a_layer_made_by_hand_are_adopted_through_its_transform(slide):
    """A layer in millimetres, rotated by a quarter and moved, in a three-dimensional world."""
    layer = Shapes(
        np.array([(0, 0), (0, 2), (1, 2), (1, 0)], float) / 10,
        shape_type="polygon",
        rotate=90,
        translate=(0.1, 0.3),
        units=("mm", "mm"),
    )
    (polygon,) = shapes_to_px0(layer, slide.info)
    world_um = np.array([layer.data_to_world(vertex) for vertex in layer.data[0]]) * 1000
    expected = shapely.Polygon(to_px0(world_um, slide.info))
    assert polygon.area == pytest.approx(0.02e6 / (0.5 * 0.25))
    assert polygon.symmetric_difference(expected).area < 1e-6


def test_shapes_in_pixels_on_a_slide_without_scale(array_slide, checkered):
    info = array_slide(checkered, None).info
    layer = Shapes(np.array([(5, 7), (5, 17), (15, 17), (15, 7)]), shape_type="rectangle")
    (polygon,) = shapes_to_px0(layer, info)
    assert polygon.bounds == (7, 5, 17, 15)


def test_slide_without_scale_is_shown_in_pixels(array_slide, checkered):
    data, attributes, _ = slide_layer(array_slide(checkered, None))
    layer = ViewerModel().add_image(data, **attributes)
    assert [str(unit) for unit in layer.units] == ["pixel", "pixel"]
    np.testing.assert_allclose(layer.data_to_world((511.5, 639.5)), (512, 640))


@given(
    x=st.floats(-1e6, 1e6), y=st.floats(-1e6, 1e6),
    mpp_x=st.floats(0.01, 100), mpp_y=st.floats(0.01, 100),
)  # fmt: skip
def test_world_and_px0_are_inverse(x, y, mpp_x, mpp_y):
    from types import SimpleNamespace

    info = SimpleNamespace(mpp_x=mpp_x, mpp_y=mpp_y)
    world = to_world_um((x, y), info)
    np.testing.assert_allclose(world, (y * mpp_y, x * mpp_x))
    np.testing.assert_allclose(to_px0(world, info), (x, y), atol=1e-6)
    np.testing.assert_allclose(to_px0([7.0, *world], info), (x, y), atol=1e-6)


def test_metadata_lead_back_to_the_slide(slide, slide_image):
    assert slide_of(slide_image) is slide
    other = ViewerModel().add_image(np.zeros((4, 4)))
    assert slide_of(other) is None
    assert ours(other) == {}


def test_view_in_px0(slide, slide_image):
    viewer = ViewerModel()
    viewer.canvas.size = (400, 600)
    viewer.scene.camera.zoom = 4.0  # screen pixels a µm: the canvas shows 100 x 150 µm
    viewer.scene.camera.center = (0, 64.0, 192.0)
    assert center_of_view_px0(viewer, slide.info) == pytest.approx((384, 256))
    seen = rect_in_view_px0(viewer, slide.info)
    assert seen == Rect(234.0, 56.0, 300.0, 400.0)
    viewer.scene.camera.center = (0, 0.0, 0.0)
    assert rect_in_view_px0(viewer, slide.info) == Rect(0, 0, 150.0, 200.0)
    viewer.scene.camera.center = (0, -1000.0, 0.0)
    assert rect_in_view_px0(viewer, slide.info) is None
