"""The View section of the Slide dock: zoom by steps, 1:1, turn and mirror, what it says of it."""

from __future__ import annotations

import pytest
from napari.components import ViewerModel
from qtpy.QtCore import Qt

from napari_histomil.ui import camera
from napari_histomil.ui.keys import KEYS
from napari_histomil.ui.layers import center_of_view_px0, slide_layer
from napari_histomil.ui.orientation import STRAIGHT, Orientation, orientation_of
from napari_histomil.ui.session import session
from napari_histomil.ui.widgets.navigation import Navigation

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def viewer():
    viewer = ViewerModel()
    viewer.canvas.size = (500, 600)
    return viewer


@pytest.fixture
def slide(viewer, array_slide, checkered):
    return session(viewer).add_slide(slide_layer(array_slide(checkered)))


@pytest.fixture
def navigation(viewer, qtbot):
    widget = Navigation(viewer)
    qtbot.addWidget(widget)
    return widget


def press(viewer, name: str) -> None:
    """Do what napari does when it hears a key."""
    key = KEYS[name].key
    (found,) = [
        action for binding, action in viewer.keymap.items() if str(binding) == _as_text(key)
    ]
    found(viewer)


def _as_text(key: str) -> str:
    return key.replace("Control", "Ctrl").replace("-", "+")


def test_steps_of_zoom_are_the_magnifications(viewer, slide, navigation):
    navigation.show_info(slide.info)
    camera.set_magnification(viewer, 6.0)
    seen = []
    for name in ("zoom.in", "zoom.in", "zoom.in", "zoom.in", "zoom.out", "zoom.out"):
        press(viewer, name)
        seen.append(camera.magnification(viewer))
    assert seen == pytest.approx([10, 20, 40, 80, 40, 20])
    camera.set_magnification(viewer, 6.0)
    press(viewer, "zoom.out")
    assert camera.magnification(viewer) == pytest.approx(5)


def test_without_scale_the_steps_are_those_of_pixels(viewer, array_slide, checkered, navigation):
    info = session(viewer).add_slide(slide_layer(array_slide(checkered, None))).info
    navigation.show_info(info)
    press(viewer, "slide.native")
    ratio = camera.pixel_ratio_of(viewer)
    assert viewer.scene.camera.zoom * ratio == 1
    press(viewer, "zoom.in")
    assert viewer.scene.camera.zoom * ratio == pytest.approx(2)
    viewer.scene.camera.zoom = 0.3 / ratio
    press(viewer, "zoom.out")
    assert viewer.scene.camera.zoom * ratio == pytest.approx(0.25)
    assert "Scale unknown" in navigation.readout.text()


def test_keys_do_nothing_without_a_slide(viewer, navigation):
    zoom = viewer.scene.camera.zoom
    for name in ("zoom.in", "zoom.out", "slide.native", "slide.fit", "turn.right", "turn.reset"):
        press(viewer, name)
    assert viewer.scene.camera.zoom == zoom
    assert orientation_of(viewer) == STRAIGHT


def test_one_to_one_lays_pixels_on_pixels(viewer, slide):
    ratio = camera.pixel_ratio_of(viewer)
    camera.go_to_px0(viewer, slide.info, (700.3, 500.8))
    camera.set_native(viewer, slide.info)
    x, y = center_of_view_px0(viewer, slide.info)
    height, width = viewer.canvas.size
    assert (x - width * ratio / 2) % 1 == pytest.approx(0)
    assert (y - height * ratio / 2) % 1 == pytest.approx(0)
    assert (x, y) == pytest.approx((700.3, 500.8), abs=0.51)


def test_buttons_and_keys_turn_and_say_so(viewer, slide, navigation, qtbot):
    navigation.show_info(slide.info)
    buttons = navigation.turn_buttons
    assert not buttons["turn.reset"].isEnabled()
    assert camera.shows_whole(viewer, slide.info)
    middle = center_of_view_px0(viewer, slide.info)
    for name, words in (
        ("turn.right", "turned 90° right"),
        ("turn.right", "turned 180°"),
        ("mirror.left_right", "mirrored up-down"),
        ("turn.left", "turned 90° left, mirrored"),
        ("mirror.up_down", "turned 90° right"),
    ):
        if words == "turned 180°":
            press(viewer, name)
        else:
            qtbot.mouseClick(buttons[name], LEFT)
        assert orientation_of(viewer).text == words
        assert f"view {words}" in navigation.readout.text()
        assert center_of_view_px0(viewer, slide.info) == pytest.approx(middle)
        assert camera.shows_whole(viewer, slide.info)
    assert buttons["turn.reset"].isEnabled()
    press(viewer, "turn.reset")
    assert orientation_of(viewer) == STRAIGHT
    assert "view" not in navigation.readout.text()
    for name, button in buttons.items():
        assert KEYS[name].text in button.toolTip()


def test_a_whole_slide_stays_whole_when_a_turned_window_changes(viewer, slide, navigation):
    navigation.show_info(slide.info)
    press(viewer, "turn.right")
    viewer.canvas.size = (900, 400)
    assert camera.shows_whole(viewer, slide.info)
    camera.set_magnification(viewer, 20)
    press(viewer, "turn.right")
    assert camera.magnification(viewer) == pytest.approx(20), "what was not whole keeps its zoom"


def test_the_next_slide_begins_straight(viewer, slide, navigation, array_slide, checkered):
    navigation.show_info(slide.info)
    second = session(viewer).add_slide(slide_layer(array_slide(checkered, name="b.tiff")))
    press(viewer, "mirror.left_right")
    session(viewer).close_slide(second)
    assert orientation_of(viewer) == Orientation(0, mirrored=True), "another one is still open"
    session(viewer).close_slide(slide)
    assert orientation_of(viewer) == STRAIGHT
