"""Learning curves: loss and validation score against the step, drawn while they come."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPalette, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

TRAINING, VALIDATION = QColor(86, 150, 230), QColor(230, 140, 50)
"""Blue and orange of like lightness: apart for every colour vision, on dark and on light."""

METRICS = {"loss": "loss", "dice": "Dice", "auroc": "AUROC", "kappa": "κ"}
"""Scores of a look at the validation, in words."""

MOST_POINTS = 600
"""Points of a line that are drawn: more than a dock has pixels."""

_PLOT_PX = 84
_GAP_PX = 10

Points = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axis:
    """Numbers along a side, from `low` to `high`, with marks at round ones."""

    low: float
    high: float
    marks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Return where a value lies, 0 to 1."""
        return (value - self.low) / (self.high - self.low)


def axis(low: float, high: float, most_marks: int) -> Axis:
    """Return an axis that covers two values and ends at marks of 1, 2 or 5 times a power of 10."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / max(most_marks - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    marks = tuple(round(n * step, 12) for n in range(first, last + 1))
    return Axis(marks[0], marks[-1], marks)


class CurvesView(QWidget):
    """One or two plots below each other: loss, and the score that the weights are chosen by."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.steps = 1
        self.metric = "loss"
        self.training: Points = []
        """(step, loss)"""
        self.validation: Points = []
        """(step, loss)"""
        self.score: Points = []
        """(step, metric)"""
        self.best: tuple[int, float] | None = None
        """Step and metric of the weights that are kept."""
        policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setSizePolicy(policy)
        self.setToolTip(
            "Loss of the training (mean of the last steps) and of the validation; below it the "
            "validation score by which the best weights are chosen, the best one with a ring"
        )

    def begin(self, steps: int, metric: str) -> None:
        """Empty the plots for a fit of so many steps."""
        self.steps, self.metric = steps, metric
        self.training, self.validation, self.score = [], [], []
        self.best = None
        self.updateGeometry()
        self.update()

    def add(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Draw further rows, as ``curves.csv`` has them; what is no number is left out."""
        had = bool(self.score)
        for row in rows:
            step = row["step"]
            for points, name in (
                (self.training, "loss"),
                (self.validation, "validation_loss"),
                (self.score, f"validation_{self.metric}"),
            ):
                value = row.get(name, math.nan)
                if math.isfinite(value):
                    points.append((step, value))
        if self.metric == "loss":
            self.score = []  # it stands in the upper plot
        if bool(self.score) != had:
            self.updateGeometry()
        self._describe()
        self.update()

    def sizeHint(self) -> QSize:
        """Return the height of the plots that there are."""
        line = self.fontMetrics().height()
        plots = 1 + bool(self.score)
        return QSize(240, plots * (_PLOT_PX + line + 4 + _GAP_PX) + 2 * line)

    minimumSizeHint = sizeHint

    def _describe(self) -> None:
        """Say in words what is drawn, for those who cannot see it."""
        parts = []
        if self.training:
            parts.append(f"training loss {self.training[-1][1]:.3f}")
        if self.score:
            parts.append(f"validation {METRICS[self.metric]} {self.score[-1][1]:.3f}")
        self.setAccessibleDescription(", ".join(parts))

    # --- painting -----------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the plots."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = self.palette().color(QPalette.ColorRole.WindowText)
        metrics = self.fontMetrics()
        line = metrics.height()
        left = metrics.horizontalAdvance("0.000") + 8
        steps = axis(0, self.steps, 5)
        losses = [value for _, value in (*self.training, *self.validation)]
        area = QRectF(left, line + 4, self.width() - left - 8, _PLOT_PX)
        lines = [(self.training, TRAINING, "training")]
        if self.validation:
            lines.append((self.validation, VALIDATION, "validation"))
        scale = axis(min([0.0, *losses]), max([*losses, 1e-3]) if losses else 1.0, 4)
        self._plot(painter, area, steps, scale, "Loss", lines, ink)
        if self.score:
            top = area.bottom() + _GAP_PX + line + 4
            area = QRectF(left, top, area.width(), _PLOT_PX)
            values = [value for _, value in self.score]
            scale = axis(min([0.0, *values]), 1.0, 3)
            title = METRICS[self.metric]
            lines = [(self.score, VALIDATION, "validation")]
            self._plot(painter, area, steps, scale, title, lines, ink)
        if self.best is not None:
            self._ring(painter, area, steps, scale, ink)
        self._step_labels(painter, area, steps, ink)

    def _plot(
        self,
        painter: QPainter,
        area: QRectF,
        steps: Axis,
        scale: Axis,
        title: str,
        lines: Sequence[tuple[Points, QColor, str]],
        ink: QColor,
    ) -> None:
        metrics = self.fontMetrics()
        line = metrics.height()
        grid = QColor(ink)
        grid.setAlphaF(0.18)
        for mark in scale.marks:
            y = area.bottom() - scale.share(mark) * area.height()
            painter.setPen(grid)
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
            painter.setPen(ink)
            box = QRectF(0, y - line / 2, area.left() - 6, line)
            painter.drawText(box, _RIGHT, f"{mark:.4g}")
        head = QRectF(area.left(), area.top() - line - 4, area.width(), line)
        painter.drawText(head, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, title)
        end = head.right()
        for _, color, word in reversed(lines):
            width = metrics.horizontalAdvance(word)
            painter.setPen(ink)
            painter.drawText(QRectF(end - width, head.top(), width, line), _RIGHT, word)
            painter.setPen(QPen(color, 2.0))
            middle = head.center().y() + 1
            painter.drawLine(QPointF(end - width - 20, middle), QPointF(end - width - 5, middle))
            end -= width + 32
        for points, color, _ in lines:
            self._line(painter, area, steps, scale, points, color)

    def _line(
        self,
        painter: QPainter,
        area: QRectF,
        steps: Axis,
        scale: Axis,
        points: Points,
        color: QColor,
    ) -> None:
        shown = points[:: -(-len(points) // MOST_POINTS) or 1]
        if points and shown[-1] != points[-1]:
            shown = [*shown, points[-1]]
        places = [_place(area, steps, scale, point) for point in shown]
        painter.setPen(QPen(color, 1.6))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawPolyline(QPolygonF(places))
        if len(places) <= 30:  # looks at the validation are few: each is seen
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(color)
            for place in places:
                painter.drawEllipse(place, 2.2, 2.2)

    def _ring(
        self, painter: QPainter, area: QRectF, steps: Axis, scale: Axis, ink: QColor
    ) -> None:
        """Mark the weights that are kept."""
        assert self.best is not None
        painter.setPen(QPen(ink, 1.4))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawEllipse(_place(area, steps, scale, self.best), 5.0, 5.0)

    def _step_labels(self, painter: QPainter, area: QRectF, steps: Axis, ink: QColor) -> None:
        metrics = self.fontMetrics()
        line = metrics.height()
        painter.setPen(ink)
        for mark in steps.marks:
            text = f"{mark:.6g}"
            width = metrics.horizontalAdvance(text)
            x = area.left() + steps.share(mark) * area.width() - width / 2
            x = min(x, self.width() - width - 1.0)
            painter.drawText(QRectF(x, area.bottom() + 3, width + 1, line), _CENTRE, text)
        box = QRectF(area.left(), area.bottom() + 3 + line, area.width(), line)
        painter.drawText(box, _CENTRE, "step")


_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
_CENTRE = Qt.AlignmentFlag.AlignCenter


def _place(area: QRectF, steps: Axis, scale: Axis, point: tuple[float, float]) -> QPointF:
    """Return where a point (step, value) is drawn; beyond the axes at their ends."""
    x, y = (min(max(s, 0.0), 1.0) for s in (steps.share(point[0]), scale.share(point[1])))
    return QPointF(area.left() + x * area.width(), area.bottom() - y * area.height())
