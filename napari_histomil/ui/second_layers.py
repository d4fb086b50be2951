"""The layers of a second view: a slide and a result, as the first view's layers show them.

There are at most three, and they stay as long as the view does: what is shown otherwise changes
their data. With Mesa's software OpenGL, napari 0.9 crashes when slides' layers come and go in a
shown canvas.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image
from numpy.typing import NDArray
from psygnal import Signal

from napari_histomil.ui.brightness import Tone
from napari_histomil.ui.colours import colour_map
from napari_histomil.ui.layers import (
    corner_um,
    heatmap_layer,
    picture_layer,
    pixel_um,
    pyramid_of,
    slide_of,
)
from napari_histomil.ui.painting import follow
from napari_histomil.ui.segmentation_painter import SegmentationPainter
from napari_histomil.ui.session import RunView, SlideSession


class SecondLayers:
    """What lies in a second view, from its beginning to its end.

    Attributes
    ----------
    slide_layer
        The slide's layer, or None before the first slide.
    run
        The run whose heatmap is shown, or None.
    """

    repainted = Signal()
    """The heatmap is shown in another way: its class, say."""

    def __init__(self, view: ViewerModel) -> None:
        self._view = view
        self.slide_layer: Image | None = None
        self.run: RunView | None = None
        self._heat: Image | None = None
        self._picture: Image | None = None
        self._painter: SegmentationPainter | None = None
        self._matrix = np.eye(3)

    def show_slide(self, slide: SlideSession) -> None:
        """Show a slide as the first view's layer of it does; both take pixels from one place."""
        if self.slide_layer is not None and slide_of(self.slide_layer) is slide.slide:
            return
        original = slide.layer
        levels = pyramid_of(original).arrays()
        placed = {
            "name": original.name,
            "scale": original.scale,
            "translate": original.translate,
            "metadata": original.metadata,
        }
        if self.slide_layer is None:
            self.slide_layer = self._view.add_image(
                levels, rgb=True, multiscale=True, contrast_limits=(0, 255),
                interpolation2d=original.interpolation2d, units=original.units,
                axis_labels=original.axis_labels, **placed,
            )  # fmt: skip
        else:
            self.slide_layer.data = levels
            _set(self.slide_layer, units=original.units, **placed)
        follow(self._view, self.slide_layer)

    def set_tone(self, tone: Tone) -> None:
        """Show the slide as bright as this."""
        if self.slide_layer is not None:
            tone.paint(self.slide_layer)

    def show_run(self, run: RunView | None) -> None:
        """Lay a run's heatmap over the slide, and keep it as the first view shows it."""
        self._let_run_go()
        if run is None:
            return
        if run.segmentation is not None:
            self._show_segmentation(run)
            return
        heatmap, original = run.heatmap, run.layer
        data, attributes, _ = heatmap_layer(
            heatmap.image,
            corner_um=corner_um(original),
            pixel_um=pixel_um(original),
            name=original.name,
            colormap=colour_map(heatmap.colours),
            opacity=original.opacity,
            interpolation2d=original.interpolation2d,
        )
        if self._heat is None:
            self._heat = self._view.add_image(data, **attributes)
        else:
            self._heat.data = data
            _set(self._heat, **{name: attributes[name] for name in ("name", "scale", "translate")})
            self._heat.visible = True
        self.run = run
        for signal in _signals(run):
            signal.connect(self._on_heatmap)
        self._on_heatmap()

    def place(self, matrix: NDArray[np.float64]) -> None:
        """Lay both layers where they belong in the world, by an affine [3, 3] in (row, col)."""
        self._matrix = matrix
        for layer in self._view.layers:
            if layer is self._picture and self._painter is not None:
                self._painter.base = matrix
            else:
                layer.affine = matrix
            if self.slide_layer is not None:
                layer.units = self.slide_layer.units

    def let_go(self) -> None:
        """Take the layers out of the view, and hear no more of the first view's."""
        self._let_run_go()
        self.slide_layer = self._heat = self._picture = None
        self._view.layers.clear()

    def _let_run_go(self) -> None:
        run, self.run = self.run, None
        if run is None:
            return
        if self._painter is not None:
            self._let_segmentation_go(run)
            return
        for signal in _signals(run):
            signal.disconnect(self._on_heatmap)
        assert self._heat is not None
        self._heat.visible = False
        self._heat.data = np.full((1, 1), np.nan, np.float32)  # keeps no run's picture alive

    def _show_segmentation(self, run: RunView) -> None:
        """Lay a segmentation over the slide: its own picture, as the views may be parted."""
        original, info = run.layer, run.slide.info
        if self._picture is None:
            data, attributes, _ = picture_layer(info, name=original.name)
            self._picture = self._view.add_image(data, **attributes)
        self._picture.visible = True
        self.run = run
        self._painter = SegmentationPainter(
            self._view, info, run.segmentation, self._picture, counts=False
        )
        self._painter.base = self._matrix
        self._painter.painted.connect(self.repainted.emit)
        original.events.opacity.connect(self._on_opacity)
        self._on_opacity()

    def _let_segmentation_go(self, run: RunView) -> None:
        assert self._picture is not None
        assert self._painter is not None
        self._painter.let_go()
        self._painter = None
        run.layer.events.opacity.disconnect(self._on_opacity)
        self._picture.visible = False
        self._picture.data = np.zeros((8, 8, 4), np.uint8)

    def _on_opacity(self, _event: Any = None) -> None:
        if self.run is not None and self._picture is not None:
            self._picture.opacity = self.run.layer.opacity

    def _on_heatmap(self, _event: Any = None) -> None:
        """Show the heatmap as the first view would: the picture is the same array."""
        run, layer = self.run, self._heat
        if run is None or layer is None:
            return
        colours = colour_map(run.heatmap.colours)
        if layer.colormap.name != colours.name:
            layer.colormap = colours
        _set(layer, opacity=run.layer.opacity, interpolation2d=run.layer.interpolation2d)
        if layer.data is not run.heatmap.image:  # another map of a MIL run
            layer.data = run.heatmap.image
            _set(layer, scale=run.layer.scale, translate=run.layer.translate)
        layer.refresh(extent=False, highlight=False)
        self.repainted.emit()


def _signals(run: RunView) -> tuple[Any, ...]:
    """Return the signals after which a run's heatmap is shown in another way."""
    events = run.layer.events
    return run.heatmap.changed, run.heatmap.filled, events.opacity, events.interpolation2d


def _set(layer: Image, **attributes: Any) -> None:
    for name, value in attributes.items():
        setattr(layer, name, value)
