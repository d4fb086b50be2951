"""The map of where two readers differ, over the slide, with its switch and what its colours mean.

With Mesa's software OpenGL napari crashes when layers come and go in a shown window: there is one
layer, made when it is first needed. Afterwards it is emptied and hidden, and filled again.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from napari.layers import Image
from napari.utils.colormaps import Colormap
from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QWidget

from napari_histomil.review.difference_picture import DifferencePicture
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.frames import selection_kept
from napari_histomil.ui.layers import kinds_layer, world_scale
from napari_histomil.ui.widgets.panel import follow, plain_label

LAYER_NAME = "Differences"

COLOURS: tuple[tuple[str, tuple[int, int, int], str], ...] = (
    ("only mine", (255, 150, 0), "I have drawn something here, the other reader has not"),
    ("only theirs", (0, 170, 255), "The other reader has drawn something here, I have not"),
    ("other class", (0, 105, 55), "Both have, but not in the same class"),
)
"""Name, colour and meaning of the values 1, 2, 3: far apart in lightness, and not of H&E."""

OPACITY = 0.65

_NOTHING = np.zeros((1, 1), np.uint8)


class DifferenceMap(QWidget):
    """A tick that shows the map, and its legend."""

    def __init__(self, annotator: Annotator, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = weakref.ref(annotator.viewer)
        self._layer: weakref.ref[Image] | None = None
        self._info: SlideInfo | None = None
        self.box = QCheckBox("Map")
        self.box.setChecked(True)
        self.box.toggled.connect(self._show)
        chips = "&nbsp; ".join(
            f"<span style='color: rgb{color}'>■</span>&nbsp;{name.replace(' ', '&nbsp;')}"
            for name, color, _ in COLOURS
        )
        meanings = "\n".join(f"{name}: {meaning}" for name, _, meaning in COLOURS)
        self.words = plain_label(
            chips, f"{meanings}\nClear: they say the same, or it is not compared"
        )
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.box)
        line.addWidget(self.words, 1)
        self._annotator = annotator
        follow(self, annotator.slide_changed, self._on_slide)
        self.destroyed.connect(lambda: self._empty())  # a slot of its own would not be called
        self._say("Compare first")

    @property
    def layer(self) -> Image | None:
        """The layer, if there is one in the viewer."""
        layer, viewer = None if self._layer is None else self._layer(), self._viewer()
        return layer if viewer is not None and layer in viewer.layers else None

    def set_picture(
        self, picture: DifferencePicture | None, info: SlideInfo, why_not: str = ""
    ) -> None:
        """Show a map of a slide if that is wanted, or say why there is none."""
        viewer = self._viewer()
        if picture is None or viewer is None:
            self.clear(why_not)
            return
        self._info = info
        layer = self.layer
        data, attributes, _ = kinds_layer(
            picture.kinds, picture.pixel_px0, info, name=LAYER_NAME, kind="differences"
        )
        if layer is None:
            layer = Image(
                data, **attributes, colormap=_colour_map(), opacity=OPACITY, visible=False
            )
            follow(self, layer.events.visible, self._on_eye)
            self._layer = weakref.ref(layer)
            with selection_kept(viewer.layers):
                viewer.layers.append(layer)
        else:
            self._show(False)
            layer.data = data
            layer.units = attributes["units"]
            layer.scale, layer.translate = attributes["scale"], attributes["translate"]
        um = picture.pixel_px0[0] * world_scale(info)[1]
        self._say("", f"Where the two differ, over the slide; a pixel of it is {um:.3g} µm")
        self._show(self.box.isChecked())

    def clear(self, why_not: str = "Compare first") -> None:
        """Take the map off the slide."""
        self._empty()
        self._say(why_not)

    def _empty(self) -> None:
        """Give the memory back and hide the layer, which stays."""
        self._info = None
        layer = self.layer
        if layer is not None and layer.data.shape != _NOTHING.shape:
            layer.visible = False
            layer.data = _NOTHING

    def _say(self, why_not: str, tooltip: str = "") -> None:
        self.box.setEnabled(not why_not)
        self.box.setToolTip(why_not or tooltip)

    def _show(self, on: bool) -> None:
        layer = self.layer
        if layer is None:
            return
        with layer.events.visible.blocker(self._on_eye):
            layer.visible = on and self._info is not None

    def _on_eye(self, _: Any = None) -> None:
        """Follow the layer's eye in napari's list."""
        layer = self.layer
        if layer is not None and self._info is not None:
            with QSignalBlocker(self.box):
                self.box.setChecked(layer.visible)

    def _on_slide(self) -> None:
        """Be gone at once with the slide, also while the dock lies behind another one."""
        slide = self._annotator.slide
        if self._info is not None and (
            slide is None
            or slide.info.fingerprint != self._info.fingerprint
            or world_scale(slide.info) != world_scale(self._info)
        ):
            self.clear()


def _colour_map() -> Colormap:
    """Return colours for 0, 1, 2, 3 on the limits 0 to 3; 0 is clear."""
    opaque = [(*(part / 255 for part in color), 1.0) for _, color, _ in COLOURS]
    colors = np.array([(0.0, 0.0, 0.0, 0.0), *opaque])
    steps = np.linspace(0, 1, len(colors) + 1)
    return Colormap(colors, controls=steps, interpolation="zero", name="differences (HistoMIL)")
