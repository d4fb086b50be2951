"""How a figure is painted, on pixels or a page: picture, title, scale bar, legends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from qtpy.QtCore import QMarginsF, QPointF, QRectF, QSize, QSizeF, Qt
from qtpy.QtGui import QColor, QFont, QFontMetricsF, QImage, QPageSize, QPainter, QPdfWriter, QPen
from qtpy.QtWidgets import QApplication

from napari_histomil.annotations.model import RGB
from napari_histomil.exchange.rasters import scale_bar_um
from napari_histomil.slides.slide import Uint8Image
from napari_histomil.ui.colours import colour_steps
from napari_histomil.ui.legend import LegendEntry
from napari_histomil.ui.session import RunView
from napari_histomil.ui.words import times

INK, PAPER = QColor(20, 20, 20), QColor(255, 255, 255)
BACKED = QColor(255, 255, 255, 215)
"""Behind what is written over tissue."""

PDF_DPI = 144

LONGEST_NAME = 24
"""Room for the name of a class, in heights of a letter; a longer one is cut."""


@dataclass(frozen=True, slots=True)
class FigureOptions:
    """What a person wants in a figure."""

    scale: int = 1
    """1 for the screen's resolution, 2 for twice that."""
    scale_bar: bool = True
    magnification: bool = True
    colour_bar: bool = True
    classes: bool = True
    """Names and colours of the regions in view."""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Legend:
    """What the colours of the heatmap mean."""

    colours: str
    ends: tuple[str, str]
    title: str
    cut: float
    """Where the threshold lies on the scale, 0 to 1: colours below it are not shown."""
    threshold: float

    @classmethod
    def of(cls, run: RunView) -> Legend | None:
        """Return the legend of a heatmap, or of a probability; None where classes are shown."""
        heatmap = run.heatmap
        if heatmap is None:
            view = run.segmentation
            if not view.style.probability:
                return None
            cut = view.style.steps.threshold or 0.0
            return cls(view.style.colours, ("0", "1"), view.title, cut, cut)
        view = run.attention
        if view is not None:
            title = view.legend_title
            return cls(view.colours, view.scale_ends, title, view.cut, view.threshold)
        cut = heatmap.shown_share(heatmap.threshold) if heatmap.threshold > 0 else 0.0
        return cls(
            heatmap.colours, heatmap.scale_ends, heatmap.scale_title, cut, heatmap.threshold
        )


@dataclass(frozen=True, slots=True)
class Figure:
    """What is painted."""

    picture: Uint8Image
    """[h, w, 3], the canvas."""
    um_per_pixel: float | None
    """µm that a pixel of the picture shows; None where nobody knows."""
    power: float | None
    """Magnification on the screen."""
    legend: Legend | None
    options: FigureOptions
    classes: tuple[LegendEntry, ...] = ()
    """The classes of the regions that are seen."""


def paint(figure: Figure) -> Uint8Image:
    """Return the figure as pixels, [h, w, 3]."""
    layout = _Layout.of(figure)
    image = QImage(QSize(layout.width, layout.height), QImage.Format.Format_RGB888)
    painter = QPainter(image)
    _paint(painter, figure, layout)
    painter.end()
    rows = np.frombuffer(image.constBits().asstring(image.sizeInBytes()), np.uint8)
    rows = rows.reshape(layout.height, image.bytesPerLine())[:, : 3 * layout.width]
    return rows.reshape(layout.height, layout.width, 3).copy()


def write_pdf(figure: Figure, path: Path) -> None:
    """Write a page of the figure's size, with letters as letters."""
    layout = _Layout.of(figure)
    dpi = PDF_DPI * figure.options.scale
    writer = QPdfWriter(str(path))
    writer.setResolution(dpi)
    points = QSizeF(layout.width * 72 / dpi, layout.height * 72 / dpi)
    writer.setPageSize(QPageSize(points, QPageSize.Unit.Point))
    writer.setPageMargins(QMarginsF(0, 0, 0, 0))
    painter = QPainter()
    if not painter.begin(writer):
        raise OSError(f"{path.name} cannot be opened for writing")
    _paint(painter, figure, layout)
    if not painter.end():
        raise OSError("the disk may be full")


