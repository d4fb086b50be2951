"""The Slide dock, clicked through on real slides."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_histomil.errors import SlideError
from napari_histomil.ui.dialogs import ErrorDialog, MppDialog
from napari_histomil.ui.keys import KeySheet
from napari_histomil.ui.layers import slide_layer
from napari_histomil.ui.reader import SLIDE_SUFFIXES
from napari_histomil.ui.session import session
from napari_histomil.ui.widgets.navigation import READOUT_MS
from napari_histomil.ui.widgets.slide import SlideWidget

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer(show=True)


@pytest.fixture
def dock(viewer):
    widget = viewer.window.add_plugin_dock_widget("napari-histomil", "Slide")[1]
    assert isinstance(widget, SlideWidget)
    return widget


@pytest.fixture
def real(data_dir):
    return data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs"


def open_and_wait(qtbot, dock, path):
    held = session(dock._session.viewer)
    before = len(held.slides)
    dock.open_path(path)
    assert not dock.open_button.isEnabled()
    qtbot.waitUntil(lambda: len(held.slides) > before, timeout=30_000)
    assert dock.open_button.isEnabled()
    return held.active


def test_empty_dock_says_how_to_begin(dock):
    assert dock.empty_label.isVisible()
    assert "Open a slide" in dock.empty_label.text()
    assert not dock.facts.isVisible()
    assert not dock.navigation.isVisible()


def test_open_and_read_the_facts(qtbot, dock, real):
    opened = open_and_wait(qtbot, dock, real)
    texts = {name: label.text() for name, label in dock.facts.values.items()}
    assert texts["Name"] == "CMU-1-Small-Region.svs"
    assert texts["Size"] == "2 220 x 2 967 px\n1.108 x 1.481 mm"
    assert texts["Pixel"] == "0.499 µm/px\nstated by the file"
    assert texts["Objective"] == "20x"
    assert texts["Content"] == opened.info.fingerprint[:12]
    assert dock.facts.values["Size"].isVisible()
    assert not dock.facts.values["Scanned"].isVisible(), "the file states no bounds"
    qtbot.mouseClick(dock.facts.copy_button, LEFT)
    assert QApplication.clipboard().text() == opened.info.fingerprint
    assert dock.slide_box.currentText() == "CMU-1-Small-Region.svs"


def test_magnification_buttons_and_readout(qtbot, dock, real, viewer):
    open_and_wait(qtbot, dock, real)
    ratio = dock.devicePixelRatioF()
    center = viewer.scene.camera.center
    for power, button in dock.navigation.magnification_buttons.items():
        qtbot.mouseClick(button, LEFT)
        um_per_pixel = 1 / (viewer.scene.camera.zoom * ratio)
        assert um_per_pixel == pytest.approx(10 / power)
        said = f"<b>{power:g}x</b>, {10 / power:#.2g} µm/px"
        qtbot.wait(READOUT_MS + 50)
        assert dock.navigation.readout.text().startswith(said)
        assert viewer.scene.camera.center == center
    qtbot.mouseClick(dock.navigation.native_button, LEFT)
    assert viewer.scene.camera.zoom * ratio == pytest.approx(1 / 0.499)
    qtbot.mouseClick(dock.navigation.fit_button, LEFT)
    height, width = viewer.canvas.size
    fits = min(height / (2967 * 0.499), width / (2220 * 0.499))
    assert viewer.scene.camera.zoom == pytest.approx(0.92 * fits)


def test_keys_do_what_the_buttons_do(qtbot, dock, real, viewer):
    open_and_wait(qtbot, dock, real)
    qtbot.keyClick(dock.window(), Qt.Key.Key_4, Qt.KeyboardModifier.ControlModifier)
    assert 1 / (viewer.scene.camera.zoom * dock.devicePixelRatioF()) == pytest.approx(1.0)
    qtbot.keyClick(dock.window(), Qt.Key.Key_7, Qt.KeyboardModifier.ControlModifier)
    assert viewer.scene.camera.center[-2:] == pytest.approx((2967 * 0.499 / 2, 2220 * 0.499 / 2))


def test_question_mark_shows_the_sheet_of_keys(qtbot, dock):
    dock.activateWindow()
    qtbot.waitUntil(lambda: dock.window().isActiveWindow())
    qtbot.keyClick(dock.window(), "?")
    (sheet,) = dock.window().findChildren(KeySheet)
    assert sheet.isVisible()
    sheet.reject()
    qtbot.mouseClick(dock.keys_button, LEFT)
    qtbot.waitUntil(lambda: any(each.isVisible() for each in dock.window().findChildren(KeySheet)))
    for each in dock.window().findChildren(KeySheet):
        each.reject()


def test_go_to_a_place_in_micrometres_and_in_pixels(qtbot, dock, real, viewer):
    open_and_wait(qtbot, dock, real)
    navigation = dock.navigation
    qtbot.mouseClick(navigation.magnification_buttons[20.0], LEFT)
    zoom = viewer.scene.camera.zoom
    navigation.x_edit.setValue(300.0)
    navigation.y_edit.setValue(400.0)
    qtbot.mouseClick(navigation.go_button, LEFT)
    assert viewer.scene.camera.center[-2:] == pytest.approx((400, 300))
    qtbot.wait(READOUT_MS + 50)
    assert "middle at x 300 µm, y 400 µm" in navigation.readout.text()
    navigation.unit_box.setCurrentText("px")
    navigation.x_edit.setValue(1000)
    navigation.y_edit.setValue(5000)  # beyond the slide: held at its edge
    qtbot.keyClick(navigation.y_edit, Qt.Key.Key_Return)
    assert viewer.scene.camera.center[-2:] == pytest.approx((2967 * 0.499, 499))
    assert viewer.scene.camera.zoom == zoom


def test_scale_bar_in_micrometres(qtbot, dock, real, viewer):
    open_and_wait(qtbot, dock, real)
    bar = viewer.canvas.overlays.scale_bar
    assert bar.visible
    dock.navigation.scale_bar_box.click()
    assert not bar.visible


def test_pictures_are_shown_on_demand_and_the_label_warns(qtbot, dock, real):
    open_and_wait(qtbot, dock, real)
    pictures = dock.associated
    assert set(pictures.buttons) == {"thumbnail", "label", "macro"}
    assert not any(picture.isVisible() for picture in pictures.pictures.values())
    assert "name" in pictures.buttons["label"].toolTip()
    assert "name" not in pictures.buttons["macro"].toolTip()
    for name in ("macro", "label"):
        pictures.buttons[name].click()
        assert pictures.pictures[name].isVisible()
        assert pictures.pictures[name].width() <= dock.width()
        assert pictures.buttons[name].text() == "Hide"
    pictures.buttons["macro"].click()
    assert not pictures.pictures["macro"].isVisible()


def test_a_picture_shows_the_pixels_of_the_file(qtbot, dock, array_slide, checkered):
    picture = np.zeros((40, 61, 3), np.uint8)  # a width that Qt would pad
    picture[:20] = (250, 10, 30)
    session(dock._session.viewer).add_slide(
        slide_layer(array_slide(checkered, pictures={"macro": picture}))
    )
    dock.associated.buttons["macro"].click()
    image = dock.associated.pictures["macro"].pixmap().toImage()
    quarter = image.height() // 4
    for x in (1, image.width() // 2, image.width() - 2):
        assert image.pixelColor(x, quarter).getRgb()[:3] == (250, 10, 30)
        assert image.pixelColor(x, 3 * quarter).getRgb()[:3] == (0, 0, 0)


def test_missing_mpp_is_asked_for_used_and_remembered(qtbot, dock, write_slide, viewer):
    path = write_slide(np.full((1000, 1200, 3), 200, np.uint8), mpp=None)
    opened = open_and_wait(qtbot, dock, path)
    qtbot.waitUntil(lambda: bool(dock.findChildren(MppDialog)))
    (question,) = dock.findChildren(MppDialog)
    button = dock.navigation.magnification_buttons[10.0]
    assert not button.isEnabled()
    assert "µm/px" in button.toolTip()
    assert not viewer.canvas.overlays.scale_bar.visible
    qtbot.keyClicks(question.edit, "0.25")
    qtbot.mouseClick(question.accept_button, LEFT)
    assert opened.info.mpp_xy == (0.25, 0.25)
    assert button.isEnabled()
    assert "given by you" in dock.facts.values["Pixel"].text()
    assert viewer.canvas.overlays.scale_bar.visible
    session(viewer).close_slide(opened)
    again = open_and_wait(qtbot, dock, path)
    assert again.info.mpp_xy == (0.25, 0.25)
    assert "earlier" in dock.facts.values["Pixel"].text()
    qtbot.wait(50)
    assert not any(each.isVisible() for each in dock.findChildren(MppDialog))


def test_without_scale_one_can_look_and_say_it_later(qtbot, dock, write_slide):
    opened = open_and_wait(qtbot, dock, write_slide(np.zeros((500, 500, 3), np.uint8), mpp=None))
    qtbot.waitUntil(lambda: bool(dock.findChildren(MppDialog)))
    (question,) = dock.findChildren(MppDialog)
    qtbot.mouseClick(question.skip_button, LEFT)
    qtbot.waitUntil(lambda: not dock.findChildren(MppDialog))
    assert not opened.has_mpp
    assert dock.facts.values["Pixel"].text() == "unknown µm/px"
    qtbot.mouseClick(dock.facts.mpp_button, LEFT)
    (question,) = dock.findChildren(MppDialog)
    qtbot.keyClicks(question.edit, "0.5")
    qtbot.mouseClick(question.accept_button, LEFT)
    assert opened.info.mpp_xy == (0.5, 0.5)


def test_every_slide_without_scale_is_asked_for(qtbot, dock, array_slide, checkered, viewer):
    held = session(viewer)
    for name, power in (("first.tiff", 20), ("second.tiff", 40)):
        held.add_slide(slide_layer(array_slide(checkered, None, name=name, power=power)))
    qtbot.waitUntil(lambda: len(dock.findChildren(MppDialog)) == 2)
    questions = dock.findChildren(MppDialog)
    assert sorted(each.edit.text() for each in questions) == ["0.25", "0.5"]
    for each in questions:
        each.reject()


def test_a_broken_file_is_a_dialog_and_nothing_else(qtbot, dock, data_dir, viewer):
    dock.open_path(data_dir / "wsi-broken" / "broken.svs")
    qtbot.waitUntil(lambda: bool(dock.findChildren(ErrorDialog)), timeout=10_000)
    (dialog,) = dock.findChildren(ErrorDialog)
    assert "broken.svs" in dialog.sentence
    assert dock.open_button.isEnabled()
    assert dock.open_button.text() == "Open slide…"
    assert len(viewer.layers) == 0
    dialog.reject()


def test_files_and_folders_are_asked_for(qtbot, dock, real):
    qtbot.mouseClick(dock.folder_button, LEFT)
    (asked,) = dock.findChildren(QFileDialog)
    assert asked.fileMode() == QFileDialog.FileMode.Directory
    asked.reject()
    qtbot.waitUntil(lambda: not dock.findChildren(QFileDialog))
    qtbot.mouseClick(dock.open_button, LEFT)
    (asked,) = dock.findChildren(QFileDialog)
    for suffix in SLIDE_SUFFIXES:
        assert f"*{suffix}" in asked.nameFilters()[0]
    asked.setDirectory(str(real.parent))
    asked.selectFile(real.name)
    asked.accept()
    qtbot.waitUntil(lambda: dock._session.active is not None, timeout=30_000)
    assert dock._session.active.name == real.name


def test_a_dropped_file_is_opened(qtbot, dock, real):
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(real)), QUrl("https://example.org/slide.svs")])
    event = QDropEvent(
        QPointF(5, 5),
        Qt.DropAction.CopyAction,
        data,
        LEFT,
        Qt.KeyboardModifier.NoModifier,
    )
    dock.dropEvent(event)
    qtbot.waitUntil(lambda: dock._session.active is not None, timeout=30_000)
    assert dock._session.active.name == real.name


def test_a_slide_opened_by_napari_itself_is_adopted(dock, real, viewer):
    viewer.open(real, plugin="napari-histomil")
    held = session(viewer)
    assert [each.name for each in held.slides] == [real.name]
    assert dock.facts.values["Pixel"].text().startswith("0.499 µm/px")
    viewer.open_sample("napari-histomil", "synthetic")
    assert [each.name for each in held.slides] == [real.name, "synthetic-lymph-node.tiff"]
    assert [layer.visible for layer in viewer.layers] == [False, True, True]
    slides = [each.slide for each in held.slides]
    viewer.layers.clear()
    for slide in slides:
        with pytest.raises(SlideError):
            slide.read_region((0, 0), 0, (8, 8))


def test_several_slides_are_shown_one_at_a_time(qtbot, dock, array_slide, checkered, viewer):
    held = session(viewer)
    first = held.add_slide(slide_layer(array_slide(checkered, name="first.tiff")))
    second = held.add_slide(slide_layer(array_slide(checkered, name="second.tiff")))
    assert dock.slide_box.count() == 2
    assert dock.slide_box.currentText() == "second.tiff"
    dock.slide_box.setCurrentIndex(0)
    dock.slide_box.activated.emit(0)
    assert (first.layer.visible, second.layer.visible) == (True, False)
    assert dock.facts.values["Name"].text() == "first.tiff"
    qtbot.mouseClick(dock.close_button, LEFT)
    assert held.slides == [second]
    assert second.layer.visible
    qtbot.mouseClick(dock.close_button, LEFT)
    assert dock.empty_label.isVisible()


def test_a_closed_dock_is_not_called_any_more(qtbot, viewer, array_slide, checkered):
    widget = viewer.window.add_plugin_dock_widget("napari-histomil", "Slide")[1]
    gone = []
    widget.destroyed.connect(lambda: gone.append(True))
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    qtbot.waitUntil(lambda: bool(gone))
    session(viewer).add_slide(slide_layer(array_slide(checkered)))
    viewer.scene.camera.zoom = 3.0
    qtbot.keyClick(viewer.window.add_dock_widget(_label()).window(), Qt.Key.Key_4,
                   Qt.KeyboardModifier.ControlModifier)  # fmt: skip
    assert viewer.scene.camera.zoom == 3.0


def _label():
    from qtpy.QtWidgets import QLabel

    return QLabel("any dock")
