"""Looking at a place with some of what is around it."""

from __future__ import annotations

from typing import Any

from napari_histomil.geometry import Rect
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.annotator import FLY_MARGIN
from napari_histomil.ui.camera import fit_rect
from napari_histomil.ui.layers import world_scale

LEAST_UM = 100.0
"""A place is not looked at more closely than as if it were so large."""


def fly_to_rect(viewer: Any, info: SlideInfo, rect_px0: Rect) -> None:
    """Look at a rectangle of a slide, with some of what is around it."""
    least = LEAST_UM / max(world_scale(info))
    wide = max(rect_px0.width_px0 * (1 + FLY_MARGIN), least)
    high = max(rect_px0.height_px0 * (1 + FLY_MARGIN), least)
    x, y = rect_px0.center_px0
    fit_rect(viewer, info, Rect(x - wide / 2, y - high / 2, wide, high))
