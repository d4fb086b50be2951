"""Frames around tiles, as one layer over the slides of a viewer."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from napari.layers import Vectors

from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.layers import METADATA_KEY, to_world_um, world_units

COLOUR = "#00e5ff"
"""Cyan: neither in H&E nor in any of the colour maps."""


class Frames:
    """Rectangles drawn by their outlines; the layer comes with the first and goes with `clear`.

    Vectors, because they are quick, nobody draws into them by accident, and napari 0.9 crashes
    with Mesa's drivers when Shapes layers come and go.

    Parameters
    ----------
    viewer
        The viewer; held weakly.
    name
        Of the layer.
    colour
        As ``#rrggbb``.
    """

    def __init__(self, viewer: Any, name: str, colour: str = COLOUR) -> None:
        self._viewer = weakref.ref(viewer)
        self._name, self._colour = name, colour
        self._layer: Vectors | None = None

    def show(self, info: SlideInfo, rects_px0: Iterable[Sequence[float]]) -> None:
        """Frame rectangles (x, y, width, height) of a slide, and no others any more."""
        viewer = self._viewer()
        if viewer is None:
            return
        sides: list[Any] = []
        for x, y, width, height in rects_px0:
            right, bottom = x + width, y + height
            corners = to_world_um([(x, y), (right, y), (right, bottom), (x, bottom)], info)
            sides += [(a, b - a) for a, b in zip(corners, np.roll(corners, -1, 0), strict=True)]
        # [4 each, 2, 2]: start and direction, (row, col) in µm
        lines = np.array(sides).reshape(-1, 2, 2)
        if self._layer is not None and self._layer in viewer.layers:
            self._layer.data = lines
            return
        self._layer = Vectors(
            lines,
            name=self._name,
            metadata={METADATA_KEY: {"kind": "frame"}},
            units=world_units(info),
            axis_labels=("y", "x"),
            edge_color=self._colour,
            edge_width=1.0,  # µm: two screen pixels at 20x
            vector_style="line",
            opacity=1.0,
        )
        with selection_kept(viewer.layers):
            viewer.layers.append(self._layer)

    def clear(self) -> None:
        """Remove the layer."""
        viewer, layer = self._viewer(), self._layer
        self._layer = None
        if layer is None or viewer is None or layer not in viewer.layers:
            return
        # napari removes selected layers one by one, and stumbles over one that is gone.
        if layer not in viewer.layers.selection:
            viewer.layers.remove(layer)


@contextmanager
def selection_kept(layers: Any) -> Iterator[None]:
    """Leave the person's selection, and so their tool, as it is while layers come and go."""
    active, selected = layers.selection.active, set(layers.selection)
    yield
    layers.selection = {layer for layer in selected if layer in layers}
    if active in layers:
        layers.selection.active = active
