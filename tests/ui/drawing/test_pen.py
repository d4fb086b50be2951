"""A pen on a tablet: what the system says of it goes all the way through Qt to the tools."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from qtpy import API_NAME, QtCore
from qtpy.QtCore import QPointF, Qt
from qtpy.QtGui import QInputDevice, QPointingDevice, QPointingDeviceUniqueId
from qtpy.QtWidgets import QApplication
from shapely.geometry import Polygon, box

LEFT, NO_BUTTON = Qt.MouseButton.LeftButton.value, 0
ENTRY = (
    "_ZN22QWindowSystemInterface17handleTabletEventEP7QWindowPK15QPointingDeviceRK7QPointFS7_"
    "6QFlagsIN2Qt11MouseButtonEEdddddiS8_INS9_16KeyboardModifierEE"
)
"""Where the part of Qt that knows the system hands over what a pen does, by its name in C++."""


class Pen:
    """Says what the driver of a tablet would say."""

    def __init__(self, hand, *, eraser: bool = False) -> None:
        from PyQt6 import sip

        library = Path(QtCore.__file__).parent.parent / "PyQt6" / "Qt6" / "lib" / "libQt6Gui.so.6"
        self._say = getattr(ctypes.CDLL(str(library)), ENTRY)
        self._say.restype = None
        kinds, at = QPointingDevice.PointerType, QInputDevice.Capability
        self._device = QPointingDevice(
            "pen", 77, QInputDevice.DeviceType.Stylus,
            kinds.Eraser if eraser else kinds.Pen, at.Position | at.Pressure, 1, 1, "",
            QPointingDeviceUniqueId.fromNumericId(5),
        )  # fmt: skip
        self._address = sip.unwrapinstance
        self._hand = hand

    def at(self, place, *, down: bool) -> None:
        """Be at a place of the slide, the tip down or not."""
        hand = self._hand
        window = hand.canvas.window()
        here = QPointF(hand.canvas.mapTo(window, hand.on_canvas(place)))
        there = QPointF(hand.canvas.mapToGlobal(hand.on_canvas(place)))
        double = ctypes.c_double
        self._say(
            ctypes.c_void_p(self._address(window.windowHandle())),
            ctypes.c_void_p(self._address(self._device)),
            (double * 2)(here.x(), here.y()),
            (double * 2)(there.x(), there.y()),
            ctypes.c_int(LEFT if down else NO_BUTTON),
            double(0.5 if down else 0.0), double(0), double(0), double(0), double(0),
            ctypes.c_int(0),
            ctypes.c_int(0),
        )  # fmt: skip
        QApplication.processEvents()

    def stroke(self, places) -> None:
        """Draw through places of the slide."""
        self.at(places[0], down=False)
        for place in places:
            self.at(place, down=True)
        self.at(places[-1], down=False)


@pytest.fixture
def pen(hand):
    if API_NAME != "PyQt6" or QApplication.platformName() != "xcb":
        pytest.skip("Only of PyQt6 on X11 it is known where to say what a pen does.")
    return Pen(hand)


def around(x, y, r):
    return [(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r), (x - r, y - r + 5)]


def test_a_pen_draws_taps_and_its_eraser_takes_away(hand, pen):
    assert QApplication.testAttribute(
        Qt.ApplicationAttribute.AA_SynthesizeMouseForUnhandledTabletEvents
    )
    hand.state.set_tool("freehand")
    pen.stroke(around(300, 300, 100))
    assert hand.last.geometry.hausdorff_distance(box(200, 200, 400, 400)) < 10

    eraser = Pen(hand, eraser=True)
    eraser.stroke(around(400, 300, 40))
    assert len(hand.shapes) == 1
    left = box(200, 200, 400, 400).difference(box(360, 260, 440, 340))
    assert hand.last.geometry.symmetric_difference(left).area < 0.05 * left.area
    pen.stroke(around(600, 600, 50))
    assert len(hand.shapes) == 2, "the tip draws again"

    hand.state.set_tool("polygon")
    corners = [(700, 100), (800, 100), (800, 200)]
    for corner in corners:
        pen.stroke([corner])
    pen.stroke([(700, 200)])
    pen.stroke([(700, 200)])  # a double tap ends it
    assert hand.last.geometry.hausdorff_distance(Polygon([*corners, (700, 200)])) < 6


def test_with_no_tool_in_the_hand_a_pen_moves_the_view(hand, pen):
    hand.state.set_tool("move")
    before = tuple(hand.viewer.scene.camera.center)
    pen.stroke([(500, 400), (480, 390), (400, 350), (300, 300)])
    assert tuple(hand.viewer.scene.camera.center) != before
    assert not hand.shapes
