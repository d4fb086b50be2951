"""Where the viewer looks: fit a slide, go to a place, set and read the magnification, turn.

Magnification is that of the screen: at 20x one physical screen pixel shows 0.5 µm, whatever the
file calls its objective. napari's zoom counts logical pixels, of which a dense screen has fewer.
"""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np
from qtpy.compat import isalive
from qtpy.QtCore import QEvent
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QWidget

from napari_histomil import geometry
from napari_histomil.geometry import Rect
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.layers import center_of_view_px0, to_world_um, world_scale
from napari_histomil.ui.orientation import (
    Orientation,
    look_at_world,
    orientation_of,
    set_orientation,
    world_step,
)

MAGNIFICATIONS = (1.25, 2.5, 5.0, 10.0, 20.0, 40.0)
"""What the Slide dock has buttons for."""

FIT_MARGIN = 0.04
"""Share of the canvas left free on each side of what is fitted."""

NEW_SCREEN = getattr(QEvent.Type, "DevicePixelRatioChange", None)
"""Type of a widget's event when its screen has other pixels; None in Qt before 6.6."""

_canvases: weakref.WeakKeyDictionary[Any, weakref.ref[QWidget]] = weakref.WeakKeyDictionary()


# --- the screen -------------------------------------------------------------------------------


def set_canvas(viewer: Any, canvas: QWidget) -> None:
    """Say which widget a viewer draws on: its screen decides what a physical pixel is."""
    _canvases[getattr(viewer, "__wrapped__", viewer)] = weakref.ref(canvas)


def pixel_ratio_of(viewer: Any) -> float:
    """Return the physical pixels in a logical one where the viewer draws.

    Before its canvas is known (`set_canvas`), that of the densest screen; 1 without any.
    """
    held = _canvases.get(getattr(viewer, "__wrapped__", viewer))
    canvas = None if held is None else held()
    if canvas is not None and isalive(canvas):
        return float(canvas.devicePixelRatioF())
    application = QGuiApplication.instance()
    return 1.0 if application is None else float(application.devicePixelRatio())


def focus_canvas(viewer: Any) -> None:
    """Give the keys to the widget that a viewer draws on, once it is known (`set_canvas`)."""
    held = _canvases.get(getattr(viewer, "__wrapped__", viewer))
    canvas = None if held is None else held()
    if canvas is not None and isalive(canvas):
        canvas.setFocus()


# --- where it looks ---------------------------------------------------------------------------


def fit_slide(viewer: Any, info: SlideInfo) -> None:
    """Show the whole slide, without the white that pads its pyramid."""
    fit_rect(viewer, info, info.bounds_px0 or info.rect_px0)


def fit_rect(viewer: Any, info: SlideInfo, rect_px0: Rect) -> None:
    """Show a rectangle of the slide as large as the canvas allows."""
    viewer.scene.camera.zoom = _fitting_zoom(viewer, info, rect_px0)
    go_to_px0(viewer, info, rect_px0.center_px0)


def shows_whole(viewer: Any, info: SlideInfo) -> bool:
    """Return whether the view is as `fit_slide` leaves it, to within a screen pixel."""
    rect = info.bounds_px0 or info.rect_px0
    zoom = viewer.scene.camera.zoom
    aside = to_world_um(rect.center_px0, info) - to_world_um(
        center_of_view_px0(viewer, info), info
    )
    near = bool(np.all(np.abs(aside) * zoom < 1))
    return near and math.isclose(zoom, _fitting_zoom(viewer, info, rect), rel_tol=1e-3)


def _fitting_zoom(viewer: Any, info: SlideInfo, rect_px0: Rect) -> float:
    height, width = viewer.canvas.size
    row_unit, column_unit = world_scale(info)
    across, down = rect_px0.width_px0 * column_unit, rect_px0.height_px0 * row_unit
    if orientation_of(viewer).transposed:
        across, down = down, across
    return float((1 - 2 * FIT_MARGIN) * min(width / across, height / down))


def go_to_px0(viewer: Any, info: SlideInfo, xy_px0: tuple[float, float]) -> None:
    """Move the middle of the canvas to a level-0 position (x, y); the zoom stays."""
    look_at_world(viewer, to_world_um(xy_px0, info))


def turn(viewer: Any, wanted: Orientation, info: SlideInfo | None = None) -> None:
    """Turn and mirror the view about its middle; a slide that is shown whole is so afterwards.

    Parameters
    ----------
    viewer
        The viewer.
    wanted
        How the slide is shown from now on.
    info
        The facts of the slide that is looked at.
    """
    whole = info is not None and shows_whole(viewer, info)
    set_orientation(viewer, wanted)
    if whole and info is not None:
        fit_slide(viewer, info)


# --- how closely ------------------------------------------------------------------------------


def set_magnification(viewer: Any, power: float, *, pixel_ratio: float | None = None) -> None:
    """Zoom about the middle of the canvas; the slide's µm/px must be known.

    Parameters
    ----------
    viewer
        The viewer, whose world is in µm.
    power
        Magnification, such as 20.
    pixel_ratio
        Physical pixels in a logical one, if not those of the viewer's screen.
    """
    um_per_pixel = 10 / power
    viewer.scene.camera.zoom = 1 / (um_per_pixel * _ratio(viewer, pixel_ratio))


def magnification(viewer: Any, *, pixel_ratio: float | None = None) -> float:
    """Return the magnification on the screen; the slide's µm/px must be known."""
    return geometry.magnification(um_per_pixel(viewer, pixel_ratio=pixel_ratio))


def um_per_pixel(viewer: Any, *, pixel_ratio: float | None = None) -> float:
    """Return the µm that a physical screen pixel shows; the slide's µm/px must be known."""
    return 1 / (float(viewer.scene.camera.zoom) * _ratio(viewer, pixel_ratio))


def set_native(viewer: Any, info: SlideInfo, *, pixel_ratio: float | None = None) -> None:
    """Zoom so that one level-0 pixel, by its width, fills one physical screen pixel.

    The view moves by less than a pixel, so that the slide's pixels lie on those of the screen and
    not across their edges, where both would be mixed.
    """
    ratio = _ratio(viewer, pixel_ratio)
    viewer.scene.camera.zoom = 1 / (world_scale(info)[1] * ratio)
    height, width = viewer.canvas.size
    corner_step = world_step(viewer, (-width / 2, -height / 2))  # from the middle
    corner = to_world_um(center_of_view_px0(viewer, info), info) + corner_step
    unit = np.array(world_scale(info))
    look_at_world(viewer, np.round(corner / unit) * unit - corner_step)


def step_zoom(viewer: Any, info: SlideInfo, steps: int) -> None:
    """Zoom in (steps > 0) or out by halves and doubles, about the middle of the canvas.

    The steps are those of the magnifications 1.25x, 2.5x, 5x ...; where µm/px are unknown, those
    of one screen pixel for one pixel of the slide.
    """
    scale = 1.0 if info.mpp_x is None else 8.0  # world units of a screen pixel at 1.25x
    zoom = viewer.scene.camera.zoom * pixel_ratio_of(viewer) * scale
    octave = math.log2(zoom)
    # From between two steps one goes to the nearer one in that direction.
    octave = math.floor(octave + 1e-6) if steps > 0 else math.ceil(octave - 1e-6)
    viewer.scene.camera.zoom = 2.0 ** (octave + steps) / (pixel_ratio_of(viewer) * scale)


def _ratio(viewer: Any, given: float | None) -> float:
    return pixel_ratio_of(viewer) if given is None else given
