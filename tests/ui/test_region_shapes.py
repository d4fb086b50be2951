"""Regions as napari's shapes and back: holes, parts, a person's own layer, edits in ours."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Shapes
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

from napari_histomil.annotations import commands
from napari_histomil.annotations.model import Region, class_named
from napari_histomil.ui.adopting import adopt
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.region_layers import region_layers
from napari_histomil.ui.region_shapes import as_shapes_layer, shapes_as_geometries
from napari_histomil.ui.session import session

WHITE = np.full((800, 1000, 3), 255, np.uint8)

RING = Polygon(
    [(100, 100), (300, 100), (300, 250), (100, 250)],
    [[(150, 150), (200, 150), (200, 200), (150, 200)]],
)
PARTS = MultiPolygon([box(400, 100, 450, 160), box(500, 300, 600, 380)])


@pytest.fixture
def viewer(qapp, write_slide):
    viewer = ViewerModel()
    viewer.canvas.size = (400, 500)
    session(viewer).open_slide(write_slide(WHITE))
    yield viewer
    annotator(viewer).close()
    viewer.layers.clear()


@pytest.mark.parametrize("mpp", [(0.5, 0.5), (0.25, 0.5), None])
def test_regions_are_ordinary_shapes_and_come_back_the_same(array_slide, mpp):
    info = array_slide(WHITE, mpp).info
    regions = [
        Region(RING, class_named("Tumor")),
        Region(PARTS, class_named("Stroma")),
        Region(LineString([(0, 0), (50, 20), (70, 90)])),
        Region(Point(5, 5)),
    ]
    data, attributes, kind = as_shapes_layer(regions, info)
    assert kind == "shapes"
    back = shapes_as_geometries(Shapes(data, **attributes), info)
    assert [name for _, name in back] == ["Tumor", "Stroma", None]  # napari's shapes know no point
    for (shape, _), region in zip(back, regions, strict=False):
        assert shape.equals(region.geometry)
        assert shape.geom_type == region.geometry.geom_type


def test_a_layer_drawn_by_hand_is_adopted_through_its_own_transform(viewer):
    layer = viewer.add_shapes(
        [np.array([(0, 0), (0, 10), (10, 10), (10, 0)]), np.array([(20, 20), (30, 40)])],
        shape_type=["rectangle", "line"],
        scale=(2, 2),
        translate=(50, 100),
        units=("um", "um"),
        features={"class": ["Necrosis", ""]},
    )
    state = annotator(viewer)
    state.set_class("Tumor")
    ids = adopt(state, layer)
    first, second = state.regions.pick(ids)
    assert first.geometry.equals(box(200, 100, 240, 140))  # 0.5 µm/px
    assert (first.class_name, second.class_name) == ("Necrosis", "Tumor")
    assert list(second.geometry.coords) == [(280, 180), (360, 220)]
    assert not layer.visible
    assert state.selected == set(ids)
    state.undo()
    assert len(state.regions) == 0


def test_what_is_changed_with_napari_s_buttons_is_a_step(viewer, qtbot):
    state, shown = annotator(viewer), region_layers(viewer)
    tumor = Region(RING, class_named("Tumor"))
    parts = Region(PARTS)
    state.do(commands.add([tumor, parts], state.stamp()))
    layer = shown.shapes_layer()
    qtbot.waitUntil(lambda: layer.nshapes == 3)
    assert list(layer.features["class"]) == ["Tumor", "", ""]
    layer.add(np.array([(600, 700), (600, 800), (700, 800)]), shape_type="polygon")
    assert len(state.regions) == 3
    assert list(state.regions)[-1].geometry.equals(Polygon([(700, 600), (800, 600), (800, 700)]))
    qtbot.waitUntil(lambda: shown.complete and layer.nshapes == 4)
    layer.selected_data = {1}
    layer.remove_selected()
    assert state.regions.get(parts.id).geometry.equals(box(500, 300, 600, 380))
    qtbot.waitUntil(lambda: shown.complete and layer.nshapes == 3)
    layer.selected_data = {0}
    layer.remove_selected()
    assert tumor.id not in state.regions
    for _ in range(4):
        state.undo()
    assert len(state.regions) == 0
    qtbot.waitUntil(lambda: layer.nshapes == 0)


def test_many_in_view_are_a_picture_only_but_for_the_selected(viewer, qtbot):
    state, shown = annotator(viewer), region_layers(viewer)
    regions = [
        Region(box(x, y, x + 6, y + 6)) for x in range(0, 900, 20) for y in range(0, 700, 20)
    ]
    state.do(commands.add(regions, state.stamp()))
    layer = shown.shapes_layer()
    qtbot.waitUntil(lambda: shown.complete and shown.picture is not None)
    assert layer.nshapes == 0
    state.select([regions[7].id])
    qtbot.waitUntil(lambda: shown.complete and layer.nshapes == 1)
    assert list(layer.features["region"]) == [regions[7].id]
