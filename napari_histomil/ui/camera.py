"""Where the viewer looks: fit a slide, go to a place, set and read the magnification.

Magnification is that of the screen: at 20x one physical screen pixel shows 0.5 µm, whatever the
file calls its objective. napari's zoom counts logical pixels, of which a dense screen has fewer.
"""

from __future__ import annotations

from typing import Any

from napari_histomil import geometry
from napari_histomil.geometry import Rect
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.layers import to_world_um, world_scale

MAGNIFICATIONS = (1.25, 2.5, 5.0, 10.0, 20.0, 40.0)
"""What the Slide dock has buttons for."""

FIT_MARGIN = 0.04
"""Share of the canvas left free on each side of what is fitted."""


def fit_slide(viewer: Any, info: SlideInfo) -> None:
    """Show the whole slide, without the white that pads its pyramid."""
    fit_rect(viewer, info, info.bounds_px0 or info.rect_px0)


def fit_rect(viewer: Any, info: SlideInfo, rect_px0: Rect) -> None:
    """Show a rectangle of the slide as large as the canvas allows."""
    height, width = viewer.canvas.size
    row_unit, column_unit = world_scale(info)
    viewer.scene.camera.zoom = (1 - 2 * FIT_MARGIN) * min(
        width / (rect_px0.width_px0 * column_unit), height / (rect_px0.height_px0 * row_unit)
    )
    go_to_px0(viewer, info, rect_px0.center_px0)


def go_to_px0(viewer: Any, info: SlideInfo, xy_px0: tuple[float, float]) -> None:
    """Move the middle of the canvas to a level-0 position (x, y); the zoom stays."""
    row, column = to_world_um(xy_px0, info)
    viewer.scene.camera.center = (viewer.scene.camera.center[0], float(row), float(column))


def set_magnification(viewer: Any, power: float, *, pixel_ratio: float = 1.0) -> None:
    """Zoom about the middle of the canvas; the slide's µm/px must be known.

    Parameters
    ----------
    viewer
        The viewer, whose world is in µm.
    power
        Magnification, such as 20.
    pixel_ratio
        Physical pixels in a logical one: ``QWidget.devicePixelRatioF()``.
    """
    um_per_pixel = 10 / power
    viewer.scene.camera.zoom = 1 / (um_per_pixel * pixel_ratio)


def magnification(viewer: Any, *, pixel_ratio: float = 1.0) -> float:
    """Return the magnification on the screen; the slide's µm/px must be known."""
    return geometry.magnification(um_per_pixel(viewer, pixel_ratio=pixel_ratio))


def um_per_pixel(viewer: Any, *, pixel_ratio: float = 1.0) -> float:
    """Return the µm that a physical screen pixel shows; the slide's µm/px must be known."""
    return 1 / (float(viewer.scene.camera.zoom) * pixel_ratio)


def set_native(viewer: Any, info: SlideInfo, *, pixel_ratio: float = 1.0) -> None:
    """Zoom so that one level-0 pixel, by its width, fills one physical screen pixel."""
    viewer.scene.camera.zoom = 1 / (world_scale(info)[1] * pixel_ratio)
