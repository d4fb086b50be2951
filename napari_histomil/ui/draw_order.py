"""A frame never shows the pixels of the place before: they are sliced before it is drawn.

napari draws a frame first, and looks afterwards whether its layers need other pixels than they
have; those are in the next frame. So the first frame after a move out of what was sliced has a
black edge, and most such moves are drawn twice. Here napari looks first. Only public members are
used: of napari's canvas ``view`` and ``on_draw``, of vispy's its ``draw`` event. Where napari has
them no more, the picture is as napari makes it.
"""

from __future__ import annotations

from typing import Any

from napari.qt import QtViewer
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QApplication


def widget_of(viewer: Any) -> QtViewer | None:
    """Return the widget that shows a viewer, if any."""
    viewer = getattr(viewer, "__wrapped__", viewer)
    for window in QApplication.topLevelWidgets():
        for widget in window.findChildren(QtViewer):
            if widget.viewer is viewer:
                return widget
    return None


def canvas_of(viewer: Any) -> QOpenGLWidget | None:
    """Return the canvas on which a viewer is drawn, if any."""
    widget = widget_of(viewer)
    return None if widget is None else widget.findChild(QOpenGLWidget)


def slice_before_drawing(widget: QtViewer | None) -> None:
    """Let a viewer's layers take the pixels of a frame before it is drawn.

    Parameters
    ----------
    widget
        The widget that shows the viewer; None, and a second call, change nothing.
    """
    canvas = getattr(widget, "canvas", None)
    on_draw = getattr(canvas, "on_draw", None)
    drawn = getattr(getattr(getattr(canvas, "view", None), "canvas", None), "events", None)
    if on_draw is None or drawn is None:
        return
    drawn.draw.disconnect(on_draw)
    drawn.draw.connect(on_draw, position="first")  # held weakly
