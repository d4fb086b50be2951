"""The view in all eight states: every place appears where it must, no coordinate changes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QPoint, Qt
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QApplication, QLabel

from napari_histomil.geometry import Rect
from napari_histomil.slides.readers import open_slide
from napari_histomil.ui import camera
from napari_histomil.ui.layers import (
    center_of_view_px0,
    rect_in_view_px0,
    shapes_to_px0,
    slide_layer,
    to_px0,
    to_world_um,
)
from napari_histomil.ui.orientation import (
    STRAIGHT,
    Orientation,
    canvas_step,
    center_of_world,
    orientation_of,
    set_orientation,
    world_step,
)
from napari_histomil.ui.overlays import LOOK_CLOSELY, overlays
from napari_histomil.ui.painting import painting
from napari_histomil.ui.session import session
from napari_histomil.ui.widgets.minimap import canvas_of
from napari_histomil.ui.widgets.overlay import OverlayWidget

ALL = [Orientation(turns, mirrored) for turns in range(4) for mirrored in (False, True)]
IDS = [each.text or "straight" for each in ALL]

RIGHT_OF = {  # what lies to the right of the middle on the screen, of the slide: (x, y)
    "": (1, 0),
    "turned 90° right": (0, -1),  # the slide's upper edge is on the right then
    "turned 180°": (-1, 0),
    "turned 90° left": (0, 1),
    "mirrored left-right": (-1, 0),
    "turned 90° right, mirrored": (0, 1),
    "mirrored up-down": (1, 0),
    "turned 90° left, mirrored": (0, -1),
}
BELOW = {
    "": (0, 1),
    "turned 90° right": (1, 0),
    "turned 180°": (0, -1),
    "turned 90° left": (-1, 0),
    "mirrored left-right": (0, 1),
    "turned 90° right, mirrored": (1, 0),
    "mirrored up-down": (0, -1),
    "turned 90° left, mirrored": (-1, 0),
}


def flat_viewer(slide) -> ViewerModel:
    viewer = ViewerModel()
    viewer.canvas.size = (400, 600)
    data, attributes, _ = slide_layer(slide)
    viewer.add_image(data, **attributes)
    return viewer


def test_eight_states_and_their_names():
    assert len({each.text for each in ALL}) == 8
    assert STRAIGHT.text == ""
    for each in ALL:
        assert Orientation.from_matrix(each.matrix) == each
        assert each.turned(1).turned(-1) == each.turned(4) == each
        assert each.mirrored_left_right().mirrored_left_right() == each
        assert each.mirrored_left_right().mirrored_up_down() == each.turned(2)
    assert STRAIGHT.turned(1) == Orientation(1)
    assert Orientation(1).mirrored_left_right() == Orientation(1, mirrored=True)
    with pytest.raises(ValueError, match="no quarter turn"):
        Orientation.from_matrix(np.array([[1, 1], [0, 1]]))


@pytest.mark.parametrize("wanted", ALL, ids=IDS)
def test_the_middle_and_the_zoom_stay_and_steps_go_where_they_must(array_slide, checkered, wanted):
    slide = array_slide(checkered, (0.5, 0.25))
    viewer = flat_viewer(slide)
    viewer.scene.camera.zoom = 2.5
    camera.go_to_px0(viewer, slide.info, (310, 520))
    set_orientation(viewer, wanted)
    assert orientation_of(viewer) == wanted
    assert viewer.scene.camera.zoom == 2.5
    assert center_of_view_px0(viewer, slide.info) == pytest.approx((310, 520))
    for step, expected in (((25, 0), RIGHT_OF), ((0, 25), BELOW)):
        moved = world_step(viewer, step)
        x, y = expected[wanted.text]
        np.testing.assert_allclose(moved, (10 * y, 10 * x), atol=1e-9)
        np.testing.assert_allclose(canvas_step(viewer, moved), step, atol=1e-9)
    many = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    np.testing.assert_allclose(canvas_step(viewer, world_step(viewer, many)), many)
    camera.go_to_px0(viewer, slide.info, (700, 100))
    assert center_of_view_px0(viewer, slide.info) == pytest.approx((700, 100))
    np.testing.assert_allclose(center_of_world(viewer), to_world_um((700, 100), slide.info))


@pytest.mark.parametrize("wanted", ALL, ids=IDS)
def test_fit_and_what_is_in_view(array_slide, checkered, wanted):
    slide = array_slide(checkered, (0.5, 0.25), bounds=Rect(100, 200, 1200, 300))
    viewer = flat_viewer(slide)
    camera.fit_slide(viewer, slide.info)
    camera.turn(viewer, wanted, slide.info)
    assert camera.shows_whole(viewer, slide.info), "what was whole is whole after turning"
    across_px, down_px = (400, 600) if wanted.transposed else (600, 400)
    zoom = 0.92 * min(across_px / (1200 * 0.5), down_px / (300 * 0.25))
    assert viewer.scene.camera.zoom == pytest.approx(zoom)
    viewer.scene.camera.zoom = 10.0
    assert not camera.shows_whole(viewer, slide.info)
    camera.go_to_px0(viewer, slide.info, (700, 500))
    shown = rect_in_view_px0(viewer, slide.info)
    wide, high = across_px / 10 / 0.5, down_px / 10 / 0.25
    assert (shown.x_px0, shown.y_px0) == pytest.approx((700 - wide / 2, 500 - high / 2))
    assert (shown.width_px0, shown.height_px0) == pytest.approx((wide, high))
    camera.go_to_px0(viewer, slide.info, (9000, 500))
    assert rect_in_view_px0(viewer, slide.info) is None
    camera.turn(viewer, STRAIGHT, slide.info)
    assert center_of_view_px0(viewer, slide.info) == pytest.approx((9000, 500))


def test_naparis_own_transpose_is_understood(array_slide, checkered):
    slide = array_slide(checkered)
    viewer = flat_viewer(slide)
    viewer.dims.transpose()
    assert orientation_of(viewer) == Orientation(1, mirrored=True)
    camera.go_to_px0(viewer, slide.info, (310, 520))
    assert center_of_view_px0(viewer, slide.info) == pytest.approx((310, 520))


def test_the_tour_and_the_readout_know_of_a_turned_view(write_slide, checkered, make_run, qtbot):
    viewer = ViewerModel()
    viewer.canvas.size = (400, 600)
    path = write_slide(checkered)
    info = session(viewer).open_slide(path).info
    with open_slide(path) as slide:
        laid = overlays(viewer)
        run = laid.add(make_run(slide.info))
    dock = OverlayWidget(viewer)
    qtbot.addWidget(dock)
    set_orientation(viewer, Orientation(1))
    laid.next_hottest()
    tile = int(run.heatmap.tour[0])
    x, y, width, height = run.heatmap.grid.cell_rects_px0[tile]
    assert center_of_view_px0(viewer, info) == pytest.approx((x + width / 2, y + height / 2))
    assert camera.magnification(viewer) == pytest.approx(LOOK_CLOSELY)

    viewer.scene.camera.zoom = 2.0
    camera.go_to_px0(viewer, info, (500, 400))

    class Event:  # 100 px to the right: 50 µm, so 100 level-0 px, up on the slide
        position = tuple(to_world_um((500, 300), info))

    for callback in viewer.mouse_move_callbacks:
        callback(viewer, Event())
    assert "x 250 µm, y 150 µm" in dock.readout.text()
    camera.go_to_px0(viewer, info, (600, 500))
    assert "x 300 µm, y 200 µm" in dock.readout.text()
    set_orientation(viewer, STRAIGHT)  # the pointer stands still: now it is to the right
    assert "x 350 µm, y 250 µm" in dock.readout.text()


def settle(qtbot, viewer) -> None:
    qtbot.wait(30)
    for slide in session(viewer).slides:
        assert painting(slide.layer).wait(10)


@pytest.fixture
def marked():
    """1500 x 1037 px, white, with a blue, a green and a red square of 64 px at known places."""
    pixels = np.full((1037, 1500, 3), 255, np.uint8)
    for (x, y), colour in MARKS.items():
        pixels[y - 32 : y + 32, x - 32 : x + 32] = colour
    return pixels


MARKS = {(300, 300): (0, 0, 255), (700, 300): (0, 160, 0), (300, 500): (220, 0, 0)}


def test_marks_are_seen_and_clicked_where_they_are_in_every_state(
    make_napari_viewer, write_slide, marked, qtbot
):
    """One window for all states: on the real canvas, by real clicks."""
    viewer = make_napari_viewer(show=True)
    info = session(viewer).open_slide(write_slide(marked)).info
    canvas = viewer_canvas(viewer)
    settle(qtbot, viewer)
    clicked: list[tuple[float, ...]] = []
    viewer.mouse_drag_callbacks.append(lambda _viewer, event: clicked.append(event.position))
    for wanted in ALL:
        set_orientation(viewer, wanted)
        viewer.scene.camera.zoom = 1.0  # 2 level-0 px a screen pixel: another level is drawn
        camera.go_to_px0(viewer, info, (450, 400))
        settle(qtbot, viewer)
        screen = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
        height, width = screen.shape[:2]
        right, below = np.array(RIGHT_OF[wanted.text]), np.array(BELOW[wanted.text])
        for place, colour in MARKS.items():
            aside = (np.array(place) - (450, 400)) * 0.5  # µm, and so pixels
            x, y = round(width / 2 + aside @ right), round(height / 2 + aside @ below)
            for dx, dy in itertools.product((-13, 12), (-13, 12)):  # its corners: 16 px each way
                assert np.abs(screen[y + dy, x + dx] - colour).max() < 12, (wanted, place)
            for dx, dy in ((-19, 0), (19, 0), (0, -19), (0, 19)):
                assert np.abs(screen[y + dy, x + dx] - 255).max() < 12, (wanted, place)
            clicked.clear()
            qtbot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=QPoint(x, y))
            np.testing.assert_allclose(to_px0(clicked[0], info), place, atol=2)
        corners = []
        for point in ((1, 1), (width - 1, height - 1)):  # Qt takes (0, 0) for none
            clicked.clear()
            qtbot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=QPoint(*point))
            corners.append(to_px0(clicked[0], info))
        low, high = np.min(corners, axis=0), np.max(corners, axis=0)
        shown = rect_in_view_px0(viewer, info)
        expected = (max(low[0], 0), max(low[1], 0), min(high[0], 1500), min(high[1], 1037))
        found = (shown.x_px0, shown.y_px0, shown.right_px0, shown.bottom_px0)
        np.testing.assert_allclose(found, expected, atol=2.5)


def test_a_shape_drawn_in_a_turned_view_lies_where_it_was_drawn(
    make_napari_viewer, write_slide, marked, qtbot
):
    viewer = make_napari_viewer(show=True)
    info = session(viewer).open_slide(write_slide(marked)).info
    canvas = viewer_canvas(viewer)
    set_orientation(viewer, Orientation(1, mirrored=True))
    viewer.scene.camera.zoom = 1.0
    camera.go_to_px0(viewer, info, (450, 400))
    shapes = viewer.add_shapes(ndim=2, scale=(info.mpp_y, info.mpp_x), units=("um", "um"))
    viewer.scene.camera.zoom = 1.0
    camera.go_to_px0(viewer, info, (450, 400))
    settle(qtbot, viewer)
    shapes.mode = "add_rectangle"
    middle = QPoint(canvas.width() // 2, canvas.height() // 2)
    qtbot.mousePress(canvas, Qt.MouseButton.LeftButton, pos=middle)
    qtbot.wait(20)
    for share in (0.5, 1.0):
        qtbot.mouseMove(canvas, middle + QPoint(round(60 * share), round(100 * share)))
        qtbot.wait(20)
    qtbot.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=middle + QPoint(60, 100))
    QApplication.processEvents()
    (drawn,) = shapes_to_px0(shapes, info)
    # 60 px to the right are 120 level-0 px down in this state, 100 px down are 200 to the right.
    np.testing.assert_allclose(drawn.bounds, (450, 400, 650, 520), atol=3)
    set_orientation(viewer, STRAIGHT)
    (kept,) = shapes_to_px0(shapes, info)
    assert kept.equals(drawn)


def viewer_canvas(viewer) -> QOpenGLWidget:
    """Return the canvas of a window, found as the program finds it."""
    probe = QLabel()
    dock = viewer.window.add_dock_widget(probe)
    found = canvas_of(probe)
    viewer.window.remove_dock_widget(dock)
    return found
