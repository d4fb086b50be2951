"""What the minimap shows and where: a frame on the slide, its coarse picture, heatmap, readout.

Not the widget that shows it: that is `widgets/minimap.py`. Positions on the map are in logical
pixels from its top-left corner; the map is turned and mirrored as the view is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QImage, QPainter, QPen, QPixmap, QTransform

from napari_histomil.geometry import Rect
from napari_histomil.slides.slide import SlideInfo, Uint8Image
from napari_histomil.ui import camera
from napari_histomil.ui.layers import (
    corner_um,
    pixel_um,
    pyramid_of,
    to_world_um,
    world_scale,
)
from napari_histomil.ui.orientation import Orientation, center_of_world, orientation_of
from napari_histomil.ui.session import RunView
from napari_histomil.ui.words import digits, times

SHARE = 0.26
"""Longer side of the map, as a share of the shorter side of the canvas."""

SMALLEST_PX, LARGEST_PX = 110, 420
"""Bounds of that, in logical pixels: for small windows, and for screens of 4K."""

NARROWEST_PX = 12
"""Shorter side of the map of a slide that is a strip."""

FAINT = 0.7
"""Opacity of the heatmap, as a share of that in the view."""

MOST_CELLS = 512
"""A heatmap with more rows or columns is thinned out: the map has fewer pixels."""

SMALL_PX = 9
"""A view rectangle with a shorter side gets cross-hairs, so that it is found."""

LEAST_PX = 3
CROSS_PX = 7

VIEW_COLOUR, HALO = QColor(0, 90, 255), QColor(255, 255, 255, 200)
"""Blue is neither in H&E nor in the colour maps; the halo keeps it apart from dark tissue."""

_MOST_PX = 2048
"""Of the coarse picture, where the map shows a small part of the slide only."""


@dataclass(frozen=True, slots=True)
class MapFrame:
    """Where the slide lies on the map."""

    info: SlideInfo
    orientation: Orientation
    area_px0: Rect
    """What the map shows: the slide without the white that pads it."""
    per_world: float
    """Logical pixels of the map for a unit of the world, which is 1 µm where that is known."""
    size: tuple[int, int]
    """(width, height) in logical pixels."""

    @classmethod
    def of(cls, info: SlideInfo, orientation: Orientation, longest_px: int) -> MapFrame:
        """Return the frame of a slide whose longer side has so many logical pixels."""
        area = info.bounds_px0 or info.rect_px0
        row_unit, column_unit = world_scale(info)
        width, height = area.width_px0 * column_unit, area.height_px0 * row_unit
        if orientation.transposed:
            width, height = height, width
        per_world = longest_px / max(width, height)
        size = [max(round(side * per_world), NARROWEST_PX) for side in (width, height)]
        return cls(info, orientation, area, per_world, (size[0], size[1]))

    def to_map(self, xy_px0: ArrayLike) -> NDArray[np.float64]:
        """Convert level-0 positions [..., 2], (x, y), to the map."""
        aside = to_world_um(xy_px0, self.info) - to_world_um(self.area_px0.center_px0, self.info)
        turned = aside[..., ::-1] @ self.orientation.matrix.T
        return turned * self.per_world + np.array(self.size) / 2

    def to_px0(self, xy_map: ArrayLike) -> NDArray[np.float64]:
        """Convert positions on the map [..., 2] to level-0 positions: the inverse of `to_map`."""
        turned = (np.asarray(xy_map, float) - np.array(self.size) / 2) / self.per_world
        row_unit, column_unit = world_scale(self.info)
        aside = turned @ self.orientation.matrix / (column_unit, row_unit)
        return aside + np.array(self.area_px0.center_px0)

    def view_rect(self, viewer: Any) -> QRectF:
        """Return where the canvas looks, on the map; it may reach beyond it."""
        height, width = viewer.canvas.size
        per_px = self.per_world / viewer.scene.camera.zoom
        aside = center_of_world(viewer) - to_world_um(self.area_px0.center_px0, self.info)
        middle = aside[::-1] @ self.orientation.matrix.T * self.per_world + np.array(self.size) / 2
        rect = QRectF(0, 0, width * per_px, height * per_px)
        rect.moveCenter(QPointF(*middle))
        return rect

    def _placed(self, extent_world: tuple[float, float, float, float]) -> QRectF:
        """Return where (left, top, width, height) in the world lies before turning."""
        left, top, width, height = extent_world
        row, column = to_world_um(self.area_px0.center_px0, self.info)
        by = self.per_world
        return QRectF((left - column) * by, (top - row) * by, width * by, height * by)

    def _turned(self) -> QTransform:
        (a, b), (c, d) = self.orientation.matrix.tolist()
        width, height = self.size
        return QTransform(a, c, b, d, width / 2, height / 2)


def frame_of(viewer: Any, info: SlideInfo) -> MapFrame | None:
    """Return the frame of the map over a viewer's canvas; None where it has no room."""
    least = min(viewer.canvas.size)
    if viewer.dims.ndisplay != 2 or least < 2 * SMALLEST_PX:
        return None
    longest = min(max(round(SHARE * least), SMALLEST_PX), LARGEST_PX)
    return MapFrame.of(info, orientation_of(viewer), longest)


