"""The pictures on the buttons of the Annotate dock, drawn in the colour of the theme.

Each is a few lines on a square of 20 units, so they are sharp on every screen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPainterPath, QPen, QPixmap, QPolygonF

SIDE = 20
"""Side of the square that pictures are drawn in, and their size in logical pixels."""

FAINT = 0.3
"""Opacity of what is disabled."""

_RATIO = 3
"""Pixels that a picture has for each logical one: enough for every screen."""

_BLOB = ((4, 9), (7, 4), (13, 4), (16, 8), (14, 15), (7, 16))

Draw = Callable[[QPainter], None]


def icon(name: str, color: QColor) -> QIcon:
    """Return a picture, and a faint one for where it is disabled.

    Parameters
    ----------
    name
        A key of `PICTURES`.
    color
        Of its lines.
    """
    faint = QColor(color)
    faint.setAlphaF(FAINT)
    result = QIcon(_picture(name, color))
    result.addPixmap(_picture(name, faint), QIcon.Mode.Disabled)
    return result


def _picture(name: str, color: QColor) -> QPixmap:
    pixmap = QPixmap(SIDE * _RATIO, SIDE * _RATIO)
    pixmap.setDevicePixelRatio(_RATIO)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    pen = QPen(color, 1.5)
    pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
    pen.setCapStyle(Qt.PenCapStyle.RoundCap)
    painter.setPen(pen)
    PICTURES[name](painter)
    painter.end()
    return pixmap


def chip(color: tuple[int, int, int], side: int = 14, *, hollow: bool = False) -> QPixmap:
    """Return the square that stands for a class; hollow for one that is hidden."""
    pixmap = QPixmap(side * _RATIO, side * _RATIO)
    pixmap.setDevicePixelRatio(_RATIO)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(QColor(*color), 2) if hollow else QPen(QColor(128, 128, 128), 1))
    painter.setBrush(Qt.BrushStyle.NoBrush if hollow else QColor(*color))
    painter.drawRoundedRect(QRectF(1, 1, side - 2, side - 2), 3, 3)
    painter.end()
    return pixmap


def class_icon(color: tuple[int, int, int], *, hollow: bool = False) -> QIcon:
    """Return that square as an icon, of the same colour in a row that is selected."""
    picture = chip(color, hollow=hollow)
    icon = QIcon(picture)
    icon.addPixmap(picture, QIcon.Mode.Selected)
    return icon


# --- parts of pictures --------------------------------------------------------------------------


def _points(*points: tuple[float, float]) -> QPolygonF:
    return QPolygonF([QPointF(*point) for point in points])


def _filled(painter: QPainter, draw: Draw) -> None:
    """Draw something filled with the colour of the lines."""
    painter.save()
    painter.setBrush(painter.pen().color())
    draw(painter)
    painter.restore()


def _dots(painter: QPainter, *points: tuple[float, float], radius: float = 1.6) -> None:
    for point in points:
        _filled(painter, lambda p, at=point: p.drawEllipse(QPointF(*at), radius, radius))


def _dashed(painter: QPainter, draw: Draw) -> None:
    painter.save()
    pen = painter.pen()
    pen.setDashPattern([2, 2])
    pen.setWidthF(1.2)
    painter.setPen(pen)
    draw(painter)
    painter.restore()


def _curve(painter: QPainter, start: tuple[float, float], *curves: tuple[float, ...]) -> None:
    path = QPainterPath(QPointF(*start))
    for curve in curves:
        path.cubicTo(*curve)
    painter.drawPath(path)


# --- tools --------------------------------------------------------------------------------------


def _move(painter: QPainter) -> None:
    painter.drawLine(QPointF(10, 3), QPointF(10, 17))
    painter.drawLine(QPointF(3, 10), QPointF(17, 10))
    for tip in (
        ((7.5, 5.5), (10, 3), (12.5, 5.5)),
        ((7.5, 14.5), (10, 17), (12.5, 14.5)),
        ((5.5, 7.5), (3, 10), (5.5, 12.5)),
        ((14.5, 7.5), (17, 10), (14.5, 12.5)),
    ):
        painter.drawPolyline(_points(*tip))


def _select(painter: QPainter) -> None:
    arrow = _points((5, 3), (5, 15.5), (8.3, 12.6), (10.6, 17), (12.6, 16), (10.5, 11.8), (15, 11))
    painter.drawPolygon(arrow)


def _vertices(painter: QPainter) -> None:
    corners = ((4, 14), (7, 4), (16, 8))
    painter.drawPolygon(_points(*corners))
    _dots(painter, *corners, radius=2.2)


def _transform(painter: QPainter) -> None:
    _dashed(painter, lambda p: p.drawRect(QRectF(4, 4, 12, 12)))
    _dots(painter, (4, 4), (16, 4), (4, 16), (16, 16), radius=1.9)


def _polygon(painter: QPainter) -> None:
    painter.drawPolygon(_points((4, 8), (10, 3), (16.5, 8), (14, 16), (6, 16)))


def _freehand(painter: QPainter) -> None:
    _curve(
        painter,
        (5, 13),
        (1, 7, 6, 1, 11, 4),
        (15, 6, 19, 6, 16, 11),
        (14, 14, 17, 17, 11, 17),
        (8, 17, 7, 15, 5, 13),
    )


def _rectangle(painter: QPainter) -> None:
    painter.drawRect(QRectF(3.5, 5, 13, 10))


def _ellipse(painter: QPainter) -> None:
    painter.drawEllipse(QRectF(3, 5, 14, 10))


def _line(painter: QPainter) -> None:
    painter.drawLine(QPointF(4, 16), QPointF(16, 4))


def _point_marks(painter: QPainter) -> None:
    _dots(painter, (5, 6), (13, 4.5), (9, 11), (15.5, 13), (5, 15.5))


def _brush(painter: QPainter) -> None:
    painter.drawLine(QPointF(16.5, 3.5), QPointF(10.5, 9.5))
    bristles = _points((10, 8.5), (11.5, 10), (9.5, 14), (3.5, 16.5), (6, 10.5))
    _filled(painter, lambda p: p.drawPolygon(bristles))


def _eraser(painter: QPainter) -> None:
    painter.drawPolygon(_points((3.5, 12), (11, 4), (16.5, 8.5), (9.5, 16), (6.5, 16)))
    painter.drawLine(QPointF(7, 8.3), QPointF(12.6, 12.9))
    painter.drawLine(QPointF(12, 16), QPointF(17, 16))


def _wand(painter: QPainter) -> None:
    painter.drawLine(QPointF(4, 16), QPointF(12, 8))
    for x0, y0, x1, y1 in (
        (14, 2.5, 14, 4.5), (14, 8, 14, 10), (10.2, 6.2, 12, 6.2), (16, 6.2, 17.8, 6.2),
        (16, 4.2, 17, 3.2), (16, 8.2, 17, 9.2),
    ):  # fmt: skip
        painter.drawLine(QPointF(x0, y0), QPointF(x1, y1))


def _split(painter: QPainter) -> None:
    painter.drawPolygon(_points(*_BLOB))
    _dashed(painter, lambda p: p.drawLine(QPointF(2.5, 14.5), QPointF(17.5, 5)))


def _ruler(painter: QPainter) -> None:
    painter.drawPolygon(_points((2.5, 13.5), (13.5, 2.5), (17.5, 6.5), (6.5, 17.5)))
    for n in (1, 2, 3, 4):
        x, y = 2.5 + 2.2 * n, 13.5 - 2.2 * n
        deep = 1.9 if n % 2 else 1.2
        painter.drawLine(QPointF(x, y), QPointF(x + deep, y + deep))


# --- modes and steps ----------------------------------------------------------------------------


def _new(painter: QPainter) -> None:
    painter.drawEllipse(QPointF(10, 10), 6, 6)


def _add(painter: QPainter) -> None:
    _two(painter, QPainterPath.united)


def _subtract(painter: QPainter) -> None:
    _two(painter, QPainterPath.subtracted)
    _dashed(painter, lambda p: p.drawEllipse(QPointF(13, 11.5), 4.2, 4.2))


def _two(painter: QPainter, joined: Callable[[QPainterPath, QPainterPath], QPainterPath]) -> None:
    one, other = QPainterPath(), QPainterPath()
    one.addEllipse(QPointF(8, 9), 5.5, 5.5)
    other.addEllipse(QPointF(13, 11.5), 4.2, 4.2)
    painter.drawPath(joined(one, other))


def _undo(painter: QPainter) -> None:
    painter.drawPolyline(_points((7.5, 4), (3.5, 8), (7.5, 12)))
    _curve(painter, (4, 8), (12, 7.5, 17, 9, 16.5, 16))


def _redo(painter: QPainter) -> None:
    painter.translate(SIDE, 0)
    painter.scale(-1, 1)
    _undo(painter)


def _plus(painter: QPainter) -> None:
    painter.drawLine(QPointF(10, 4), QPointF(10, 16))
    painter.drawLine(QPointF(4, 10), QPointF(16, 10))


def _minus(painter: QPainter) -> None:
    painter.drawLine(QPointF(4, 10), QPointF(16, 10))


def _pencil(painter: QPainter) -> None:
    painter.drawPolygon(_points((3.5, 16.5), (4.5, 12.5), (13.5, 3.5), (16.5, 6.5), (7.5, 15.5)))
    painter.drawLine(QPointF(11.5, 5.5), QPointF(14.5, 8.5))


def _palette(painter: QPainter) -> None:
    painter.drawEllipse(QRectF(3, 4, 14, 12))
    _dots(painter, (7, 8), (11, 7), (14, 10), radius=1.4)
    painter.drawEllipse(QPointF(8.5, 12.6), 1.5, 1.2)


def _up(painter: QPainter) -> None:
    painter.drawPolyline(_points((5, 12), (10, 7), (15, 12)))


def _down(painter: QPainter) -> None:
    painter.drawPolyline(_points((5, 8), (10, 13), (15, 8)))


def _eye(painter: QPainter) -> None:
    _curve(painter, (2.5, 10), (6, 4.5, 14, 4.5, 17.5, 10), (14, 15.5, 6, 15.5, 2.5, 10))
    _dots(painter, (10, 10), radius=2.3)


def _lock(painter: QPainter) -> None:
    painter.drawRoundedRect(QRectF(4.5, 9, 11, 8), 1.5, 1.5)
    _curve(painter, (7, 9), (6.5, 1.5, 13.5, 1.5, 13, 9))


def _bin(painter: QPainter) -> None:
    painter.drawPolyline(_points((5, 6), (6, 17), (14, 17), (15, 6)))
    painter.drawLine(QPointF(3.5, 6), QPointF(16.5, 6))
    painter.drawPolyline(_points((8, 6), (8, 3.5), (12, 3.5), (12, 6)))


def _more(painter: QPainter) -> None:
    _dots(painter, (4.5, 10), (10, 10), (15.5, 10), radius=1.5)


PICTURES: Mapping[str, Draw] = MappingProxyType(
    {
        "move": _move, "select": _select, "vertices": _vertices, "transform": _transform,
        "polygon": _polygon, "freehand": _freehand, "rectangle": _rectangle,
        "ellipse": _ellipse, "line": _line, "points": _point_marks, "brush": _brush,
        "eraser": _eraser, "wand": _wand, "split": _split, "ruler": _ruler,
        "new": _new, "add": _add, "subtract": _subtract, "undo": _undo, "redo": _redo,
        "plus": _plus, "minus": _minus, "pencil": _pencil, "palette": _palette, "up": _up,
        "down": _down, "eye": _eye, "lock": _lock, "bin": _bin, "more": _more,
    }
)  # fmt: skip