@dataclass(frozen=True, slots=True)
class _Chip:
    """A class in the legend: its colour, then its name."""

    place: QRectF
    """From the strip's upper left corner."""
    name: str
    """As there is room for it."""
    color: RGB


def _chips(classes: Sequence[LegendEntry], width: int, unit: float) -> tuple[_Chip, ...]:
    """Return where the classes stand, side by side in as many rows as they need, centred."""
    metrics = QFontMetricsF(_font(unit))
    room = width - 1.6 * unit
    rows: list[list[tuple[float, LegendEntry, str]]] = []
    used = math.inf
    for entry in classes:
        most = min(room - 1.6 * unit, LONGEST_NAME * unit)
        name = metrics.elidedText(entry.name, Qt.TextElideMode.ElideRight, most)
        # A page's letters are a little wider than the screen's.
        wide = 1.6 * unit + 1.05 * metrics.horizontalAdvance(name)
        if used + wide > room:
            rows.append([])
            used = 0.0
        rows[-1].append((wide, entry, name))
        used += wide + unit
    chips = []
    for number, row in enumerate(rows):
        x = (width - sum(wide for wide, *_ in row) - unit * (len(row) - 1)) / 2
        for wide, entry, name in row:
            y = (0.7 + 1.6 * number) * unit
            chips.append(_Chip(QRectF(x, y, wide, 1.4 * unit), name, entry.color))
            x += wide + unit
    return tuple(chips)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Sizes in pixels of the figure."""

    width: int
    height: int
    top: int
    """Height of the strip with the title above the picture; 0 without."""
    letter: float
    """Height of a letter's body: the unit of all distances."""
    bar: int
    """Height of the strip with the colours of the heatmap below the picture; 0 without."""
    chips: tuple[_Chip, ...]
    """The classes, below that."""

    @classmethod
    def of(cls, figure: Figure) -> _Layout:
        height, width = figure.picture.shape[:2]
        letter = min(max(14.0 * figure.options.scale, width / 75), width / 20)
        top = round(2.2 * letter) if figure.options.title else 0
        chips = _chips(figure.classes, width, letter)
        bar = round((3.9 if chips else 4.6) * letter) if figure.legend else 0
        last = round(chips[-1].place.bottom() + 0.7 * letter) if chips else 0
        return cls(width, height + top + bar + last, top, letter, bar, chips)


def _paint(painter: QPainter, figure: Figure, layout: _Layout) -> None:
    height, width = figure.picture.shape[:2]
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.fillRect(QRectF(0, 0, layout.width, layout.height), PAPER)
    rows = np.ascontiguousarray(figure.picture)
    picture = QImage(rows.data, width, height, 3 * width, QImage.Format.Format_RGB888)
    place = QRectF(0, layout.top, width, height)
    painter.drawImage(place, picture)
    painter.setFont(_font(layout.letter))
    if figure.options.title:
        band = QRectF(0.6 * layout.letter, 0, width - 1.2 * layout.letter, layout.top)
        painter.setPen(INK)
        middle = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft
        metrics = QFontMetricsF(painter.font())
        title = metrics.elidedText(
            figure.options.title, Qt.TextElideMode.ElideMiddle, band.width()
        )
        painter.drawText(band, middle, title)
    if figure.options.scale_bar and figure.um_per_pixel is not None:
        _paint_scale_bar(painter, place, figure.um_per_pixel, layout.letter)
    if figure.options.magnification and figure.power is not None:
        _paint_magnification(painter, place, figure.power, layout.letter)
    if figure.legend is not None:
        strip = QRectF(0, place.bottom(), width, layout.bar)
        _paint_legend(painter, strip, figure.legend, layout.letter)
    for chip in layout.chips:
        _paint_chip(painter, chip, place.bottom() + layout.bar, layout.letter)


