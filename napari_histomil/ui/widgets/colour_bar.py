"""The legend of a heatmap: its colours from low to high, and where the threshold cuts."""

from __future__ import annotations

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QImage, QPainter, QPaintEvent, QPalette, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_histomil.ui.colours import DEFAULT, colour_steps

_BAR_HEIGHT = 14
_MARK = 6  # px, half the width of the threshold's mark


class ColourBar(QWidget):
    """Colours with the values of their ends below, and a mark at the threshold."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._colours = DEFAULT
        self._ends = ("", "")
        self._middle = ""
        self._cut = 0.0
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_scale(self, colours: str, ends: tuple[str, str], middle: str, cut: float) -> None:
        """Draw another scale.

        Parameters
        ----------
        colours
            A key of `colours.COLOUR_MAPS`.
        ends
            What the lowest and the highest colour stand for.
        middle
            What is measured, in words.
        cut
            Where the threshold lies on the scale, 0 to 1; colours below it are not shown.
        """
        self._colours, self._ends, self._middle, self._cut = colours, ends, middle, cut
        self.setAccessibleDescription(f"{middle}: {ends[0]} to {ends[1]}")
        self.update()

    def sizeHint(self) -> QSize:
        """Return the height that bar, mark and one line of text need."""
        return QSize(200, _BAR_HEIGHT + _MARK + 4 + self.fontMetrics().height())

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the bar, the mark and the labels."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        palette = self.palette()
        text = palette.color(QPalette.ColorRole.WindowText)
        if not self.isEnabled():
            text.setAlphaF(0.4)
            painter.setOpacity(0.4)
        left, width = float(_MARK), float(self.width() - 2 * _MARK)
        bar = QRectF(left, 0.5, width, _BAR_HEIGHT)
        steps = colour_steps(self._colours)
        image = QImage(steps.tobytes(), len(steps), 1, 3 * len(steps), QImage.Format.Format_RGB888)
        x = left + width * self._cut
        painter.save()
        painter.setClipRect(QRectF(x, 0, left + width - x, _BAR_HEIGHT + 1))
        painter.drawImage(bar, image)
        painter.restore()
        frame = QColor(text)
        frame.setAlphaF(frame.alphaF() * 0.5)
        painter.setPen(frame)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRect(bar)
        if self._cut > 0:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(text)
            top = bar.bottom() + 1
            painter.drawPolygon(
                QPolygonF(
                    [
                        QPointF(x, top),
                        QPointF(x - _MARK, top + _MARK),
                        QPointF(x + _MARK, top + _MARK),
                    ]
                )
            )
        painter.setPen(text)
        words = QRectF(0, bar.bottom() + _MARK + 2, self.width(), self.fontMetrics().height())
        painter.drawText(words, Qt.AlignmentFlag.AlignLeft, self._ends[0])
        painter.drawText(words, Qt.AlignmentFlag.AlignRight, self._ends[1])
        painter.drawText(words, Qt.AlignmentFlag.AlignHCenter, self._middle)
