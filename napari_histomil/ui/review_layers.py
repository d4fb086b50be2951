"""Maps of the review over a slide: outcomes of cells, and the difference of two models.

With Mesa's software OpenGL napari crashes when layers come and go in a shown window: each map has
one layer, made when it is first needed, then emptied and hidden, and filled again.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from napari.layers import Image
from napari.utils.colormaps import Colormap
from numpy.typing import NDArray

from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.colours import DEFAULT, DIVERGING, colour_map
from napari_histomil.ui.layers import kinds_layer
from napari_histomil.ui.overlays import selection_kept

OUTCOMES: tuple[tuple[str, tuple[int, int, int, float], str], ...] = (
    ("true positive", (0, 158, 115, 1.0), "It is positive, and the model calls it so"),
    ("false positive", (230, 159, 0, 1.0), "The model calls it positive, and it is not"),
    ("false negative", (213, 0, 94, 1.0), "It is positive, and the model does not call it so"),
    ("true negative", (120, 120, 120, 0.25), "It is not, and the model does not call it so"),
)
"""Name, colour and meaning of the values 1 to 4 (after Okabe & Ito: apart for every reader)."""

OPACITY = 0.6

_NOTHING = np.zeros((1, 1), np.float32)


class MapLayer:
    """One map of a viewer's slide.

    Parameters
    ----------
    viewer
        Held weakly.
    name
        Of the layer.
    colours
        For its values.
    limits
        Of its values.
    """

    def __init__(
        self, viewer: Any, name: str, colours: Colormap, limits: tuple[float, float]
    ) -> None:
        self._viewer = weakref.ref(viewer)
        self._layer: weakref.ref[Image] | None = None
        self._name, self._colours, self._limits = name, colours, limits

    @property
    def layer(self) -> Image | None:
        """The layer, if there is one in the viewer."""
        layer, viewer = None if self._layer is None else self._layer(), self._viewer()
        return layer if viewer is not None and layer in viewer.layers else None

    def show(
        self, image: NDArray[Any], pixel_px0: tuple[float, float], info: SlideInfo, *, on: bool
    ) -> None:
        """Lay an image [rows, columns] over a slide, from its corner on."""
        viewer = self._viewer()
        if viewer is None:
            return
        _, attributes, _ = kinds_layer(image, pixel_px0, info, name=self._name, kind="review")
        layer = self.layer
        if layer is None:
            attributes["contrast_limits"] = self._limits
            layer = Image(
                image, **attributes, colormap=self._colours, opacity=OPACITY, visible=False
            )
            self._layer = weakref.ref(layer)
            with selection_kept(viewer.layers):
                viewer.layers.append(layer)
        else:
            layer.visible = False
            layer.data = image
            layer.units = attributes["units"]
            layer.scale, layer.translate = attributes["scale"], attributes["translate"]
        layer.visible = on

    def repaint(self) -> None:
        """Show that the image was changed in place."""
        layer = self.layer
        if layer is not None and layer.visible:
            layer.refresh(extent=False, highlight=False, thumbnail=False)

    def set_shown(self, on: bool) -> None:
        """Show or hide it; what is empty stays hidden."""
        layer = self.layer
        if layer is not None:
            layer.visible = on and layer.data.shape != _NOTHING.shape

    def clear(self) -> None:
        """Give the memory back and hide the layer, which stays."""
        layer = self.layer
        if layer is not None and layer.data.shape != _NOTHING.shape:
            layer.visible = False
            layer.data = _NOTHING


def outcome_layer(viewer: Any) -> MapLayer:
    """Return the map of true and false, positive and negative cells of a viewer."""
    rgba = [(0.0, 0.0, 0.0, 0.0)]
    rgba += [(*(part / 255 for part in color[:3]), color[3]) for _, color, _ in OUTCOMES]
    steps = np.linspace(0, 1, len(rgba) + 1)
    colours = Colormap(
        np.array(rgba), controls=steps, interpolation="zero", name="outcomes (HistoMIL)"
    )
    return MapLayer(viewer, "Right and wrong", colours, (0, len(OUTCOMES)))


def difference_layer(viewer: Any) -> MapLayer:
    """Return the map of one model less another: red where the first says more."""
    return MapLayer(viewer, "Difference of two models", colour_map(DIVERGING), (-1, 1))


def legend_html() -> str:
    """Return the colours of the outcomes with their names, as HTML."""
    return "&nbsp; ".join(
        f"<span style='color: rgb{color[:3]}'>■</span>&nbsp;{name.replace(' ', '&nbsp;')}"
        for name, color, _ in OUTCOMES
    )


def stain_layer(viewer: Any) -> MapLayer:
    """Return the map of what a model says under a stain condition, or of how far that moves."""
    return MapLayer(viewer, "Stained otherwise", colour_map(DEFAULT), (0, 1))
