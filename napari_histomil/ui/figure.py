"""The view as a figure: the canvas as it is seen, with scale bar, magnification and colour bar.

1. What napari draws over the canvas (scale bar, text) is put away: the figure has its own, sharp
   at any size and in ink on white.
2. The picture is waited for, so that no coarse patch gets into a figure. At twice the screen's
   resolution the canvas is seen in four quarters, each at twice the zoom.
3. Picture and legend are painted, onto pixels for PNG and TIFF, onto a page for PDF.

The slide's name is not in it unless it is asked for: file names often hold a patient's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from qtpy.QtCore import QMarginsF, QPointF, QRectF, QSize, QSizeF, Qt
from qtpy.QtGui import QColor, QFont, QFontMetricsF, QImage, QPageSize, QPainter, QPdfWriter, QPen
from qtpy.QtWidgets import QApplication

from napari_histomil.errors import HistomilError, OutputError
from napari_histomil.exchange.rasters import scale_bar_um
from napari_histomil.files import whole_file
from napari_histomil.slides.slide import Uint8Image
from napari_histomil.ui import camera
from napari_histomil.ui.colours import colour_steps
from napari_histomil.ui.orientation import center_of_world, look_at_world, world_step
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.session import RunView, SlideSession

FORMATS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".pdf": "PDF"}

WAIT_SECONDS = 60.0
"""So long the picture is waited for; a slide on a slow network drive takes its time."""

INK, PAPER = QColor(20, 20, 20), QColor(255, 255, 255)
BACKED = QColor(255, 255, 255, 215)
"""Behind what is written over tissue."""

PDF_DPI = 144


@dataclass(frozen=True, slots=True)
class FigureOptions:
    """What a person wants in a figure."""

    scale: int = 1
    """1 for the screen's resolution, 2 for twice that."""
    scale_bar: bool = True
    magnification: bool = True
    colour_bar: bool = True
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
    def of(cls, run: RunView) -> Legend:
        """Return the legend of a heatmap as it is shown."""
        heatmap = run.heatmap
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


def save_figure(
    viewer: Any, slide: SlideSession, path: Path, options: FigureOptions | None = None
) -> None:
    """Write the view as PNG, TIFF or PDF, by the suffix of `path`.

    Parameters
    ----------
    viewer
        The napari viewer.
    slide
        The slide that is looked at.
    path
        File to write; it appears whole or not at all.
    options
        What is in it.

    Raises
    ------
    OutputError
        If the suffix is none of `FORMATS`, or the file cannot be written.
    HistomilError
        If the picture does not become complete in time.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise OutputError(
            f"{path.name} cannot be written: end its name in .png, .tif or .pdf, so that it is "
            f"known how."
        )
    figure = take_figure(viewer, slide, options or FigureOptions())
    with whole_file(path) as part:
        if kind == "PDF":
            _write_pdf(figure, part)
            return
        image = Image.fromarray(paint(figure))
        if kind == "PNG":
            image.save(part, format="PNG")
            return
        # Readers of microscope pictures take the scale from here.
        per_cm = 1e4 / figure.um_per_pixel if figure.um_per_pixel else None
        image.save(
            part,
            format="TIFF",
            compression="tiff_adobe_deflate",
            **({"resolution": per_cm, "resolution_unit": 3} if per_cm else {}),
        )


def take_figure(viewer: Any, slide: SlideSession, options: FigureOptions) -> Figure:
    """Wait until the picture is complete and return it with all that explains it."""
    picture = grab(viewer, slide, options.scale)
    current = overlays(viewer).current
    shows = (
        current is not None
        and options.colour_bar
        and current.slide is slide
        and current.layer.visible
    )
    um_per_pixel = power = None
    if slide.has_mpp:
        width_um = viewer.canvas.size[1] / viewer.scene.camera.zoom
        um_per_pixel = width_um / picture.shape[1]
        power = camera.magnification(
            viewer, pixel_ratio=picture.shape[1] / options.scale / viewer.canvas.size[1]
        )
    legend = Legend.of(current) if shows and current is not None else None
    return Figure(picture, um_per_pixel, power, legend, options)


# --- the picture --------------------------------------------------------------------------------


def grab(viewer: Any, slide: SlideSession, scale: int) -> Uint8Image:
    """Return the canvas as it is seen, [h, w, 3], complete, without what napari draws over it.

    Parameters
    ----------
    scale
        1, or 2 for twice the resolution.

    Raises
    ------
    HistomilError
        If the picture does not become complete in `WAIT_SECONDS`.
    """
    with _bare(viewer):
        if scale == 1:
            return _shot(viewer, slide)
        view = viewer.scene.camera
        center, zoom, middle = view.center, view.zoom, center_of_world(viewer)
        height, width = viewer.canvas.size
        try:
            rows = []
            for y in (-0.5, 0.5):
                row = []
                for x in (-0.5, 0.5):
                    view.zoom = 2 * zoom
                    look_at_world(viewer, middle + world_step(viewer, (x * width, y * height)))
                    row.append(_shot(viewer, slide))
                rows.append(np.concatenate(row, axis=1))
            return np.concatenate(rows, axis=0)
        finally:
            view.zoom = zoom
            view.center = center


def _shot(viewer: Any, slide: SlideSession) -> Uint8Image:
    from napari_histomil.ui.painting import painting

    QApplication.processEvents()
    painted = painting(slide.layer)
    if painted is not None and not painted.wait(WAIT_SECONDS):
        raise HistomilError(
            f"The picture of {slide.name} was not complete after {WAIT_SECONDS:.0f} seconds: wait "
            f"until the slide is loaded, and save the figure again."
        )
    shot: NDArray[np.uint8] = viewer.screenshot(canvas_only=True, flash=False)
    return np.ascontiguousarray(shot[..., :3])


@contextmanager
def _bare(viewer: Any) -> Iterator[None]:
    """Put away what napari draws over the canvas, for a moment."""
    hidden = [overlay for overlay in viewer.canvas.overlays.values() if overlay.visible]
    background = viewer.canvas.background_color_override
    for overlay in hidden:
        overlay.visible = False
    viewer.canvas.background_color_override = "white"  # around the slide, as on paper
    try:
        yield
    finally:
        viewer.canvas.background_color_override = background
        for overlay in hidden:
            overlay.visible = True


# --- painting -----------------------------------------------------------------------------------


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


def _write_pdf(figure: Figure, path: Path) -> None:
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
class _Layout:
    """Sizes in pixels of the figure."""

    width: int
    height: int
    top: int
    """Height of the strip with the title above the picture; 0 without."""
    letter: float
    """Height of a letter's body: the unit of all distances."""

    @classmethod
    def of(cls, figure: Figure) -> _Layout:
        height, width = figure.picture.shape[:2]
        letter = min(max(14.0 * figure.options.scale, width / 75), width / 20)
        top = round(2.2 * letter) if figure.options.title else 0
        bottom = round(4.6 * letter) if figure.legend else 0
        return cls(width, height + top + bottom, top, letter)


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
        strip = QRectF(0, place.bottom(), width, layout.height - place.bottom())
        _paint_legend(painter, strip, figure.legend, layout.letter)


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
    label = f"{power:.3g}x"
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
