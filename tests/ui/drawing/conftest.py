"""A window with a slide and drawing on its canvas, and a hand that uses mouse and keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent, QWheelEvent
from qtpy.QtWidgets import QApplication, QLabel

from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.drawing.canvas import DrawingCanvas, attach_drawing
from napari_histomil.ui.drawing.overlay import from_canvas, to_canvas
from napari_histomil.ui.region_layers import RegionLayers, region_layers
from napari_histomil.ui.session import session

NONE = Qt.KeyboardModifier.NoModifier
SHIFT, CTRL = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier
LEFT = Qt.MouseButton.LeftButton

Place = tuple[float, float]


@dataclass
class Hand:
    """Real events on the real canvas; places are level-0 pixels (x, y)."""

    qtbot: Any
    viewer: Any
    drawing: DrawingCanvas

    @property
    def state(self) -> Annotator:
        return self.drawing.state

    @property
    def layers(self) -> RegionLayers:
        return region_layers(self.viewer)

    @property
    def canvas(self) -> Any:
        return self.drawing.parent()

    def on_canvas(self, place: Place) -> QPoint:
        x, y = to_canvas(self.viewer, self.state.slide.info, place)
        return QPoint(round(x), round(y))

    def at(self, place: Place) -> np.ndarray:
        """Return the place that a click there really has: that of a whole pixel."""
        point = self.on_canvas(place)
        return from_canvas(self.viewer, self.state.slide.info, (point.x(), point.y()))

    def click(self, place: Place, held: Any = NONE) -> None:
        self.press(place, held)
        self.release(place, held)

    def double(self, place: Place) -> None:
        self.click(place)
        self.qtbot.mouseDClick(self.canvas, LEFT, NONE, self.on_canvas(place))

    def press(self, place: Place, held: Any = NONE, button: Any = LEFT) -> None:
        self.qtbot.mousePress(self.canvas, button, held, self.on_canvas(place))

    def release(self, place: Place, held: Any = NONE, button: Any = LEFT) -> None:
        self.qtbot.mouseRelease(self.canvas, button, held, self.on_canvas(place))

    def move(self, place: Place, held: Any = NONE, *, button: Any = LEFT) -> None:
        self.move_on_canvas(self.on_canvas(place), held, button=button)

    def move_on_canvas(self, point: QPoint, held: Any = NONE, *, button: Any = LEFT) -> None:
        event = QMouseEvent(
            QEvent.Type.MouseMove,
            QPointF(point),
            QPointF(self.canvas.mapToGlobal(point)),
            Qt.MouseButton.NoButton,
            button,
            held,
        )
        QApplication.sendEvent(self.canvas, event)

    def drag(self, places: Sequence[Place], held: Any = NONE) -> None:
        self.press(places[0], held)
        for place in places[1:]:
            self.move(place, held)
        self.release(places[-1], held)

    def wheel(self, notches: int, held: Any = NONE) -> None:
        middle = QPointF(self.canvas.rect().center())
        event = QWheelEvent(
            middle,
            QPointF(self.canvas.mapToGlobal(middle.toPoint())),
            QPoint(),
            QPoint(0, 120 * notches),
            Qt.MouseButton.NoButton,
            held,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        QApplication.sendEvent(self.canvas, event)

    def key(self, key: Any, held: Any = NONE) -> None:
        self.qtbot.keyClick(self.canvas, key, held)

    def undo(self) -> None:
        self.key(Qt.Key.Key_Z, CTRL)

    def redo(self) -> None:
        self.key(Qt.Key.Key_Z, CTRL | SHIFT)

    @property
    def shapes(self) -> list[Any]:
        return [region.geometry for region in self.state.regions]

    @property
    def last(self) -> Any:
        return list(self.state.regions)[-1]

    def settle(self) -> None:
        """Let timers and the painting thread have their turn."""
        QApplication.processEvents()  # changes are told once a turn
        self.qtbot.waitUntil(lambda: self.layers.complete, timeout=5000)


@pytest.fixture
def hand(make_napari_viewer, qtbot, write_slide):
    """A hand over a white slide of 1000 x 800 px that is shown whole, with a dark square."""
    pixels = np.full((800, 1000, 3), 245, np.uint8)
    pixels[100:200, 700:800] = (120, 40, 130)
    viewer = make_napari_viewer(show=True)
    dock = viewer.window.add_dock_widget(QLabel("any dock"))
    session(viewer).open_slide(write_slide(pixels))
    drawing = attach_drawing(viewer, dock)
    QApplication.processEvents()
    hand = Hand(qtbot, viewer, drawing)
    session(viewer).fit(hand.state.slide.info)
    QApplication.processEvents()
    yield hand
    hand.settle()
    hand.state.close()
    viewer.window.remove_dock_widget(dock)
    hand.viewer = hand.drawing = None  # pytest keeps the hand, which must not keep the window
