"""Every tool by real mouse events and keys on the real canvas, and what lies on the disk then."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication
from shapely.geometry import LineString, MultiPoint, Point, Polygon, box

from napari_histomil.annotations import commands
from napari_histomil.annotations.classes import ClassSet
from napari_histomil.annotations.model import Region
from napari_histomil.ui import annotator as annotator_module
from napari_histomil.ui.layers import center_of_view_px0
from napari_histomil.ui.orientation import Orientation, set_orientation
from napari_histomil.ui.session import session

KEY = Qt.Key
NONE, SHIFT = Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ShiftModifier
ALT, CTRL = Qt.KeyboardModifier.AltModifier, Qt.KeyboardModifier.ControlModifier
PIXEL = 3.0
"""A pixel of the screen spans less than so many of the slide, which is shown whole."""


def near(shape, expected, tolerance=PIXEL):
    return shape.hausdorff_distance(expected) <= tolerance * 1.5


# --- drawing ----------------------------------------------------------------------------------


def test_a_journey_each_kind_is_drawn_undone_to_the_first_and_done_again(hand):
    hand.key(KEY.Key_Q)
    assert hand.state.tool == "polygon"
    hand.key(KEY.Key_1)
    corners = [(100, 100), (250, 110), (240, 240)]
    for corner in corners:
        hand.click(corner)
    hand.key(KEY.Key_Return)
    assert near(hand.last.geometry, Polygon(corners))
    assert hand.last.class_name == "Tumor"
    assert hand.state.selected == {hand.last.id}

    hand.key(KEY.Key_2)
    assert hand.state.regions.get(hand.last.id).class_name == "Tumor"  # drawn, and stays so
    hand.key(KEY.Key_F)
    circle = [(500 + 80 * np.cos(a), 200 + 80 * np.sin(a)) for a in np.linspace(0, 6.2, 60)]
    hand.drag(circle)
    assert near(hand.last.geometry, Polygon(circle))
    hand.key(KEY.Key_R)
    hand.drag([(100, 400), (150, 450), (200, 480)])
    assert near(hand.last.geometry, box(100, 400, 200, 480))
    hand.key(KEY.Key_O)
    hand.drag([(300, 400), (350, 450), (400, 480)])
    assert near(hand.last.geometry, Point(0, 0).buffer(1).envelope) is False
    assert np.allclose(hand.last.geometry.bounds, (300, 400, 400, 480), atol=PIXEL)
    assert hand.last.extra.geometry["isEllipse"]
    hand.key(KEY.Key_L)
    for place in [(500, 400), (600, 420), (650, 500)]:
        hand.click(place)
    hand.double((700, 600))
    assert near(hand.last.geometry, LineString([(500, 400), (600, 420), (650, 500), (700, 600)]))
    hand.key(KEY.Key_D)
    hand.click((800, 400))
    assert near(hand.last.geometry, Point(800, 400))
    hand.click((850, 420), SHIFT)
    assert isinstance(hand.last.geometry, MultiPoint)
    hand.key(KEY.Key_B)
    hand.state.brush_um = 40
    hand.drag([(150, 650), (200, 660), (250, 640)])
    stroke = LineString([(150, 650), (200, 660), (250, 640)]).buffer(40)
    assert near(hand.last.geometry, stroke)
    hand.key(KEY.Key_W)
    hand.click((750, 150))
    assert near(hand.last.geometry, box(700, 100, 800, 200), 8)

    texts = []
    while hand.state.regions.can_undo:
        texts.append(hand.state.regions.can_undo)
        hand.undo()
    assert texts == [
        "draw wand", "draw brush", "points", "draw points", "draw line", "draw ellipse",
        "draw rectangle", "draw freehand", "draw polygon",
    ]  # fmt: skip
    assert hand.shapes == []
    for _ in texts:
        hand.redo()
    assert len(hand.shapes) == 8
    assert hand.state.regions.can_redo is None


def test_vertices_are_taken_back_by_ctrl_z_and_backspace_and_escape_gives_up(hand):
    hand.key(KEY.Key_Q)
    hand.key(KEY.Key_P)
    for place in [(100, 100), (300, 100), (300, 300), (600, 600), (700, 50)]:
        hand.click(place)
    hand.undo()
    hand.key(KEY.Key_Backspace)
    hand.key(KEY.Key_Return)
    assert near(hand.last.geometry, Polygon([(100, 100), (300, 100), (300, 300)]))
    hand.click((500, 500))
    hand.click((600, 500))
    hand.key(KEY.Key_Escape)
    assert not hand.drawing.tool.busy
    hand.key(KEY.Key_Return)
    assert len(hand.shapes) == 1
    hand.undo()
    assert hand.shapes == []


def test_alt_takes_away_and_shift_adds_to_the_selected_region_and_so_do_the_modes(hand):
    hand.state.set_tool("rectangle")
    hand.drag([(100, 100), (200, 200), (400, 400)])
    (region_id,) = hand.state.selected
    hand.drag([(200, 200), (250, 250), (300, 300)], ALT)
    holed = hand.last.geometry
    assert len(holed.interiors) == 1
    assert near(holed, box(100, 100, 400, 400) - box(200, 200, 300, 300))
    hand.drag([(600, 100), (650, 150), (700, 200)], SHIFT)
    assert hand.state.selected == {region_id}
    assert len(hand.last.geometry.geoms) == 2  # one region of two parts
    hand.state.mode = "subtract"
    hand.drag([(580, 80), (650, 150), (720, 220)])
    assert near(hand.last.geometry, holed)
    hand.state.mode = "add"
    hand.drag([(190, 190), (250, 250), (310, 310)])
    assert near(hand.last.geometry, box(100, 100, 400, 400))
    hand.state.mode = "new"
    hand.drag([(500, 500), (550, 550), (600, 600)])
    assert len(hand.shapes) == 2


def test_a_brush_goes_on_where_it_begins_in_the_selected_region_and_the_eraser_takes(hand):
    hand.state.set_tool("brush")
    hand.state.brush_um = 50
    hand.drag([(200, 200), (250, 200), (300, 200)])
    hand.drag([(300, 200), (300, 250), (300, 300)])
    assert len(hand.shapes) == 1
    hand.drag([(600, 600), (650, 600), (700, 600)])
    assert len(hand.shapes) == 2
    hand.key(KEY.Key_X)
    area = hand.last.geometry.area
    hand.drag([(650, 600), (651, 600), (652, 600)])
    assert 0 < hand.last.geometry.area < area
    hand.state.select(())
    hand.state.brush_um = 1000
    hand.drag([(500, 400), (505, 400), (510, 400)])  # over all there is
    assert hand.shapes == []
    hand.undo()
    assert len(hand.shapes) == 2


def test_the_brush_has_its_size_from_keys_and_the_wheel_with_ctrl(hand):
    hand.state.set_tool("brush")
    size, zoom = hand.state.brush_um, hand.viewer.scene.camera.zoom
    hand.key(KEY.Key_BracketRight)
    assert hand.state.brush_um == pytest.approx(size * 1.25)
    hand.key(KEY.Key_BracketLeft)
    hand.wheel(2, CTRL)
    assert hand.state.brush_um == pytest.approx(size * 1.25**2)
    assert hand.viewer.scene.camera.zoom == zoom
    hand.wheel(1)
    hand.qtbot.waitUntil(lambda: hand.viewer.scene.camera.zoom > zoom)


@pytest.mark.parametrize("wanted", [Orientation(1, False), Orientation(2, True)])
def test_places_are_right_however_the_view_is_turned(hand, wanted):
    set_orientation(hand.viewer, wanted)
    QApplication.processEvents()
    hand.state.set_tool("rectangle")
    hand.drag([(700, 100), (750, 150), (800, 200)])
    assert near(hand.last.geometry, box(700, 100, 800, 200))
    hand.state.set_tool("wand")
    hand.click((750, 150))
    assert near(hand.last.geometry, box(700, 100, 800, 200), 8)


def test_a_drag_makes_the_wand_more_tolerant(hand):
    hand.state.set_tool("wand")
    hand.press((750, 150))
    assert hand.drawing.tool._area.area < 20_000
    for x in range(740, 300, -40):
        hand.move((x, 150))
        QApplication.processEvents()
    hand.release((300, 150))
    assert hand.last.geometry.area > 700_000


# --- the view while drawing -------------------------------------------------------------------


def test_space_pans_the_wheel_zooms_and_the_edge_scrolls_while_a_polygon_is_drawn(hand):
    hand.wheel(5)
    QApplication.processEvents()
    info = hand.state.slide.info
    hand.state.set_tool("polygon")
    middle = center_of_view_px0(hand.viewer, info)
    first = tuple(hand.at(middle))
    hand.click(middle)
    hand.qtbot.keyPress(hand.canvas, KEY.Key_Space)
    hand.press(middle)
    point = hand.on_canvas(middle)
    hand.move_on_canvas(point + QPoint(60, 40))
    hand.qtbot.mouseRelease(hand.canvas, Qt.MouseButton.LeftButton, NONE, point + QPoint(60, 40))
    hand.qtbot.keyRelease(hand.canvas, KEY.Key_Space)
    assert hand.drawing.tool.gesture.vertices == 1
    moved = np.array(center_of_view_px0(hand.viewer, info)) - middle
    assert moved[0] < 0
    assert moved[1] < 0
    before = center_of_view_px0(hand.viewer, info)
    edge = QPoint(hand.canvas.width() - 3, hand.canvas.height() // 2)
    hand.move_on_canvas(edge, button=Qt.MouseButton.NoButton)
    hand.qtbot.waitUntil(lambda: center_of_view_px0(hand.viewer, info)[0] > before[0] + 5)
    hand.move_on_canvas(point, button=Qt.MouseButton.NoButton)
    stopped = center_of_view_px0(hand.viewer, info)
    hand.qtbot.wait(100)
    assert center_of_view_px0(hand.viewer, info) == stopped
    for corner in [(first[0] + 30, first[1]), (first[0], first[1] + 30)]:
        hand.click(corner)
    hand.key(KEY.Key_Return)
    corner = np.array(hand.last.geometry.exterior.coords)
    assert np.hypot(*(corner - first).T).min() < 0.02


def test_the_middle_button_moves_the_view_with_every_tool(hand):
    info = hand.state.slide.info
    hand.state.set_tool("freehand")
    before = center_of_view_px0(hand.viewer, info)
    hand.press((500, 400), button=Qt.MouseButton.MiddleButton)
    hand.move((400, 400), button=Qt.MouseButton.MiddleButton)
    hand.release((400, 400), button=Qt.MouseButton.MiddleButton)
    assert center_of_view_px0(hand.viewer, info)[0] > before[0] + 50
    assert hand.shapes == []


# --- choosing and changing --------------------------------------------------------------------


@pytest.fixture
def three(hand):
    """Three regions: a large one with a small one in it, and one beside them."""
    state = hand.state
    regions = [
        Region(box(300, 300, 360, 360)),
        Region(box(100, 100, 600, 600), state.classes.named("Region*")),
        Region(box(700, 300, 800, 400)),
    ]
    state.do(commands.add(regions, state.stamp()))
    return [region.id for region in regions]


def test_clicks_and_rectangles_select(hand, three):
    small, large, beside = three
    hand.state.set_tool("select")
    hand.click((330, 330))
    assert hand.state.selected == {small}
    hand.click((330, 330))
    assert hand.state.selected == {large}  # what lies below, at the second click
    hand.click((750, 350), SHIFT)
    assert hand.state.selected == {large, beside}
    hand.click((750, 350), SHIFT)
    assert hand.state.selected == {large}
    hand.click((900, 700))
    assert not hand.state.selected
    hand.drag([(280, 280), (500, 320), (900, 450)])
    assert hand.state.selected == set(three)
    hand.state.set_hidden(["Region*"])
    hand.drag([(280, 280), (500, 320), (650, 450)])
    assert hand.state.selected == {small}
    hand.key(KEY.Key_Delete)
    assert [region.id for region in hand.state.regions] == [large, beside]
    hand.key(KEY.Key_Escape)
    hand.key(KEY.Key_N)
    assert hand.state.selected == {large}


def test_a_number_gives_a_class_to_what_is_selected_whatever_layer_is_active(hand, three):
    hand.state.set_tool("select")
    hand.click((750, 350))
    hand.key(KEY.Key_3)
    assert hand.state.regions.get(three[2]).class_name == "Immune cells"
    hand.viewer.add_labels(np.zeros((8, 8), int))
    assert hand.state.tool == "move"  # the person turned to another layer
    hand.key(KEY.Key_2, ALT)
    assert hand.state.regions.get(three[2]).class_name == "Stroma"
    hand.viewer.layers.pop()


def test_vertices_are_moved_put_in_and_taken_away(hand, three):
    beside = three[2]
    hand.state.set_tool("vertices")
    hand.click((750, 350))
    assert hand.state.selected == {beside}
    hand.drag([(800, 400), (820, 420), (850, 450)])
    shape = hand.state.regions.get(beside).geometry
    moved = Polygon([(700, 300), (800, 300), (850, 450), (700, 400)])
    assert near(shape, moved)
    hand.drag([(750, 300), (750, 280), (750, 250)])
    shape = hand.state.regions.get(beside).geometry
    assert len(shape.exterior.coords) == 6
    assert near(shape, Polygon([(700, 300), (750, 250), (800, 300), (850, 450), (700, 400)]))
    hand.click((850, 450), ALT)
    assert len(hand.state.regions.get(beside).geometry.exterior.coords) == 5
    hand.click((750, 250))
    hand.key(KEY.Key_Delete)
    assert len(hand.state.regions.get(beside).geometry.exterior.coords) == 4
    for _ in range(4):
        hand.undo()
    assert near(hand.state.regions.get(beside).geometry, box(700, 300, 800, 400), 0.01)


def test_what_is_selected_is_moved_scaled_and_turned_by_the_box(hand, three):
    beside = three[2]
    hand.state.set_tool("transform")
    hand.click((750, 350))
    hand.drag([(750, 350), (760, 400), (770, 450)])
    assert near(hand.state.regions.get(beside).geometry, box(720, 400, 820, 500))
    hand.drag([(820, 500), (850, 550), (870, 600)])
    assert near(hand.state.regions.get(beside).geometry, box(720, 400, 870, 600))
    arm = hand.on_canvas((795, 400)) - QPoint(0, 28)
    hand.qtbot.mousePress(hand.canvas, Qt.MouseButton.LeftButton, NONE, arm)
    hand.move((995, 500))
    hand.release((995, 500))
    assert near(hand.state.regions.get(beside).geometry, box(695, 425, 895, 575), 4)


def test_the_handle_that_turns_is_in_its_place_before_the_mouse_moves(hand, three):
    """After taking the tool, selecting something else and each change of the view."""

    def look(shape) -> None:
        QApplication.processEvents()
        x0, y0, x1, _ = shape.bounds
        expected = hand.on_canvas(((x0 + x1) / 2, y0)) - QPoint(0, 28)
        place = hand.drawing.tool.preview.handles[-1]
        assert (hand.on_canvas(place) - expected).manhattanLength() <= 2
        painted = hand.drawing.overlay.grab().toImage()
        ratio = painted.devicePixelRatio()
        seen = painted.pixelColor(round(expected.x() * ratio), round(expected.y() * ratio))
        assert seen.getRgb() == (255, 255, 255, 255)

    first, _, beside = (hand.state.regions.get(each) for each in three)
    hand.state.select([beside.id])
    hand.state.set_tool("transform")
    look(beside.geometry)
    hand.state.select([first.id])
    look(first.geometry)
    camera = hand.viewer.scene.camera
    camera.zoom *= 1.5
    look(first.geometry)
    camera.center = (camera.center[-2] + 20, camera.center[-1])
    look(first.geometry)
    arm = hand.on_canvas(tuple(hand.drawing.tool.preview.handles[-1]))
    hand.qtbot.mousePress(hand.canvas, Qt.MouseButton.LeftButton, NONE, arm)
    assert hand.drawing.tool.busy
    hand.qtbot.mouseRelease(hand.canvas, Qt.MouseButton.LeftButton, NONE, arm)
    assert hand.state.regions.get(first.id) == first


def test_a_line_splits_what_is_selected(hand, three):
    hand.state.set_tool("split")
    hand.state.select([three[2]])
    hand.drag([(680, 350), (750, 350), (820, 350)])
    assert len(hand.shapes) == 4
    assert len(hand.state.selected) == 2
    hand.undo()
    assert len(hand.shapes) == 3


def test_the_ruler_measures_and_changes_nothing(hand):
    hand.state.set_tool("ruler")
    hand.drag([(100, 100), (200, 100), (300, 100)])
    preview = hand.drawing.tool.preview
    assert float(preview.text.removesuffix(" µm")) == pytest.approx(100, abs=2)
    assert hand.state.keeper is None  # nothing lies beside a slide that was only looked at


def test_exclusive_classes_clip_or_refuse(hand, monkeypatch):
    shown = []
    monkeypatch.setattr(
        annotator_module, "show_error", lambda error, parent=None, info=None: shown.append(error)
    )
    hand.state.set_classes(ClassSet(exclusive=(frozenset({"Tumor", "Stroma"}),)))
    hand.state.set_tool("rectangle")
    hand.key(KEY.Key_1)
    hand.drag([(100, 100), (200, 200), (300, 300)])
    hand.key(KEY.Key_2)
    hand.drag([(200, 100), (300, 200), (500, 300)])
    tumor, stroma = hand.state.regions
    assert tumor.geometry.intersection(stroma.geometry).area < 1
    assert near(stroma.geometry, box(300, 100, 500, 300))
    hand.state.overlaps = "refuse"
    hand.drag([(250, 100), (300, 200), (550, 300)])
    assert len(hand.shapes) == 2
    assert "exclusive" in str(shown[0])


def test_a_shape_of_nothing_is_told_and_not_drawn(hand, monkeypatch):
    told = []
    monkeypatch.setattr(annotator_module, "show_info", told.append)
    hand.state.set_tool("freehand")
    hand.drag([(100, 100), (200, 100), (300, 100)])
    assert hand.shapes == []
    assert told
    assert not hand.drawing.tool.busy


# --- what is seen -----------------------------------------------------------------------------


def test_the_picture_shows_a_region_soon_after_it_was_drawn_and_follows_the_view(hand):
    hand.state.set_tool("rectangle")
    hand.drag([(100, 100), (200, 200), (400, 400)])
    hand.state.select(())
    hand.settle()
    layer = hand.layers.picture
    row, col = (round(v) for v in layer.world_to_data((125.0, 125.0)))  # µm: 250, 250 px
    assert layer.data[row, col, 3] > 0
    hand.wheel(6)
    hand.settle()
    row, col = (round(v) for v in layer.world_to_data((125.0, 125.0)))
    if 0 <= row < layer.data.shape[0] and 0 <= col < layer.data.shape[1]:
        assert layer.data[row, col, 3] > 0
    hand.undo()
    hand.settle()
    assert not layer.data.any()


def test_the_layers_come_again_when_they_are_taken_away(hand):
    hand.state.set_tool("rectangle")
    hand.drag([(100, 100), (200, 200), (400, 400)])
    hand.settle()
    hand.viewer.layers.remove(hand.layers.picture)
    hand.drag([(500, 100), (600, 200), (650, 300)])
    hand.settle()
    assert hand.layers.picture in hand.viewer.layers
    assert hand.layers.picture.data.any()


def test_another_slide_has_its_own_regions(hand, write_slide):
    hand.state.set_tool("rectangle")
    hand.drag([(100, 100), (200, 200), (400, 400)])
    hand.settle()
    first = hand.state.slide
    session(hand.viewer).open_slide(write_slide(np.full((500, 500, 3), 9, np.uint8), "other.tiff"))
    assert hand.shapes == []
    assert not hand.state.selected
    hand.settle()
    assert not hand.layers.picture.data.any()
    session(hand.viewer).show_only(first)
    assert len(hand.shapes) == 1
    hand.settle()
    assert hand.layers.picture.data.any()
