"""The legend over the canvas: colour and name of each class that is drawn on the shown slide.

A child of napari's canvas widget, as the minimap is. It lets the mouse through, takes no keys, and
stands in a corner that neither the minimap nor anything of napari's own has.
"""

from __future__ import annotations

from typing import Any

from napari.utils.theme import get_theme
from qtpy.QtCore import QEvent, QObject, QRectF, QSize, Qt, QTimer, Signal
from qtpy.QtGui import QColor, QPainter, QPaintEvent
from qtpy.QtWidgets import QWidget

from napari_histomil.ui import camera
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.legend import LegendEntry, drawn_entries
from napari_histomil.ui.preferences import keep_legend_shown, shows_legend
from napari_histomil.ui.region_layers import region_layers
from napari_histomil.ui.tool_icons import chip
from napari_histomil.ui.widgets.minimap import on_canvas
from napari_histomil.ui.widgets.panel import follow
from napari_histomil.ui.words import count

MOST_LINES = 12
"""Classes that are listed; of the others it says how many there are."""

WIDEST_PX, WIDEST_SHARE = 240, 0.4
"""The legend is no wider, in logical pixels and as a share of the canvas: names are cut."""

HIGHEST_SHARE = 0.45
"""Nor is it higher than this share of the canvas."""

SMALLEST_CANVAS = (300, 200)
"""(width, height) of a canvas that has room for a legend beside the minimap."""

MARGIN_PX, PAD_PX, GAP_PX = 10, 7, 6
CHIP_PX = 12

BACK_ALPHA = 225
"""Of the background: a little of the slide is seen through it."""

CORNERS = ("bottom_left", "top_left", "bottom_right")
"""Where it may stand, the best first; the minimap has the fourth."""


class Legend(QWidget):
    """Names and colours of what is drawn on the slide."""

    shown_changed = Signal(bool)
    """The person wants to see it, or not."""

    def __init__(self, viewer: Any, canvas: QWidget) -> None:
        super().__init__(canvas)
        self._viewer = viewer
        self._state, self._layers = annotator(viewer), region_layers(viewer)
        self._wanted = shows_legend()
        self.entries: list[LegendEntry] = []
        """What is drawn on the slide."""
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAttribute(Qt.WidgetAttribute.WA_NoSystemBackground)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.refresh)
        canvas.installEventFilter(self)
        state = self._state
        for signal in (state.changed, state.class_changed, state.slide_changed):
            follow(self, signal, self._later)
        follow(self, self._layers.seen_changed, self._later)
        follow(self, viewer.events.theme, self._later)
        for overlay in viewer.canvas.overlays.values():
            if hasattr(overlay.events, "position"):
                follow(self, overlay.events.visible, self._later)
                follow(self, overlay.events.position, self._later)
        self.hide()
        self._later()

    @property
    def shown(self) -> bool:
        """Whether the person wants to see it; where nothing is drawn there is nothing to see."""
        return self._wanted

    @shown.setter
    def shown(self, shown: bool) -> None:
        if shown != self._wanted:
            self._wanted = shown
            keep_legend_shown(shown)
            self.refresh()
            self.shown_changed.emit(shown)

    def _later(self, _: Any = None) -> None:
        self._timer.start(0)

    def refresh(self) -> None:
        """Say what is drawn now, in a corner that is free now."""
        wanted = self._wanted and self._layers.seen
        self.entries = drawn_entries(self._state) if wanted else []
        canvas = self.parentWidget()
        roomy = canvas.width() >= SMALLEST_CANVAS[0] and canvas.height() >= SMALLEST_CANVAS[1]
        if not self.entries or not roomy:
            self.hide()
            return
        self.resize(self.sizeHint())
        corner = free_corner(self._viewer)
        left = corner.endswith("left")
        top = corner.startswith("top")
        self.move(
            MARGIN_PX if left else canvas.width() - self.width() - MARGIN_PX,
            MARGIN_PX if top else canvas.height() - self.height() - MARGIN_PX,
        )
        self.update()
        self.show()
        self.raise_()

    @property
    def lines(self) -> list[tuple[str, LegendEntry | None]]:
        """What is written, from top to bottom, with the class whose colour stands beside it."""
        room = int(HIGHEST_SHARE * self.parentWidget().height() - 2 * PAD_PX) // self._line_px
        most = max(min(MOST_LINES, room - 1), 1)
        listed = self.entries[:most]
        wide = self._widest_px - 2 * PAD_PX - CHIP_PX - GAP_PX
        metrics = self.fontMetrics()
        lines: list[tuple[str, LegendEntry | None]] = [
            (metrics.elidedText(each.name, Qt.TextElideMode.ElideRight, wide), each)
            for each in listed
        ]
        left = len(self.entries) - len(listed)
        return [*lines, (f"+ {count(left)} more", None)] if left else lines

    @property
    def _line_px(self) -> int:
        return max(self.fontMetrics().lineSpacing(), CHIP_PX) + 3

    @property
    def _widest_px(self) -> int:
        return min(WIDEST_PX, int(WIDEST_SHARE * self.parentWidget().width()))

    def sizeHint(self) -> QSize:
        """Return the size of all lines."""
        lines, metrics = self.lines, self.fontMetrics()
        words = max((metrics.horizontalAdvance(text) for text, _ in lines), default=0)
        return QSize(
            min(words + CHIP_PX + GAP_PX + 2 * PAD_PX, self._widest_px),
            len(lines) * self._line_px + 2 * PAD_PX - 3,
        )

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Stay in the corner, and know the screen."""
        if event.type() in (QEvent.Type.Resize, camera.NEW_SCREEN):
            self._later()
        return False

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint colours and names on a sheet in the colours of the theme."""
        painter = begin_sheet(self, self._viewer)
        high, y = self._line_px, PAD_PX - 1
        for words, entry in self.lines:
            x = PAD_PX
            if entry is not None:
                picture = chip(entry.color, CHIP_PX)
                painter.drawPixmap(x, y + (high - CHIP_PX) // 2, picture)
                x += CHIP_PX + GAP_PX
            row = QRectF(x, y, self.width() - x, high)
            painter.drawText(row, Qt.AlignmentFlag.AlignVCenter, words)
            y += high
        painter.end()


def begin_sheet(widget: QWidget, viewer: Any) -> QPainter:
    """Return a painter on a sheet in the colours of the theme, with the pen of its text."""
    theme = get_theme(viewer.theme)
    back, text, line = (
        QColor(*colour.as_rgb_tuple()[:3])
        for colour in (theme.background, theme.text, theme.foreground)
    )
    back.setAlpha(BACK_ALPHA)
    painter = QPainter(widget)
    painter.fillRect(widget.rect(), back)
    painter.setPen(line)
    painter.drawRect(widget.rect().adjusted(0, 0, -1, -1))
    painter.setPen(text)
    return painter


def free_corner(viewer: Any) -> str:
    """Return the corner of the canvas that nothing of napari's own stands in, of `CORNERS`."""
    taken = {
        str(getattr(overlay, "position", ""))
        for overlay in viewer.canvas.overlays.values()
        if overlay.visible
    }
    return next((corner for corner in CORNERS if corner not in taken), CORNERS[0])


def attach_legend(viewer: Any, widget: QWidget) -> Legend | None:
    """Return the legend of a viewer; see `on_canvas`."""
    return on_canvas(Legend, viewer, widget)
