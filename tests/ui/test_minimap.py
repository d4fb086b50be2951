"""The minimap on the canvas: mapping to the pixel, picture, heatmap, clicks, when it is shown."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.settings import get_plugin_settings
from npe2 import PluginManifest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication

from napari_histomil.geometry import Rect
from napari_histomil.slides.readers import open_slide
from napari_histomil.ui import camera, minimap
from napari_histomil.ui.layers import center_of_view_px0, rect_in_view_px0, slide_layer
from napari_histomil.ui.minimap import MapFrame, frame_of, heat_picture, readout
from napari_histomil.ui.orientation import Orientation, set_orientation
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.session import session
from napari_histomil.ui.widgets.minimap import MARGIN_PX, Minimap, attach_minimap

ALL = [Orientation(turns, mirrored) for turns in range(4) for mirrored in (False, True)]
IDS = [each.text or "straight" for each in ALL]
LEFT = Qt.MouseButton.LeftButton

MARKS = {(150, 150): (0, 0, 255), (1350, 150): (0, 160, 0), (150, 850): (220, 0, 0)}


@pytest.fixture
def marked():
    """1500 x 1037 px, white, with three squares of 160 px."""
    pixels = np.full((1037, 1500, 3), 255, np.uint8)
    for (x, y), colour in MARKS.items():
        pixels[y - 80 : y + 80, x - 80 : x + 80] = colour
    return pixels


# --- the mapping ------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ALL, ids=IDS)
def test_the_frame_maps_there_and_back_and_holds_the_area(array_slide, checkered, wanted):
    bounds = Rect(100, 200, 1200, 300)
    info = array_slide(checkered, (0.5, 0.25), bounds=bounds).info
    frame = MapFrame.of(info, wanted, 160)
    # 600 x 75 µm
    assert frame.size == ((20, 160) if wanted.transposed else (160, 20))
    places = np.array([(100, 200), (1300, 200), (100, 500), (700, 350), (333, 444)])
    np.testing.assert_allclose(frame.to_px0(frame.to_map(places)), places)
    corners = frame.to_map(np.array([(100, 200), (1300, 500)]))
    np.testing.assert_allclose(corners.min(axis=0), (0, 0), atol=1e-9)
    np.testing.assert_allclose(corners.max(axis=0), frame.size, atol=1e-9)


def test_without_bounds_or_scale_the_whole_slide_is_mapped(array_slide, checkered):
    frame = MapFrame.of(array_slide(checkered, None).info, Orientation(), 150)
    assert frame.size == (150, 104)
    np.testing.assert_allclose(frame.to_map((1500, 1037)), (150, 103.85), atol=0.2)


def test_a_strip_keeps_a_width_that_can_be_clicked(array_slide):
    info = array_slide(np.zeros((20, 2000, 3), np.uint8)).info
    frame = MapFrame.of(info, Orientation(), 200)
    assert frame.size == (200, minimap.NARROWEST_PX)
    np.testing.assert_allclose(frame.to_px0((100, minimap.NARROWEST_PX / 2)), (1000, 10))


@pytest.mark.parametrize("wanted", ALL, ids=IDS)
def test_the_view_rectangle_is_what_is_in_view(array_slide, checkered, wanted):
    slide = array_slide(checkered, (0.5, 0.25))
    viewer = ViewerModel()
    viewer.canvas.size = (400, 600)
    data, attributes, _ = slide_layer(slide)
    viewer.add_image(data, **attributes)
    set_orientation(viewer, wanted)
    viewer.scene.camera.zoom = 5.0
    camera.go_to_px0(viewer, slide.info, (700, 500))
    frame = frame_of(viewer, slide.info)
    assert frame.orientation == wanted
    shown = rect_in_view_px0(viewer, slide.info)
    assert shown.x_px0 > 0
    assert shown.right_px0 < 1500
    corners = frame.to_map([(shown.x_px0, shown.y_px0), (shown.right_px0, shown.bottom_px0)])
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    found = frame.view_rect(viewer)
    assert (found.left(), found.top()) == pytest.approx((left, top))
    assert (found.right(), found.bottom()) == pytest.approx((right, bottom))


def test_the_map_grows_with_the_canvas_within_bounds(array_slide, checkered):
    slide = array_slide(checkered)
    viewer = ViewerModel()
    longest = {}
    for size in ((150, 900), (300, 500), (750, 560), (2100, 3200)):
        viewer.canvas.size = size
        frame = frame_of(viewer, slide.info)
        longest[size] = None if frame is None else max(frame.size)
    assert longest == {(150, 900): None, (300, 500): 110, (750, 560): 146, (2100, 3200): 420}
    viewer.dims.ndisplay = 3
    assert frame_of(viewer, slide.info) is None


def test_the_readout_of_any_magnification(array_slide, checkered):
    viewer = ViewerModel()
    info = array_slide(checkered).info
    for power, words in (
        (20, "20x, 0.50 µm/px"), (1.25, "1.25x, 8.0 µm/px"), (0.04, "0.04x, 250 µm/px"),
        (400, "400x, 0.025 µm/px"),
    ):  # fmt: skip
        camera.set_magnification(viewer, power)
        assert readout(viewer, info) == words
    assert readout(viewer, array_slide(checkered, None).info) == "scale unknown"


# --- in a window ------------------------------------------------------------------------------


@pytest.fixture
def viewer(make_napari_viewer, npe2pm, plugin_settings):
    """Preferences of its own: the tests change them."""
    npe2pm.register(PluginManifest.from_distribution("napari-histomil"))
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1100, 760)
    return viewer


@pytest.fixture
def dock(viewer, qtbot):
    widget = viewer.window.add_plugin_dock_widget("napari-histomil", "Slide")[1]
    qtbot.waitUntil(lambda: widget.navigation.minimap is not None)
    return widget


@pytest.fixture
def small(dock) -> Minimap:
    return dock.navigation.minimap


def grabbed(widget: Minimap) -> np.ndarray:
    """Return what the minimap shows, [h, w, 3] in physical pixels, the map's corner at 0."""
    image = widget.grab().toImage().convertToFormat(widget.grab().toImage().Format.Format_RGB888)
    rows = np.frombuffer(image.constBits().asstring(image.sizeInBytes()), np.uint8)
    rows = rows.reshape(image.height(), image.bytesPerLine())[:, : 3 * image.width()]
    pixels = rows.reshape(image.height(), image.width(), 3)
    ratio = widget.devicePixelRatioF()
    place = widget.map_rect
    return pixels[round(place.top() * ratio) :, round(place.left() * ratio) :].astype(int)


