"""The Compare dock and the second canvas, in a real window."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref

import numpy as np
import pytest
import tifffile
from napari.qt import QtViewer
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

from napari_histomil.slides.readers import open_slide
from napari_histomil.ui.brightness import Tone, tones
from napari_histomil.ui.camera import go_to_px0
from napari_histomil.ui.dialogs import ErrorDialog
from napari_histomil.ui.linked import Shown, linked
from napari_histomil.ui.orientation import Orientation, center_of_world, set_orientation
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.painting import painting
from napari_histomil.ui.session import session
from napari_histomil.ui.widgets.compare import CompareWidget
from napari_histomil.ui.widgets.pairs import describe
from tests.ui.test_linked import make_store

SIZE = (1280, 800)


def settle(qtbot, times: int = 6) -> None:
    for _ in range(times):
        qtbot.wait(20)


@pytest.fixture
def viewer(make_napari_viewer, qtbot):
    """A window that fails the test where a widget is left over."""
    viewer = make_napari_viewer(show=True, strict_qt="raise")
    settle(qtbot)
    return viewer


@pytest.fixture
def compare(viewer, qtbot):
    """The dock in the window."""
    dock = viewer.window.add_dock_widget(CompareWidget(viewer), name="Compare", area="right")
    dock.window().resize(*SIZE)
    settle(qtbot)
    return dock.widget()


@pytest.fixture
def heat(viewer, write_slide, checkered):
    """A slide with a run over it."""
    path = write_slide(checkered, "run.tiff")
    session(viewer).open_slide(path)
    return overlays(viewer).add(make_store(path))


def picture(marks) -> np.ndarray:
    """Return what is drawn over a canvas, uint8 [H, W, 4]."""
    pixmap = marks.grab()
    image = pixmap.toImage().convertToFormat(pixmap.toImage().Format.Format_RGBA8888)
    bits = image.constBits()
    bits.setsize(image.sizeInBytes())
    return np.array(bits).reshape(image.height(), image.width(), 4).copy()


def canvas(viewer) -> np.ndarray:
    return viewer.screenshot(canvas_only=True, flash=False)[..., :3]


def test_a_dock_without_a_slide_says_what_to_do(compare):
    assert not compare.open_button.isEnabled()
    assert "Open a slide first" in compare.words.text()
    compare.toggle()
    assert compare.second is None


def test_both_canvases_have_one_size_and_say_what_they_show(compare, heat, viewer, qtbot):
    compare.open_button.click()
    settle(qtbot)
    left, right = compare.second.marks["left"], compare.second.marks["right"]
    assert left.height() == right.height() > 300
    assert abs(left.width() - right.width()) <= 4
    assert left.width() + right.width() + 360 < SIZE[0]
    assert left.lines == ["run.tiff", "without heatmap"]
    assert right.lines == ["run.tiff", "with tumor (maker)"]
    viewer.scene.camera.zoom = 1.0  # 1 µm a screen pixel
    ratio = left.devicePixelRatioF()
    assert left.magnification_text() == right.magnification_text() == f"{10 * ratio:.3g}x"
    assert compare.open_button.text() == "Close"
    compare.second.close_button.click()
    settle(qtbot)
    assert compare.second is None
    assert compare.open_button.text() == "Open"


def test_one_place_is_at_one_pixel_of_both_canvases(compare, heat, viewer, qtbot):
    """The red rectangle, its corner at x 384, y 256, in what either canvas really paints."""
    compare.open_button.click()
    linked(viewer).open(Shown())
    heat.layer.visible = False
    for orientation in (Orientation(), Orientation(1, mirrored=True)):
        set_orientation(viewer, orientation)
        viewer.scene.camera.zoom = 1.0
        go_to_px0(viewer, heat.slide.info, (384, 256))
        settle(qtbot)
        second = compare.second.findChild(QtViewer)
        shown = [canvas(viewer), second.screenshot(flash=False)[..., :3]]
        reds = []
        for pixels in shown:
            red = (pixels[..., 0] > 150) & (pixels[..., 1] < 60)
            assert red.sum() == pytest.approx(128 * 128, rel=0.05)
            rows, columns = np.nonzero(red)
            height, width = red.shape
            reds.append([
                rows.min() - height / 2, rows.max() - height / 2,
                columns.min() - width / 2, columns.max() - width / 2,
            ])  # fmt: skip
        np.testing.assert_allclose(reds[0], reds[1], atol=1)


def test_both_are_equally_bright(compare, heat, viewer, qtbot):
    compare.open_button.click()
    linked(viewer).open(Shown())
    heat.layer.visible = False
    means = []
    for tone in (Tone(), Tone(brightness=60), Tone()):
        tones(viewer).set(heat.slide, tone)
        settle(qtbot)
        assert painting(linked(viewer).layer).wait(5)
        second = compare.second.findChild(QtViewer)
        means.append([canvas(viewer).mean(), second.screenshot(flash=False)[..., :3].mean()])
    np.testing.assert_allclose(np.array(means)[:, 0], np.array(means)[:, 1], rtol=0.03)
    assert means[1][1] < 0.7 * means[0][1]
    assert means[2] == pytest.approx(means[0], rel=0.01)


def test_the_pointer_is_a_cross_in_the_other_view(compare, heat, viewer, qtbot):
    compare.open_button.click()
    viewer.scene.camera.zoom = 1.0
    settle(qtbot)
    left, right = compare.second.marks["left"], compare.second.marks["right"]
    before = picture(right)
    native = left.parentWidget()
    at = QPointF(native.width() / 2 + 60, native.height() / 2 + 40)
    move = QMouseEvent(
        QEvent.Type.MouseMove, at, native.mapToGlobal(at), Qt.MouseButton.NoButton,
        Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier,
    )  # fmt: skip
    QApplication.sendEvent(native, move)
    assert left.pointer is None
    expected = QPointF(right.width() / 2 + 60, right.height() / 2 + 40)
    where = right.on_canvas(right.pointer)
    assert (where - expected).manhattanLength() < 1.5
    rows, columns = np.nonzero((picture(right) != before).any(axis=-1))
    ratio = right.devicePixelRatioF()
    assert (columns.min() + columns.max()) / 2 / ratio == pytest.approx(expected.x(), abs=1.5)
    assert (rows.min() + rows.max()) / 2 / ratio == pytest.approx(expected.y(), abs=1.5)
    QApplication.sendEvent(native, QEvent(QEvent.Type.Leave))
    assert right.pointer is None


def test_the_key_opens_and_closes_it(compare, heat, viewer, qtbot):
    window = compare.window()
    qtbot.keyPress(window, Qt.Key.Key_U, Qt.KeyboardModifier.ShiftModifier)
    assert linked(viewer).view is not None
    # In the second canvas the keys of the window hold as well.
    native = compare.second.marks["right"].parentWidget()
    qtbot.keyPress(native, Qt.Key.Key_U, Qt.KeyboardModifier.ShiftModifier)
    assert linked(viewer).view is None


def test_opening_and_closing_many_times_leaves_nothing(compare, heat, viewer, qtbot):
    gone = []
    for _ in range(5):
        compare.toggle()
        settle(qtbot, 2)
        second = compare.second
        gone += [weakref.ref(linked(viewer).view), weakref.ref(second.findChild(QtViewer))]
        viewer.scene.camera.zoom *= 1.1
        settle(qtbot, 1)
        compare.toggle()
        del second
    settle(qtbot)
    gc.collect()
    assert [each() for each in gone if each() is not None] == []
    assert len(compare.window().findChildren(QtViewer)) == 1
    assert compare.window().centralWidget().layout().count() == 1


def test_one_thing_after_another_is_shown_and_painted(
    compare, heat, viewer, write_slide, checkered, qtbot
):
    """With Mesa, layers that came and went in the second canvas ended the process."""
    session(viewer).open_slide(write_slide(checkered[:, ::-1], "other.tiff"))
    session(viewer).show_only(heat.slide)
    compare.toggle()
    second = linked(viewer)
    layers = []
    for round_ in range(2):
        for _, shown in second.choices():
            second.open(shown)
            viewer.scene.camera.zoom *= 1.05
            settle(qtbot, 2)
            layers.append(list(second.view.layers))
            lines = compare.second.marks["right"].lines
            assert lines[0] == (shown.slide or session(viewer).active).name
        session(viewer).show_only(session(viewer).slides[1 - round_])
        settle(qtbot, 2)
    assert all(each == layers[-1] for each in layers)
    assert viewer.screenshot(canvas_only=False, flash=False).std() > 10


def test_a_viewer_closed_with_it_open_leaves_nothing(compare, heat, qtbot):
    compare.toggle()
    settle(qtbot)
    # The fixtures close the viewer, look for widgets and count napari's canvases.


BY_HAND = """
import sys
from pathlib import Path
import napari
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication
from napari_histomil.ui.linked import linked
from napari_histomil.ui.painting import painting
from napari_histomil.ui.session import session
from napari_histomil.ui.widgets.compare import CompareWidget

