"""On a dense screen, a level of the slide with a pixel for every physical pixel.

napari draws the coarsest level that has a data pixel for every *logical* pixel of the canvas; on a
screen with two physical pixels in a logical one, that is blurred by up to four. Its public switch
(``locked_data_level``) would read the whole level instead of what is in view. So this is the one
place that reaches into napari: the size of the canvas that a layer is told when it is drawn is
given in physical pixels. Nothing is touched where both are the same, nor where napari has no such
method any more: the picture is then as napari makes it.
"""

from __future__ import annotations

import inspect
import weakref
from typing import Any

import numpy as np

from napari_histomil.ui import camera

_METHOD = "_update_draw"
_PARAMETERS = ("scale_factor", "corner_pixels_displayed", "shape_threshold")
"""Of that method in napari 0.8 and 0.9."""


def use_physical_pixels(viewer: Any, layer: Any) -> None:
    """Choose the levels of a multiscale layer by the physical pixels of a viewer's screen.

    Parameters
    ----------
    viewer
        The viewer whose canvas is drawn on (`camera.set_canvas`).
    layer
        The layer in that viewer; a second call changes nothing.
    """
    if _METHOD in vars(layer) or not _understood(type(layer)):
        return
    held_layer, held_viewer = weakref.ref(layer), weakref.ref(viewer)
    draw = getattr(type(layer), _METHOD)

    def draw_physical(
        scale_factor: Any, corner_pixels_displayed: Any, shape_threshold: Any
    ) -> None:
        alive, on = held_layer(), held_viewer()
        if alive is None or on is None:
            return
        ratio = camera.pixel_ratio_of(on)
        if ratio != 1:
            shape_threshold = np.asarray(shape_threshold) * ratio
        draw(
            alive,
            scale_factor=scale_factor,
            corner_pixels_displayed=corner_pixels_displayed,
            shape_threshold=shape_threshold,
        )

    setattr(layer, _METHOD, draw_physical)


def _understood(kind: type) -> bool:
    """Return whether the method is there and takes what it took when this was written."""
    method = getattr(kind, _METHOD, None)
    if method is None:
        return False
    return tuple(inspect.signature(method).parameters)[1:] == _PARAMETERS