def loaded(qtbot, small: Minimap) -> None:
    qtbot.waitUntil(lambda: small.isVisible() and not small.loading, timeout=10_000)
    qtbot.wait(200)


def on_map(small: Minimap, xy_map) -> QPoint:
    corner = small.map_rect.topLeft()
    return QPoint(round(corner.x() + xy_map[0]), round(corner.y() + xy_map[1]))


def test_picture_turned_as_the_view_is(small, viewer, write_slide, marked, qtbot):
    info = session(viewer).open_slide(write_slide(marked)).info
    viewer.scene.camera.zoom = 50.0  # the rectangle is out of the marks' way
    camera.go_to_px0(viewer, info, (750, 500))
    for wanted in ALL:
        set_orientation(viewer, wanted)
        loaded(qtbot, small)
        assert small.frame.orientation == wanted
        pixels, ratio = grabbed(small), small.devicePixelRatioF()
        for place, colour in MARKS.items():
            x, y = np.rint(small.frame.to_map(place) * ratio).astype(int)
            assert np.abs(pixels[y, x] - colour).max() < 20, (wanted, place)
            x, y = np.rint(small.frame.to_map(np.add(place, 110)) * ratio).astype(int)
            assert pixels[y, x].min() > 235, (wanted, place)
        assert (small._words[1:] == [wanted.text]) == bool(wanted.text)


