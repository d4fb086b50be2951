"""The canvas of the second view, side by side with the first, and what is drawn over both.

Labels, the other view's pointer and the numbered points are drawn by Qt over the canvases: no
layer of the viewer is made for them, and moving them makes no canvas paint anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from napari.qt import QtViewer
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QObject, QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QBoxLayout, QToolButton, QVBoxLayout, QWidget

from napari_histomil.slides.alignment import PointPair
from napari_histomil.ui import camera
from napari_histomil.ui.draw_order import slice_before_drawing, widget_of
from napari_histomil.ui.joined import Side
from napari_histomil.ui.keys import hint
from napari_histomil.ui.linked import Linked
from napari_histomil.ui.orientation import canvas_step, center_of_world, view_signals
from napari_histomil.ui.words import times

SIDES: tuple[Side, Side] = ("left", "right")

_MARGIN = 8
_SCALE_BAR = 56
"""Room left at the bottom for napari's scale bar; the minimap is at the top."""
_CROSS = 14
_DOT = 5
_INK = QColor("#ffffff")
_SHADE = QColor(0, 0, 0, 190)
_POINT = QColor("#ffd54a")
"""Yellow, which is neither in H&E nor low or high in the colour maps."""


class CanvasMarks(QWidget):
    """What lies over one canvas: its label, the other view's pointer, numbered points.

    Attributes
    ----------
    lines
        The label's lines; magnification is added to them.
    pointer
        (row, col) in the world where the pointer of the other view is, or None.
    points
        (row, col) in the world by number.
    """

    def __init__(self, viewer: Any, canvas: QWidget, on_leave: Callable[[], None]) -> None:
        super().__init__(canvas)
        self._viewer = viewer
        self._canvas = canvas
        self._on_leave = on_leave
        self.lines: list[str] = []
        self.pointer: NDArray[np.float64] | None = None
        self.points: Mapping[int, NDArray[np.float64]] = {}
        self.scaled = True
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAttribute(Qt.WidgetAttribute.WA_NoSystemBackground)
        self.setGeometry(canvas.rect())
        canvas.installEventFilter(self)
        self._follows = view_signals(viewer)
        for signal in self._follows:
            signal.connect(self._on_camera)
        self.show()
        self.raise_()

    def let_go(self) -> None:
        """Hear no more of the canvas and the camera, and go."""
        self._canvas.removeEventFilter(self)
        for signal in self._follows:
            signal.disconnect(self._on_camera)
        self.hide()
        self.deleteLater()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Stay as large as the canvas, and notice when the pointer leaves it."""
        if event.type() == QEvent.Type.Resize:
            self.setGeometry(self._canvas.rect())
        elif event.type() == QEvent.Type.Leave:
            self._on_leave()
        return False

    def _on_camera(self, _event: Any) -> None:
        self.update()

    def magnification_text(self) -> str:
        """Return the magnification of the view as its label says it."""
        if not self.scaled:
            return "magnification unknown"
        return times(camera.magnification(self._viewer))

    def on_canvas(self, world: NDArray[np.float64]) -> QPointF:
        """Return where a (row, col) of the world is on the canvas, in logical pixels."""
        x, y = canvas_step(self._viewer, world - center_of_world(self._viewer))
        return QPointF(self.width() / 2 + x, self.height() / 2 + y)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw points, pointer and label, the label last."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        for number, world in self.points.items():
            self._draw_point(painter, number, self.on_canvas(world))
        if self.pointer is not None:
            self._draw_pointer(painter, self.on_canvas(self.pointer))
        self._draw_label(painter)
        painter.end()

    def _draw_pointer(self, painter: QPainter, at: QPointF) -> None:
        for pen in (QPen(_SHADE, 3.5), QPen(_INK, 1.5)):
            painter.setPen(pen)
            for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                painter.drawLine(at + 3 * QPointF(x, y), at + _CROSS * QPointF(x, y))

    def _draw_point(self, painter: QPainter, number: int, at: QPointF) -> None:
        painter.setBrush(Qt.BrushStyle.NoBrush)
        for pen in (QPen(_SHADE, 4), QPen(_POINT, 2)):
            painter.setPen(pen)
            painter.drawEllipse(at, _DOT, _DOT)
        metrics = painter.fontMetrics()
        text = str(number)
        box = QRectF(0, 0, metrics.horizontalAdvance(text) + 6, metrics.height())
        box.moveTopLeft(at + QPointF(_DOT + 3, -metrics.height() - 1))
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(_SHADE)
        painter.drawRoundedRect(box, 3, 3)
        painter.setPen(_POINT)
        painter.drawText(box, Qt.AlignmentFlag.AlignCenter, text)

    def _draw_label(self, painter: QPainter) -> None:
        metrics = painter.fontMetrics()
        room = self.width() - 2 * _MARGIN - 12
        if room < 40:
            return
        lines = [
            metrics.elidedText(line, Qt.TextElideMode.ElideMiddle, room)
            for line in (*self.lines, self.magnification_text())
        ]
        wide = max(metrics.horizontalAdvance(line) for line in lines)
        box = QRectF(_MARGIN, 0, wide + 12, metrics.lineSpacing() * len(lines) + 6)
        box.moveBottom(self.height() - _SCALE_BAR)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(_SHADE)
        painter.drawRoundedRect(box, 4, 4)
        painter.setPen(_INK)
        painter.drawText(box.adjusted(6, 3, 0, 0), Qt.AlignmentFlag.AlignLeft, "\n".join(lines))


class SecondView(QWidget):
    """The second canvas in the window, beside the first.

    Attributes
    ----------
    marks
        What lies over either canvas.
    close_button
        In the corner of the second canvas.
    """

    def __init__(self, linked: Linked, first: QtViewer) -> None:
        assert linked.view is not None
        room = first.parentWidget()
        super().__init__(room)
        self._linked = linked
        self._first = first
        self._window = first.window()
        self._qt_viewer = QtViewer(linked.view)
        self._qt_viewer.setAcceptDrops(False)  # files are opened in the first view
        column = QVBoxLayout(self)
        column.setContentsMargins(2, 0, 0, 0)
        column.addWidget(self._qt_viewer)
        canvases = {"left": first.canvas.native, "right": self._qt_viewer.canvas.native}
        viewers = {"left": linked.viewer, "right": linked.view}
        camera.set_canvas(linked.view, canvases["right"])
        slice_before_drawing(self._qt_viewer)
        self.marks: dict[Side, CanvasMarks] = {
            side: CanvasMarks(viewers[side], canvases[side], self._forget_pointer)
            for side in SIDES
        }
        self._pairs: list[PointPair] = []
        self._half: tuple[Side, tuple[float, float]] | None = None
        self.close_button = self._make_close_button(canvases["right"])
        for signal, slot in self._signals():
            signal.connect(slot)
        # The first canvas is closed when a script closes the viewer; a person's click on the
        # window's corner only deletes the window.
        first.installEventFilter(self)
        self._window.installEventFilter(self)
        self._update()
        layout = room.layout()
        if isinstance(layout, QBoxLayout):
            layout.setStretchFactor(first, 1)
            layout.addWidget(self, 1)
        else:
            layout.addWidget(self)

    def _signals(self) -> list[tuple[Any, Callable[..., Any]]]:
        linked = self._linked
        return [
            (linked.closed, self._remove),
            (linked.changed, self._update),
            (linked.pointed, self._on_pointed),
        ]

    def _make_close_button(self, canvas: QWidget) -> QToolButton:
        button = QToolButton(canvas)
        button.setText("✕")
        button.setToolTip(f"Close the second view{hint('compare.toggle')}")
        button.setCursor(Qt.CursorShape.ArrowCursor)
        button.setFixedSize(24, 24)
        button.setStyleSheet(
            "QToolButton{background: rgba(0, 0, 0, 190); color: white; border: none;"
            " border-radius: 4px} QToolButton:hover{background: rgba(90, 90, 90, 230)}"
        )
        button.clicked.connect(self._linked.close)
        canvas.installEventFilter(self)
        return button

    def show_pairs(
        self, pairs: list[PointPair], half: tuple[Side, tuple[float, float]] | None
    ) -> None:
        """Draw pairs of points with their numbers, and half a pair that is being placed."""
        self._pairs, self._half = list(pairs), half
        self._update()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Keep the button in its corner, and go before the window does."""
        kind = event.type()
        if (watched, kind) in (
            (self._first, QEvent.Type.Close),
            (self._window, QEvent.Type.DeferredDelete),
        ):
            self._linked.close()
        elif watched is self.close_button.parent() and kind == QEvent.Type.Resize:
            self._place_button()
        return False

    def _place_button(self) -> None:
        canvas = self.close_button.parentWidget()
        self.close_button.move(canvas.width() - self.close_button.width() - _MARGIN, _MARGIN)
        self.close_button.raise_()

    def _update(self, _changed: Any = None) -> None:
        """Say what the views show, and where the points are in them."""
        linked = self._linked
        if linked.view is None or linked.left is None:
            return
        for side, marks in self.marks.items():
            marks.lines = linked.label(side)
            if not linked.joined:
                marks.pointer = None  # the same place is elsewhere in the other view
            marks.scaled = linked.left.has_mpp
            places = [
                pair.first_px0 if side == "left" else pair.second_px0 for pair in self._pairs
            ]
            if self._half is not None and self._half[0] == side:
                places.append(self._half[1])
            marks.points = {
                number: linked.to_world(side, place)
                for number, place in enumerate(places, start=1)
            }
            marks.update()

    def _on_pointed(self, side: Side, world: NDArray[np.float64]) -> None:
        for each, marks in self.marks.items():
            marks.pointer = world if each != side and self._linked.joined else None
            marks.update()

    def _forget_pointer(self) -> None:
        for marks in self.marks.values():
            marks.pointer = None
            marks.update()

    def _remove(self) -> None:
        """Give the window back to the first view."""
        for signal, slot in self._signals():
            signal.disconnect(slot)
        self._first.removeEventFilter(self)
        self._window.removeEventFilter(self)
        self.close_button.parent().removeEventFilter(self)
        for marks in self.marks.values():
            marks.let_go()
        self.hide()
        layout = self.parentWidget().layout()
        layout.removeWidget(self)
        self._qt_viewer.close()  # deletes its canvas, and later itself
        self.deleteLater()


def show_second(linked: Linked) -> SecondView | None:
    """Put the second view into the window of the first; None where that has no window."""
    first = widget_of(linked.viewer)
    return SecondView(linked, first) if first is not None else None