viewer = napari.Viewer()
session(viewer).open_slide(Path(sys.argv[1]))
dock = viewer.window.add_dock_widget(CompareWidget(viewer), name="Compare")
compare = dock.widget()
compare.toggle()
second = linked(viewer)
QTimer.singleShot(500, dock.window().close)
napari.run()
assert second.view is None, "it outlived its window"
print("ended well")
"""


def test_a_window_closed_by_hand_closes_it(write_slide, checkered):
    """In a process of its own: napari's fixture cannot let go of a window that is gone."""
    path = write_slide(checkered)
    ended = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", BY_HAND, str(path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, "ended well\n"), ended.stderr


def test_a_closed_dock_closes_it(compare, heat, viewer, qtbot):
    compare.toggle()
    second = linked(viewer)
    viewer.window.remove_dock_widget(compare)
    compare.deleteLater()
    settle(qtbot)
    assert second.view is None


def test_a_closed_slide_closes_it(compare, heat, viewer, qtbot):
    compare.toggle()
    settle(qtbot)
    session(viewer).close_slide(heat.slide)
    settle(qtbot)
    assert compare.second is None
    assert not compare.open_button.isEnabled()


# ---------------------------------------------------------------------------------- alignment


@pytest.fixture
def sections(viewer, data_dir, tmp_path):
    """A real slide, and a turned, flipped and shifted copy of it at other µm/px.

    Returns the known map from places of the slide to those of the copy, both in level-0 pixels.
    """
    with open_slide(data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs") as slide:
        info = slide.info
        pixels = slide.read_region((0, 0), 0, (info.width_px0, info.height_px0))
    height, width = pixels.shape[:2]
    # Flipped left to right, turned clockwise by a quarter, half as fine, and shifted by a margin.
    turned = np.rot90(pixels[:, ::-1], -1)
    rows, columns = turned.shape[0] // 2, turned.shape[1] // 2
    half = turned[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2, 3).mean((1, 3))
    shift_x, shift_y = 150, 90
    copy = np.full((rows + 300, columns + 300, 3), 245, np.uint8)
    copy[shift_y : shift_y + rows, shift_x : shift_x + columns] = half.round()
    mpp = 2 * info.mpp
    path = tmp_path / "section 2.tiff"
    tifffile.imwrite(
        path, copy, photometric="rgb", tile=(256, 256), resolution=(1e4 / mpp,) * 2,
        resolutionunit=3,
    )  # fmt: skip
    first = tmp_path / "section 1.tiff"
    tifffile.imwrite(
        first, pixels, photometric="rgb", tile=(256, 256), resolution=(1e4 / info.mpp,) * 2,
        resolutionunit=3,
    )  # fmt: skip
    session(viewer).open_slide(path)
    session(viewer).open_slide(first)

    def known(xy_px0):
        x, y = width - xy_px0[0], xy_px0[1]
        x, y = height - y, x
        return shift_x + x / 2, shift_y + y / 2

    return known


PLACES = [(400.0, 500.0), (1500.0, 700.0), (900.0, 2300.0)]


def click(qtbot, viewer, marks, world) -> None:
    """Click on a place of the world that is in view."""
    at = marks.on_canvas(np.asarray(world)).toPoint()
    native = marks.parentWidget()
    assert native.rect().contains(at)
    qtbot.mousePress(native, Qt.MouseButton.LeftButton, pos=at)
    qtbot.mouseRelease(native, Qt.MouseButton.LeftButton, pos=at + QPoint(1, 0))


def place(compare, viewer, qtbot, known, xy_px0) -> None:
    """Place one pair as a person does: bring it into view, click, in both views."""
    second = linked(viewer)
    compare.pairs.place_button.click()
    assert not compare.joined_box.isChecked()
    for side, each, there in (
        ("left", viewer, xy_px0),
        ("right", second.view, known(xy_px0)),
    ):
        each.scene.camera.zoom = 8.0  # an eighth of a µm a screen pixel: exact clicks
        world = second.to_world(side, there)
        row, column = world
        each.scene.camera.center = (0, row + 3, column + 5)  # it need not be in the middle
        settle(qtbot, 2)
        click(qtbot, each, compare.second.marks[side], world)


def test_two_sections_are_aligned_by_clicks_and_found_again(compare, sections, viewer, qtbot):
    compare.toggle()
    second = linked(viewer)
    assert second.right.name == "section 2.tiff"
    editor = compare.pairs
    settle(qtbot)
    assert second.label("right")[1] == "not aligned"
    for number, xy_px0 in enumerate(PLACES, start=1):
        place(compare, viewer, qtbot, sections, xy_px0)
        assert len(editor.pairs) == editor.list.topLevelItemCount() == number
        assert list(compare.second.marks["left"].points) == list(range(1, number + 1))
        assert not editor.place_button.isChecked()
        if number == 2:
            assert "Two pairs cannot tell a flip" in editor.words.text()
    for pair, xy_px0 in zip(editor.pairs, PLACES, strict=True):
        np.testing.assert_allclose(pair.first_px0, xy_px0, atol=0.4)
        np.testing.assert_allclose(pair.second_px0, sections(xy_px0), atol=0.4)
    assert "Flipped and turned by 90.0°" in editor.words.text()
    editor.apply_button.click()
    assert compare.joined_box.isChecked()
    assert second.label("right")[1] == "aligned by 3 pairs, flipped"
    # Less than a pixel off anywhere, in the numbers ...
    for xy_px0 in [(10.0, 10.0), (2000.0, 30.0), (1100.0, 1400.0), (100.0, 2800.0)]:
        found = second.to_px0("right", second.to_world("left", xy_px0))
        assert np.abs(found - sections(xy_px0)).max() < 1
    # ... and in the pictures that both canvases paint of one place.
    viewer.scene.camera.zoom = 1.0
    go_to_px0(viewer, second.left.info, (1000, 1500))
    for marks in compare.second.marks.values():
        marks.hide()
    settle(qtbot)
    shown = [canvas(viewer), compare.second.findChild(QtViewer).screenshot(flash=False)]
    middles = []
    for pixels in shown:
        row, column = pixels.shape[0] // 2, pixels.shape[1] // 2
        middles.append(pixels[row - 90 : row + 90, column - 90 : column + 90, :3].mean(-1))
    assert middles[0].std() > 15, "a place with something to see"

    def agree(shift: int) -> float:
        moved = np.roll(middles[1], (shift, shift), (0, 1))[20:-20, 20:-20]
        return float(np.corrcoef(middles[0][20:-20, 20:-20].ravel(), moved.ravel())[0, 1])

    assert agree(0) > 0.85, "one is half as fine as the other"
    assert agree(0) > max(agree(1), agree(-1)) + 0.1
    # Kept with both slides, in which nothing else has changed, and found when they meet again.
    kept = second.left.info.path.with_name("section 1.tiff.histomil") / "alignment.json"
    qtbot.waitUntil(kept.exists, timeout=5000)
    qtbot.waitUntil(
        second.right.info.path.with_name("section 2.tiff.histomil").joinpath(kept.name).exists
    )
    made = second.alignment
    compare.toggle()
    compare.toggle()
    qtbot.waitUntil(lambda: second.alignment is not None, timeout=5000)
    assert second.alignment == made
    assert editor.list.topLevelItemCount() == 3
    assert not editor.apply_button.isEnabled()
    # A pair less, and then none at all.
    editor.list.topLevelItem(2).setSelected(True)
    editor.delete_button.click()
    assert editor.apply_button.isEnabled()
    editor.flip_box.setCurrentText("flipped")
    editor.flip_box.activated.emit(2)
    assert "cannot tell" not in editor.words.text()
    editor.forget_button.click()
    assert second.alignment is None
    qtbot.waitUntil(lambda: json.loads(kept.read_text())["alignments"] == [], timeout=5000)


def test_a_click_in_the_same_view_corrects_the_first(compare, sections, viewer, qtbot):
    compare.toggle()
    settle(qtbot)
    second = linked(viewer)
    compare.pairs.place_button.click()
    second.clicked.emit("right", (5.0, 6.0))
    assert "in the left view" in compare.pairs.words.text()
    second.clicked.emit("right", (7.0, 8.0))
    assert list(compare.second.marks["right"].points) == [1]
    second.clicked.emit("left", (1.0, 2.0))
    (pair,) = compare.pairs.pairs
    assert (pair.first_px0, pair.second_px0) == ((1.0, 2.0), (7.0, 8.0))
    compare.pairs.place_button.click()
    second.clicked.emit("left", (1.0, 2.0))
    compare.pairs.place_button.click()  # given up
    assert compare.pairs.half is None
    assert not second.picking
    # Double click on a pair: both views show its points.
    compare.pairs._go_to(compare.pairs.list.topLevelItem(0))
    np.testing.assert_allclose(center_of_world(viewer), second.to_world("left", (1.0, 2.0)))
    np.testing.assert_allclose(center_of_world(second.view), second.to_world("right", (7.0, 8.0)))


def test_a_damaged_file_is_one_sentence_in_a_dialog(compare, sections, viewer, qtbot):
    folder = session(viewer).active.info.path.with_name("section 1.tiff.histomil")
    folder.mkdir(exist_ok=True)
    (folder / "alignment.json").write_text("{")
    compare.toggle()

    def dialog():
        return compare.window().findChild(ErrorDialog)

    qtbot.waitUntil(lambda: dialog() is not None, timeout=5000)
    assert "is damaged: delete it and align the slides again" in dialog().sentence
    dialog().close()
    assert linked(viewer).view is not None


def test_what_is_doubtful_is_said(compare, sections, viewer, qtbot):
    compare.toggle()
    settle(qtbot)
    second = linked(viewer)
    for left, right in (((0, 0), (0, 0)), ((1000, 0), (900, 0)), ((0, 900), (0, 800))):
        compare.pairs.place_button.click()
        second.clicked.emit("left", left)
        second.clicked.emit("right", right)
    assert "⚠ The pairs say that the second slide is 1.79 times as large" in describe(
        compare.pairs._fit
    )
    assert "µm" in compare.pairs.list.topLevelItem(0).text(1)


def test_it_fits_into_the_docks_width(compare, sections, viewer, qtbot):
    compare.toggle()
    settle(qtbot)
    assert compare.minimumSizeHint().width() <= 360
