"""The sheet of glass over the canvas on which previews are painted: no layer is drawn for them.

It lets the mouse through and is as quick as the hand: the slide under it is not drawn anew.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from qtpy.QtCore import QEvent, QObject, QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPainterPath, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QWidget

from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.drawing.preview import Path, Preview
from napari_histomil.ui.layers import to_px0, to_world_um
from napari_histomil.ui.orientation import canvas_step, center_of_world, world_step

HANDLE_PX = 3.5
"""Half the side of a handle."""

MOST_HANDLES = 2000
"""More than these in view would be a smear."""

HALO = QColor(0, 0, 0, 110)
"""Under thin lines, which are seen on light and on dark tissue then."""


def to_canvas(viewer: Any, info: SlideInfo, xy_px0: ArrayLike) -> NDArray[np.float64]:
    """Convert level-0 positions [..., 2], (x, y), to logical pixels (x, y) of the canvas."""
    aside = to_world_um(xy_px0, info) - center_of_world(viewer)
    return canvas_step(viewer, aside) + np.array(viewer.canvas.size[::-1]) / 2


def from_canvas(viewer: Any, info: SlideInfo, xy: ArrayLike) -> NDArray[np.float64]:
    """Convert logical pixels of the canvas to level-0 positions: the inverse of `to_canvas`."""
    step = np.asarray(xy, float) - np.array(viewer.canvas.size[::-1]) / 2
    return to_px0(center_of_world(viewer) + world_step(viewer, step), info)


class Overlay(QWidget):
    """Previews over the canvas of a viewer.

    Parameters
    ----------
    viewer
        Whose canvas it is; held weakly.
    canvas
        The widget that is painted over.
    look
        Returns what is to be seen, the slide's facts, and where the pointer is on the canvas.
    """

    def __init__(
        self,
        viewer: Any,
        canvas: QWidget,
        look: Callable[[], tuple[Preview, SlideInfo | None, QPointF | None]],
    ) -> None:
        super().__init__(canvas)
        self._viewer = weakref.ref(viewer)
        self._look = weakref.WeakMethod(look)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAttribute(Qt.WidgetAttribute.WA_NoSystemBackground)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        canvas.installEventFilter(self)
        self.resize(canvas.size())

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Be as large as the canvas."""
        if event.type() == QEvent.Type.Resize:
            self.resize(self.parentWidget().size())
        return False

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint what is to be seen."""
        viewer, look = self._viewer(), self._look()
        if viewer is None or look is None:
            return
        preview, info, pointer = look()
        if info is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        scale = float(np.linalg.norm(_one_px0(viewer, info)))
        for path in preview.paths:
            self._paint_path(painter, path, to_canvas(viewer, info, path.xy_px0), scale)
        if len(preview.handles):
            self._paint_handles(painter, to_canvas(viewer, info, preview.handles))
        if preview.held is not None:
            x, y = to_canvas(viewer, info, preview.held)
            painter.setPen(QPen(QColor(0, 0, 0), 1))
            painter.setBrush(QColor(255, 60, 60))
            painter.drawRect(_square(x, y, HANDLE_PX + 1.5))
        if preview.brush_px0 and pointer is not None:
            self._paint_circle(painter, pointer, preview.brush_px0 * scale / 2, preview)
        if preview.text and preview.text_at is not None:
            self._paint_text(painter, preview.text, to_canvas(viewer, info, preview.text_at))
        painter.end()

    def _paint_path(
        self, painter: QPainter, path: Path, xy: NDArray[np.float64], scale: float
    ) -> None:
        color = QColor(*path.color)
        outline = QPainterPath()
        outline.addPolygon(QPolygonF([QPointF(x, y) for x, y in xy.tolist()]))
        if path.closed:
            outline.closeSubpath()
        painter.setBrush(Qt.BrushStyle.NoBrush)
        if path.width_px0:
            color.setAlpha(110)
            pen = QPen(color, max(path.width_px0 * scale, 1.0))
            pen.setCapStyle(Qt.PenCapStyle.RoundCap)
            pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
            painter.setPen(pen)
            if len(xy) == 1:
                painter.drawPoint(QPointF(*xy[0]))
            else:
                painter.drawPath(outline)
            return
        if path.filled:
            tint = QColor(color)
            tint.setAlpha(40)
            painter.fillPath(outline, tint)
        painter.setPen(QPen(HALO, 3.5))
        painter.drawPath(outline)
        pen = QPen(color, 1.6)
        if path.dashed:
            pen.setStyle(Qt.PenStyle.DashLine)
        painter.setPen(pen)
        painter.drawPath(outline)

    def _paint_handles(self, painter: QPainter, xy: NDArray[np.float64]) -> None:
        size = self.size()
        inside = (xy >= -HANDLE_PX).all(axis=1)
        inside &= (xy[:, 0] <= size.width() + HANDLE_PX) & (xy[:, 1] <= size.height() + HANDLE_PX)
        seen = xy[inside]
        if len(seen) > MOST_HANDLES:
            return
        painter.setPen(QPen(QColor(0, 0, 0), 1))
        painter.setBrush(QColor(255, 255, 255))
        painter.drawRects([_square(x, y, HANDLE_PX) for x, y in seen.tolist()])

    def _paint_circle(
        self, painter: QPainter, at: QPointF, radius: float, preview: Preview
    ) -> None:
        painter.setBrush(Qt.BrushStyle.NoBrush)
        for color, width in ((HALO, 3.0), (QColor(*preview.brush_color), 1.5)):
            painter.setPen(QPen(color, width))
            painter.drawEllipse(at, radius, radius)

    def _paint_text(self, painter: QPainter, text: str, xy: NDArray[np.float64]) -> None:
        metrics = painter.fontMetrics()
        box = QRectF(metrics.boundingRect(text)).adjusted(-6, -4, 6, 4)
        box.moveTopLeft(QPointF(xy[0] + 12, xy[1] + 12))
        box.moveRight(min(box.right(), self.width() - 4))
        box.moveBottom(min(box.bottom(), self.height() - 4))
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(20, 20, 20, 200))
        painter.drawRoundedRect(box, 4, 4)
        painter.setPen(QColor(255, 255, 255))
        painter.drawText(box, Qt.AlignmentFlag.AlignCenter, text)


def _one_px0(viewer: Any, info: SlideInfo) -> NDArray[np.float64]:
    """Return how far a level-0 pixel along x reaches on the canvas."""
    return canvas_step(viewer, to_world_um((1.0, 0.0), info))


def _square(x: float, y: float, half: float) -> QRectF:
    return QRectF(x - half, y - half, 2 * half, 2 * half)