def test_a_click_looks_there_and_a_drag_follows(small, viewer, write_slide, marked, qtbot):
    info = session(viewer).open_slide(write_slide(marked)).info
    camera.set_magnification(viewer, 40)
    for wanted in (Orientation(), Orientation(3, mirrored=True)):
        set_orientation(viewer, wanted)
        loaded(qtbot, small)
        zoom = viewer.scene.camera.zoom
        for place in ((300, 200), (1400, 1000), (700, 600)):
            point = on_map(small, small.frame.to_map(place))
            qtbot.mouseClick(small, LEFT, pos=point)
            exact = small.frame.to_px0(
                (point.x() - small.map_rect.left(), point.y() - small.map_rect.top())
            )
            assert center_of_view_px0(viewer, info) == pytest.approx(tuple(exact), abs=0.01)
            assert np.abs(exact - place).max() < 12, "half a pixel of the map is 5 of the slide"
        start, end = (on_map(small, small.frame.to_map(xy)) for xy in ((300, 300), (900, 700)))
        qtbot.mousePress(small, LEFT, pos=start)
        qtbot.mouseMove(small, end)
        qtbot.mouseRelease(small, LEFT, pos=end)
        assert center_of_view_px0(viewer, info) == pytest.approx((900, 700), abs=12)
        qtbot.mousePress(small, LEFT, pos=QPoint(small.width() // 2, small.height() - 2))
        x, y = center_of_view_px0(viewer, info)
        assert 0 <= x <= 1500, "below the map: its edge"
        assert 0 <= y <= 1037
        qtbot.mouseRelease(small, LEFT, pos=end)
        assert viewer.scene.camera.zoom == zoom
    assert small.window().focusWidget() is small.parentWidget(), "keys are the canvas's"


def test_the_wheel_zooms_about_the_middle(small, viewer, write_slide, marked, qtbot):
    info = session(viewer).open_slide(write_slide(marked)).info
    loaded(qtbot, small)
    zoom, middle = viewer.scene.camera.zoom, center_of_view_px0(viewer, info)
    point = QPointF(20, 20)
    QApplication.sendEvent(
        small,
        QWheelEvent(
            point, small.mapToGlobal(point), QPoint(), QPoint(0, 240), Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
        ),
    )  # fmt: skip
    assert viewer.scene.camera.zoom == pytest.approx(zoom * 1.25**2)
    assert center_of_view_px0(viewer, info) == pytest.approx(middle)


def test_a_tiny_view_has_cross_hairs(small, viewer, write_slide, marked, qtbot):
    info = session(viewer).open_slide(write_slide(marked)).info
    loaded(qtbot, small)
    viewer.scene.camera.zoom = 4000.0
    camera.go_to_px0(viewer, info, (750, 500))
    pixels, ratio = grabbed(small), small.devicePixelRatioF()
    blue = (pixels[..., 2] > 200) & (pixels[..., 0] < 120)
    x, y = small.frame.to_map((750, 500)) * ratio
    near = blue[round(y - 10) : round(y + 10), round(x - 10) : round(x + 10)]
    assert near.sum() > 40
    rows, columns = np.nonzero(near)
    assert np.ptp(rows) >= 14
    assert np.ptp(columns) >= 14


def test_it_stays_in_the_corner_whatever_moves(small, dock, viewer, write_slide, marked, qtbot):
    session(viewer).open_slide(write_slide(marked))
    loaded(qtbot, small)

    def in_corner() -> bool:
        canvas = small.parentWidget()
        right = canvas.width() - small.geometry().right() - 1
        return (right, small.geometry().top()) == (MARGIN_PX, MARGIN_PX)

    assert in_corner()
    before = small.parentWidget().width()
    window = dock.window()
    window.resize(window.width() - 150, window.height() - 60)
    qtbot.waitUntil(lambda: small.parentWidget().width() != before)
    qtbot.waitUntil(in_corner)
    dock.parentWidget().setFloating(True)
    qtbot.wait(100)
    assert attach_minimap(viewer, dock) is small, "a floating dock belongs to the window"
    qtbot.waitUntil(in_corner)
    viewer.theme = "light"
    assert grabbed(small)[-3, 3:9].min() > 180
    viewer.theme = "dark"
    assert grabbed(small)[-3, 3:9].max() < 80


def test_hidden_without_a_slide_and_by_box_key_and_preference(
    small, dock, viewer, write_slide, marked, qtbot
):
    assert not small.isVisible()
    slide = session(viewer).open_slide(write_slide(marked))
    loaded(qtbot, small)
    box = dock.navigation.minimap_box
    assert box.isChecked()
    box.click()
    assert not small.isVisible()
    assert get_plugin_settings("napari-histomil").viewing.minimap is False
    set_orientation(viewer, Orientation(1))  # while it is hidden
    qtbot.keyClick(dock.window(), Qt.Key.Key_M, Qt.KeyboardModifier.ShiftModifier)
    assert small.isVisible()
    assert box.isChecked()
    assert small.frame.orientation == Orientation(1)
    assert get_plugin_settings("napari-histomil").viewing.minimap is True
    session(viewer).close_slide(slide)
    assert not small.isVisible()


def test_a_window_begins_as_the_last_one_was_left(viewer, write_slide, marked, qtbot):
    get_plugin_settings("napari-histomil").viewing.minimap = False
    dock = viewer.window.add_plugin_dock_widget("napari-histomil", "Slide")[1]
    qtbot.waitUntil(lambda: dock.navigation.minimap is not None)
    session(viewer).open_slide(write_slide(marked))
    assert not dock.navigation.minimap.isVisible()
    assert not dock.navigation.minimap_box.isChecked()


def test_it_shows_the_active_slide_within_its_bounds(
    small, viewer, write_slide, array_slide, marked, qtbot
):
    held = session(viewer)
    first = held.open_slide(write_slide(marked))
    loaded(qtbot, small)
    bounds = Rect(1200, 0, 300, 300)  # the green mark
    second = held.add_slide(slide_layer(array_slide(marked, bounds=bounds)))
    loaded(qtbot, small)
    assert small.frame.area_px0 == bounds
    viewer.scene.camera.zoom = 500.0
    camera.go_to_px0(viewer, second.info, (1490, 290))
    pixels, ratio = grabbed(small), small.devicePixelRatioF()
    for place, colour in {(1350, 150): (0, 160, 0), (1210, 10): (255, 255, 255)}.items():
        x, y = np.rint(small.frame.to_map(place) * ratio).astype(int)
        assert np.abs(pixels[y, x] - colour).max() < 20
    held.show_only(first)
    assert small.frame.area_px0 == first.info.rect_px0


def test_the_heatmap_lies_faintly_over_it(small, viewer, write_slide, marked, make_run, qtbot):
    path = write_slide(marked)
    info = session(viewer).open_slide(path).info
    loaded(qtbot, small)
    viewer.scene.camera.zoom = 500.0
    camera.go_to_px0(viewer, info, (20, 1000))
    plain = grabbed(small)
    with open_slide(path) as slide:
        run = overlays(viewer).add(make_run(slide.info))
    qtbot.wait(300)
    pixels, ratio = grabbed(small), small.devicePixelRatioF()
    colours, seen = heat_picture(run), 0
    share = minimap.FAINT * run.layer.opacity
    rows, columns = run.heatmap.grid.shape
    for tile, (x, y, width, height) in enumerate(run.heatmap.grid.cell_rects_px0):
        at = np.array((x + width / 2, y + height / 2))
        row, column = int(at[1] // height), int(at[0] // width)
        if row >= rows or column >= columns or colours[row, column, 3] < 255:
            continue
        mx, my = np.rint(small.frame.to_map(at) * ratio).astype(int)
        if not (2 < mx < small.frame.size[0] - 2 and 2 < my < small.frame.size[1] - 2):
            continue
        under = plain[my, mx]
        if under.min() < 250:
            continue  # a mark's edge
        expected = under * (1 - share) + colours[row, column, :3] * share
        close = np.abs(pixels[my - 1 : my + 2, mx - 1 : mx + 2] - expected).max(axis=2).min()
        assert close <= 12, tile
        seen += 1
    assert seen > 20
    overlays(viewer).toggle()
    qtbot.wait(300)
    np.testing.assert_array_equal(grabbed(small), plain)


def test_a_minimap_that_is_gone_hears_no_more(viewer, dock, write_slide, marked, make_run, qtbot):
    path = write_slide(marked)
    session(viewer).open_slide(path)
    small = dock.navigation.minimap
    with open_slide(path) as slide:
        run = overlays(viewer).add(make_run(slide.info))
    assert small._run is run
    canvas = small.parentWidget()
    small.deleteLater()
    qtbot.waitUntil(lambda: canvas.findChild(Minimap) is None)
    run.heatmap.changed.emit()
    viewer.scene.camera.zoom *= 2
    assert attach_minimap(viewer, dock) is not small


def test_an_incomplete_overview_is_marked_and_looked_at_again(
    small, viewer, write_slide, marked, qtbot, monkeypatch
):
    slide = session(viewer).open_slide(write_slide(marked))
    loaded(qtbot, small)
    answers = [(np.zeros((10, 14, 3), np.uint8), False), (np.zeros((10, 14, 3), np.uint8), True)]
    asked = []

    def coarse(longest_px: int):
        asked.append(longest_px)
        return answers[min(len(asked), 2) - 1]

    monkeypatch.setattr(slide.layer.data[0].pyramid, "coarse", coarse)
    small._paint_again()
    assert small.loading
    assert small._words[-1] == "loading the overview…"
    qtbot.waitUntil(lambda: not small.loading, timeout=5000)
    assert len(asked) == 2
    assert "loading the overview…" not in small._words


def test_moving_the_view_paints_no_new_picture(small, viewer, write_slide, marked, qtbot):
    info = session(viewer).open_slide(write_slide(marked)).info
    loaded(qtbot, small)
    picture, size = small._picture, small.size()
    for step in range(5):
        viewer.scene.camera.zoom *= 1.7
        camera.go_to_px0(viewer, info, (700 + 10 * step, 500))
        qtbot.wait(20)
    assert small._picture is picture
    assert small.size() == size