def coarse_picture(layer: Any, frame: MapFrame, pixel_ratio: float) -> tuple[Uint8Image, bool]:
    """Return the whole slide as a small picture, and whether it will stay so; never waits.

    Parameters
    ----------
    layer
        The slide's layer.
    frame
        Where it is to be shown.
    pixel_ratio
        Physical pixels in a logical one.
    """
    info, area = frame.info, frame.area_px0
    share = max(area.width_px0, area.height_px0) / max(info.width_px0, info.height_px0)
    longest = min(math.ceil(max(frame.size) * pixel_ratio / share), _MOST_PX)
    picture: tuple[Uint8Image, bool] = pyramid_of(layer).coarse(longest)
    return picture


def heat_picture(run: RunView) -> Uint8Image:
    """Return a heatmap as it is coloured in the view, uint8 [rows, cols, 4], thinned out.

    A segmentation has a small picture of its own; there is nothing before it is painted.
    """
    if run.heatmap is None:
        small = run.segmentation.small
        return np.zeros((1, 1, 4), np.uint8) if small is None else small.pixels
    image, layer = run.heatmap.image, run.layer
    step = max(math.ceil(max(image.shape) / MOST_CELLS), 1)
    low, high = layer.contrast_limits
    values = np.clip((image[::step, ::step] - low) / (high - low), 0, 1)
    colours = layer.colormap.map(values.ravel()).reshape(*values.shape, 4)
    return np.rint(255 * np.asarray(colours)).astype(np.uint8)


def _extent(run: RunView) -> tuple[float, float, float, float]:
    """Return where what is shown of a run lies: x, y, width, height in µm."""
    if run.heatmap is not None:
        (height, width), (y, x) = pixel_um(run.layer), corner_um(run.layer)
        rows, columns = run.heatmap.image.shape
        return x, y, columns * width, rows * height
    small = run.segmentation.small
    if small is None:
        return 0.0, 0.0, 1.0, 1.0
    rows, columns = small.pixels.shape[:2]
    return 0.0, 0.0, columns * small.pixel_um, rows * small.pixel_um


def paint_map(
    frame: MapFrame, picture: Uint8Image, run: RunView | None, pixel_ratio: float
) -> QPixmap:
    """Paint the slide and, faintly, the heatmap that is shown over it.

    Parameters
    ----------
    frame
        Where the slide lies.
    picture
        uint8 [h, w, 3], the whole slide.
    run
        The run whose heatmap is shown, or None.
    pixel_ratio
        Physical pixels in a logical one.
    """
    width, height = frame.size
    pixmap = QPixmap(round(width * pixel_ratio), round(height * pixel_ratio))
    pixmap.setDevicePixelRatio(pixel_ratio)
    pixmap.fill(Qt.GlobalColor.white)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
    painter.setTransform(frame._turned(), True)
    info = frame.info
    row_unit, column_unit = world_scale(info)
    whole = (0.0, 0.0, info.width_px0 * column_unit, info.height_px0 * row_unit)
    painter.drawImage(frame._placed(whole), _image(picture))
    if run is not None:
        extent = _extent(run)
        painter.setOpacity(FAINT * run.layer.opacity)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, on=False)
        painter.drawImage(frame._placed(extent), _image(heat_picture(run)))
    painter.end()
    return pixmap


def paint_view(painter: QPainter, view: QRectF, place: QRectF) -> None:
    """Paint where the view lies, visible however small it is.

    Parameters
    ----------
    painter
        Paints on the widget.
    view
        The view on the map (`MapFrame.view_rect`).
    place
        The map within the widget; nothing is painted beyond it.
    """
    middle = view.center() + place.topLeft()
    shown = QRectF(0, 0, max(view.width(), LEAST_PX), max(view.height(), LEAST_PX))
    shown.moveCenter(middle)
    lines = []
    if min(view.width(), view.height()) < SMALL_PX:
        x, y = middle.x(), middle.y()
        lines = [
            (QPointF(x, shown.top() - CROSS_PX), QPointF(x, shown.top())),
            (QPointF(x, shown.bottom()), QPointF(x, shown.bottom() + CROSS_PX)),
            (QPointF(shown.left() - CROSS_PX, y), QPointF(shown.left(), y)),
            (QPointF(shown.right(), y), QPointF(shown.right() + CROSS_PX, y)),
        ]
    painter.save()
    painter.setClipRect(place)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    for pen in (QPen(HALO, 4), QPen(VIEW_COLOUR, 2)):
        painter.setPen(pen)
        painter.drawRect(shown)
        for start, end in lines:
            painter.drawLine(start, end)
    painter.restore()


def _image(pixels: Uint8Image) -> QImage:
    """Return pixels [h, w, 3 or 4] as an image that owns them."""
    height, width, channels = pixels.shape
    kind = QImage.Format.Format_RGB888 if channels == 3 else QImage.Format.Format_RGBA8888
    data = np.ascontiguousarray(pixels)
    return QImage(data.data, width, height, channels * width, kind).copy()


def readout(viewer: Any, info: SlideInfo) -> str:
    """Return magnification and scale of the view, such as ``20x, 0.50 µm/px``."""
    if info.mpp_x is None:
        return "scale unknown"
    power, per_pixel = camera.magnification(viewer), camera.um_per_pixel(viewer)
    return f"{times(power)}, {digits(per_pixel, 2)} µm/px"
