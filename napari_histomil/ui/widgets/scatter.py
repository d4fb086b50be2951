"""Points of a plane to look at: wheel and right button move, the left one draws a lasso.

Drawn by Qt from one picture (`ui/scatter_picture.py`), which is made anew only where the view or
the colours change. No OpenGL: a second canvas in a dock loses its context when the dock floats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import (
    QColor,
    QImage,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QPolygonF,
    QResizeEvent,
    QWheelEvent,
)
from qtpy.QtWidgets import QWidget

from napari_histomil.ui.scatter_picture import View, paint

NEAR_PX = 8
"""A click within so many pixels of a point is on it."""

GROUND = "#16181d"
"""Behind the points, in every theme: colours of points are chosen for it."""

MARK = "#ffd54a"
MOST_RINGS = 100
"""Marked points that get a ring each; of more the others are faded."""

FADED = 0.25
"""Share of its colour that a point keeps where others are marked."""

RING_PX = 5
WHEEL_STEP = 1.2
CLICK_PX = 3


class Scatter(QWidget):
    """Points with colours, some of them marked."""

    lassoed = Signal(object)
    """int64 [M]: which points lie in the lasso."""
    clicked = Signal(int)
    """A point was clicked."""
    hovered = Signal(int)
    """The pointer is on a point; -1 for none."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.layout_xy: NDArray[np.float32] = np.empty((0, 2), np.float32)
        self._colours: NDArray[np.float32] = np.empty((0, 3), np.float32)
        self._marked: NDArray[np.int64] = np.empty(0, np.int64)
        self.view = View()
        self._picture: QImage | None = None
        self._lasso: list[QPointF] = []
        self._dragged: QPointF | None = None
        self._over = -1
        self._fitted = True
        self.setMouseTracking(True)
        self.setMinimumSize(160, 120)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setAccessibleName("Tiles by their features")
        self.setToolTip("")

    def sizeHint(self) -> QSize:
        """Ask for the room that a hundred thousand points need."""
        return QSize(480, 320)

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) of the picture, device pixels."""
        ratio = self.devicePixelRatioF()
        return max(round(self.width() * ratio), 1), max(round(self.height() * ratio), 1)

    def show_points(self, layout: NDArray[Any], colours: NDArray[np.float32]) -> None:
        """Show other points, all of them."""
        self.layout_xy = np.asarray(layout, np.float32)
        self._colours = colours
        self._marked = np.empty(0, np.int64)
        self.fit()

    def colour(self, colours: NDArray[np.float32]) -> None:
        """Colour the points otherwise, float32 [N, 3] from 0 to 1."""
        self._colours = colours
        self._renew()

    def mark(self, points: NDArray[np.int64]) -> None:
        """Mark other points: few by a ring each, many by fading all others."""
        faded = max(len(self._marked), len(points)) > MOST_RINGS
        self._marked = points
        if faded:
            self._renew()
        self.update()

    @property
    def marked(self) -> NDArray[np.int64]:
        """Which points are marked."""
        return self._marked

    def fit(self) -> None:
        """See all points."""
        self.view = View.fit(self.layout_xy, self.size_px)
        self._fitted = True
        self._renew()

    def _renew(self) -> None:
        self._picture = None
        self.update()

    def look(self, view: View) -> None:
        """See another part of the plane."""
        self.view = view
        self._fitted = False
        self._renew()

    def in_polygon(self, corners_px: NDArray[Any]) -> NDArray[np.int64]:
        """Return which points lie in a polygon, [K, 2] in device pixels."""
        if len(corners_px) < 3 or not len(self.layout_xy):
            return np.empty(0, np.int64)
        xy = self.view.to_pixels(self.layout_xy, self.size_px)
        shape = shapely.make_valid(shapely.Polygon(corners_px))
        shapely.prepare(shape)
        x0, y0, x1, y1 = shape.bounds
        near = np.flatnonzero(
            (xy[:, 0] >= x0) & (xy[:, 0] <= x1) & (xy[:, 1] >= y0) & (xy[:, 1] <= y1)
        )
        return near[shapely.contains_xy(shape, xy[near, 0], xy[near, 1])]

    def at(self, position: QPointF) -> int:
        """Return the point under a place, -1 for none."""
        if not len(self.layout_xy):
            return -1
        ratio = self.devicePixelRatioF()
        xy = self.view.to_pixels(self.layout_xy, self.size_px)
        away = ((xy - np.float32([position.x() * ratio, position.y() * ratio])) ** 2).sum(axis=1)
        nearest = int(away.argmin())
        return nearest if away[nearest] <= (NEAR_PX * ratio) ** 2 else -1

    # --- drawing ------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the picture, marks, and the lasso."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(GROUND))
        if len(self.layout_xy):
            if self._picture is None:
                pixels = paint(self.layout_xy, self._shown_colours(), self.view, self.size_px)
                height, width, _ = pixels.shape
                self._picture = QImage(
                    pixels.tobytes(), width, height, 4 * width, QImage.Format.Format_RGBA8888
                ).convertToFormat(QImage.Format.Format_ARGB32_Premultiplied)
            painter.drawImage(QRectF(self.rect()), self._picture)
            self._draw_marks(painter)
        if self._lasso:
            painter.setPen(QPen(QColor(MARK), 1.5, Qt.PenStyle.DashLine))
            painter.drawPolyline(QPolygonF(self._lasso))
        painter.end()

    def _shown_colours(self) -> NDArray[np.float32]:
        if len(self._marked) <= MOST_RINGS:
            return self._colours
        shown = self._colours * np.float32(FADED)
        shown[self._marked] = self._colours[self._marked]
        return shown

    def _draw_marks(self, painter: QPainter) -> None:
        if not 0 < len(self._marked) <= MOST_RINGS:
            return
        ratio = self.devicePixelRatioF()
        xy = self.view.to_pixels(self.layout_xy[self._marked], self.size_px) / ratio
        painter.setPen(QPen(QColor(MARK), 1.5))
        for x, y in xy.tolist():
            painter.drawEllipse(QPointF(x, y), RING_PX, RING_PX)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """See what was seen before; all points where all were seen."""
        super().resizeEvent(event)
        if self._fitted:
            self.fit()
        else:
            self._renew()

    # --- the mouse ----------------------------------------------------------------------------

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Begin a lasso, or a move of the view."""
        if event.button() == Qt.MouseButton.LeftButton:
            self._lasso = [event.position()]
        elif event.button() in (Qt.MouseButton.RightButton, Qt.MouseButton.MiddleButton):
            self._dragged = event.position()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Go on with either, or say what is under the pointer."""
        if self._lasso:
            self._lasso.append(event.position())
            self.update()
        elif self._dragged is not None:
            ratio = self.devicePixelRatioF()
            by = event.position() - self._dragged
            self._dragged = event.position()
            self.look(self.view.moved((by.x() * ratio, by.y() * ratio)))
        else:
            over = self.at(event.position())
            if over != self._over:
                self._over = over
                self.hovered.emit(over)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """End either."""
        self._dragged = None
        lasso, self._lasso = self._lasso, []
        if not lasso:
            return
        self.update()
        xs, ys = [p.x() for p in lasso], [p.y() for p in lasso]
        if max(xs) - min(xs) <= CLICK_PX and max(ys) - min(ys) <= CLICK_PX:
            found = self.at(event.position())
            if found >= 0:
                self.clicked.emit(found)
            return
        ratio = self.devicePixelRatioF()
        self.lassoed.emit(self.in_polygon(np.column_stack([xs, ys]) * ratio))

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """See all points."""
        self._lasso = []
        self.fit()

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Come closer, or go away, about the pointer."""
        ratio = self.devicePixelRatioF()
        steps = event.angleDelta().y() / 120
        at = event.position().x() * ratio, event.position().y() * ratio
        self.look(self.view.zoomed(WHEEL_STEP**steps, at, self.size_px))
        event.accept()
