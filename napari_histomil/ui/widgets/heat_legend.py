"""The legend of a MIL run over the canvas: the answer, what the colours mean and do not mean.

Like the legend of the regions it is a child of napari's canvas widget and lets the mouse through.
"""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject, QRectF, QSize, Qt, QTimer
from qtpy.QtGui import QFont, QFontMetrics, QImage, QPainter, QPaintEvent
from qtpy.QtWidgets import QWidget

from napari_histomil.ui import camera
from napari_histomil.ui.answers import headline
from napari_histomil.ui.attention_maps import level_name
from napari_histomil.ui.attention_view import HOT, AttentionView, spread_text
from napari_histomil.ui.colours import colour_steps
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.session import RunView
from napari_histomil.ui.widgets.legend import (
    CORNERS,
    MARGIN_PX,
    PAD_PX,
    SMALLEST_CANVAS,
    Legend,
    begin_sheet,
)
from napari_histomil.ui.widgets.minimap import on_canvas
from napari_histomil.ui.widgets.panel import follow

WIDTH_PX = 272
BAR_PX = 12
CORNER_ORDER = ("top_left", "bottom_left", "bottom_right")
"""Where it may stand, the best first: the regions' legend begins at the bottom."""


class HeatLegend(QWidget):
    """The answer, the title of the map, its colours, and what the scale says or does not say."""

    def __init__(self, viewer: Any, canvas: QWidget) -> None:
        super().__init__(canvas)
        self._viewer = viewer
        self._view: AttentionView | None = None
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAttribute(Qt.WidgetAttribute.WA_NoSystemBackground)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.refresh)
        canvas.installEventFilter(self)
        self._overlays = overlays(viewer)
        follow(self, self._overlays.current_changed, self._show_run)
        follow(self, self._overlays.shown_changed, self._later)
        follow(self, viewer.events.theme, self._later)
        self.destroyed.connect(lambda: self._let_go())
        self.hide()
        self._show_run(self._overlays.current)

    def _show_run(self, run: RunView | None) -> None:
        self._let_go()
        self._view = run.attention if run is not None else None
        if self._view is not None:
            self._view.changed.connect(self._later)
        self._later()

    def _let_go(self) -> None:
        if self._view is not None:
            self._view.changed.disconnect(self._later)
        self._view = None

    def _later(self, _: Any = None) -> None:
        self._timer.start(0)

    @property
    def lines(self) -> tuple[list[str], list[str]]:
        """What is written above the colours, and below them; the first line is the answer."""
        view = self._view
        if view is None:
            return [], []
        above = [
            headline(view.run),
            f"{view.title}, {level_name(view.run, view.level, short=True)}",
        ]
        below = []
        if view.warns_of_hot:
            below.append(HOT)
        if spread_text(view):
            below.append(spread_text(view))
        if view.smooth:
            below.append("picture smoothed by a patch")
        return above, below

    def refresh(self) -> None:
        """Say what is shown now, in a corner that is free now."""
        canvas, current = self.parentWidget(), self._overlays.current
        roomy = canvas.width() >= SMALLEST_CANVAS[0] and canvas.height() >= SMALLEST_CANVAS[1]
        seen = current is not None and current.layer.visible
        if self._view is None or not roomy or not seen:
            self.hide()
            return
        self.resize(self.sizeHint())
        corner = self._free_corner()
        self.move(
            MARGIN_PX if corner.endswith("left") else canvas.width() - self.width() - MARGIN_PX,
            MARGIN_PX if corner.startswith("top") else canvas.height() - self.height() - MARGIN_PX,
        )
        self.update()
        self.show()
        self.raise_()

    def _free_corner(self) -> str:
        """Return a corner that neither napari's own nor the regions' legend stands in."""
        taken = {
            str(getattr(overlay, "position", ""))
            for overlay in self._viewer.canvas.overlays.values()
            if overlay.visible
        }
        other = self.parentWidget().findChild(Legend)
        if other is not None and other.isVisible():
            taken |= {
                corner
                for corner in CORNERS
                if corner.endswith("left") == (other.x() < self.parentWidget().width() / 2)
                and corner.startswith("top") == (other.y() < self.parentWidget().height() / 2)
            }
        return next((corner for corner in CORNER_ORDER if corner not in taken), CORNER_ORDER[0])

    def sizeHint(self) -> QSize:
        """Return the size of all lines and the colours."""
        above, below = self.lines
        high = sum(self._height(text, bold=n == 0) for n, text in enumerate(above))
        high += BAR_PX + self._line_px + 8 + sum(self._height(text) for text in below)
        return QSize(WIDTH_PX, high + 2 * PAD_PX)

    @property
    def _line_px(self) -> int:
        return self.fontMetrics().lineSpacing()

    def _font(self, bold: bool) -> QFont:
        font = QFont(self.font())
        font.setBold(bold)
        return font

    def _height(self, text: str, *, bold: bool = False) -> int:
        room = QRectF(0, 0, WIDTH_PX - 2 * PAD_PX, 1000).toRect()
        metrics = QFontMetrics(self._font(bold))
        return metrics.boundingRect(room, int(Qt.TextFlag.TextWordWrap), text).height() + 3

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Stay in the corner, and know the screen."""
        if event.type() in (QEvent.Type.Resize, camera.NEW_SCREEN):
            self._later()
        return False

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint lines and colours on a sheet in the colours of the theme."""
        view = self._view
        if view is None:
            return
        painter = begin_sheet(self, self._viewer)
        above, below = self.lines
        y = float(PAD_PX)
        for n, words in enumerate(above):
            y = self._write(painter, words, y, bold=n == 0)
        y = self._paint_colours(painter, view, y + 2)
        for words in below:
            y = self._write(painter, words, y, bold=words == HOT)
        painter.end()

    def _write(self, painter: QPainter, words: str, y: float, *, bold: bool) -> float:
        painter.setFont(self._font(bold))
        high = self._height(words, bold=bold)
        room = QRectF(PAD_PX, y, WIDTH_PX - 2 * PAD_PX, high)
        painter.drawText(room, int(Qt.TextFlag.TextWordWrap), words)
        return y + high

    def _paint_colours(self, painter: QPainter, view: AttentionView, y: float) -> float:
        steps = colour_steps(view.colours)
        image = QImage(steps.tobytes(), len(steps), 1, 3 * len(steps), QImage.Format.Format_RGB888)
        wide = WIDTH_PX - 2 * PAD_PX
        left = PAD_PX + wide * view.cut
        painter.save()
        painter.setClipRect(QRectF(left, y, PAD_PX + wide - left, BAR_PX))
        painter.drawImage(QRectF(PAD_PX, y, wide, BAR_PX), image)
        painter.restore()
        painter.drawRect(QRectF(PAD_PX, y, wide - 1, BAR_PX))
        painter.setFont(self._font(bold=False))
        room = QRectF(PAD_PX, y + BAR_PX + 2, wide, self._line_px)
        low, high = view.scale_ends
        painter.drawText(room, int(Qt.AlignmentFlag.AlignLeft), low)
        painter.drawText(room, int(Qt.AlignmentFlag.AlignHCenter), view.scale_title)
        painter.drawText(room, int(Qt.AlignmentFlag.AlignRight), high)
        return room.bottom() + 4


def attach_heat_legend(viewer: Any, widget: QWidget) -> HeatLegend | None:
    """Return the legend of a viewer; see `on_canvas`."""
    return on_canvas(HeatLegend, viewer, widget)