def _font(letter: float, *, bold: bool = False) -> QFont:
    font = QFont(QApplication.font().family())
    font.setPixelSize(max(round(letter), 6))
    font.setBold(bold)
    return font


def _paint_scale_bar(painter: QPainter, place: QRectF, um_per_pixel: float, unit: float) -> None:
    """Paint a bar of a round length in the lower left corner, its length above it."""
    length_um = scale_bar_um(place.width() * um_per_pixel)
    label = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"
    long = length_um / um_per_pixel
    thick = max(unit / 4, 2.0)
    text_width = QFontMetricsF(painter.font()).horizontalAdvance(label)
    box_width = max(long, text_width) + 1.2 * unit
    box = QRectF(place.left() + 0.8 * unit, 0, box_width, 2.4 * unit)
    box.moveBottom(place.bottom() - 0.8 * unit)
    painter.fillRect(box, BACKED)
    bar = QRectF(0, 0, long, thick)
    bar.moveCenter(QPointF(box.center().x(), box.bottom() - 0.6 * unit))
    painter.fillRect(bar, INK)
    painter.setPen(INK)
    words = QRectF(box.left(), box.top() + 0.2 * unit, box.width(), 1.3 * unit)
    painter.drawText(words, Qt.AlignmentFlag.AlignCenter, label)


def _paint_magnification(painter: QPainter, place: QRectF, power: float, unit: float) -> None:
    """Write the magnification in the lower right corner."""
    label = times(power)
    wide = QFontMetricsF(painter.font()).horizontalAdvance(label) + 1.2 * unit
    box = QRectF(0, 0, wide, 1.8 * unit)
    box.moveBottomRight(QPointF(place.right() - 0.8 * unit, place.bottom() - 0.8 * unit))
    painter.fillRect(box, BACKED)
    painter.setPen(INK)
    painter.drawText(box, Qt.AlignmentFlag.AlignCenter, label)


def _paint_legend(painter: QPainter, strip: QRectF, legend: Legend, unit: float) -> None:
    """Paint the colours from low to high, what they measure, and where the threshold cuts."""
    wide = min(strip.width() - 1.6 * unit, 36 * unit)
    bar = QRectF(0, strip.top() + 0.7 * unit, wide, unit)
    bar.moveLeft(strip.center().x() - wide / 2)
    steps = colour_steps(legend.colours)
    image = QImage(steps.tobytes(), len(steps), 1, 3 * len(steps), QImage.Format.Format_RGB888)
    x = bar.left() + bar.width() * legend.cut
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
    painter.setClipRect(QRectF(x, bar.top(), bar.right() - x, bar.height()))
    painter.drawImage(bar, image)
    painter.restore()
    painter.setPen(QPen(INK, max(unit / 14, 1.0)))
    painter.drawRect(bar)
    if legend.cut > 0:
        painter.drawLine(QPointF(x, bar.top()), QPointF(x, bar.bottom() + 0.4 * unit))
    words = QRectF(bar.left(), bar.bottom() + 0.4 * unit, bar.width(), 1.4 * unit)
    painter.drawText(words, Qt.AlignmentFlag.AlignLeft, legend.ends[0])
    painter.drawText(words, Qt.AlignmentFlag.AlignRight, legend.ends[1])
    title = legend.title
    if legend.cut > 0:
        title += f" (not shown below {legend.threshold:.3g})"
    painter.drawText(words, Qt.AlignmentFlag.AlignHCenter, title)


def _paint_chip(painter: QPainter, chip: _Chip, top: float, unit: float) -> None:
    """Paint the colour of a class, and its name beside it."""
    place = chip.place.translated(0, top)
    box = QRectF(place.left(), 0, unit, unit)
    box.moveCenter(QPointF(place.left() + unit / 2, place.center().y()))
    painter.setPen(QPen(INK, max(unit / 14, 1.0)))
    painter.setBrush(QColor(*chip.color))
    painter.drawRect(box)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    words = place.adjusted(1.5 * unit, 0, unit, 0)  # nothing of the last letter is cut off
    painter.drawText(words, Qt.AlignmentFlag.AlignVCenter, chip.name)
