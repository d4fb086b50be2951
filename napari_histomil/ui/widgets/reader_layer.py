"""The outline of a second reader's region on the slide, while a difference is looked at."""

from __future__ import annotations

import weakref

import shapely

from napari_histomil.annotations.model import Region
from napari_histomil.annotations.spatial import rect_of
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.flight import fly_to_rect
from napari_histomil.ui.layers import polygons_layer, world_scale

EDGE_UM = 3.0


class ReaderLayer:
    """One layer of outlines, there only while there is something to show."""

    def __init__(self, annotator: Annotator) -> None:
        self._viewer = weakref.ref(annotator.viewer)
        self._layer: weakref.ref[object] | None = None

    def clear(self) -> None:
        """Take the outline off the slide."""
        layer = None if self._layer is None else self._layer()
        viewer = self._viewer()
        if layer is not None and viewer is not None and layer in viewer.layers:
            viewer.layers.remove(layer)
        self._layer = None

    def show(self, region: Region | None, info: SlideInfo, reader: str) -> None:
        """Show a region of the other reader; None for none."""
        viewer = self._viewer()
        self.clear()
        if viewer is None or region is None or region.geometry.is_empty:
            return
        scale = max(world_scale(info))
        shape = region.geometry
        if not region.is_areal:  # a ring around what has no area
            shape = shape.buffer(2 * EDGE_UM / scale)
        parts = [part for part in shapely.get_parts(shape) if part.area]
        data, attributes, _ = polygons_layer(
            parts, info, name=f"{reader} (second reader)", edge_width=EDGE_UM
        )
        active = viewer.layers.selection.active
        layer = viewer.add_shapes(
            data, **attributes | {"face_color": "transparent", "edge_color": "cyan"}
        )
        layer.mouse_pan = True
        viewer.layers.selection.active = active
        self._layer = weakref.ref(layer)

    def fly(self, region: Region, info: SlideInfo) -> None:
        """Look at a region that is not in the set."""
        viewer = self._viewer()
        rect = rect_of([region])
        if viewer is not None and rect is not None:
            fly_to_rect(viewer, info, rect)
