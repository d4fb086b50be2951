"""Choose where a model looks: tissue, shapes, what is in view, the whole slide."""

from __future__ import annotations

import math
from typing import Any

from napari.layers import Shapes
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QGridLayout, QRadioButton, QWidget

from napari_histomil.errors import RunError
from napari_histomil.geometry import Rect
from napari_histomil.inference.job import RegionSpec
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.layers import rect_in_view_px0, shapes_to_px0
from napari_histomil.ui.orientation import view_signals
from napari_histomil.ui.widgets.panel import follow

_TISSUE, _SHAPES, _VIEW, _ALL = "Tissue", "Drawn shapes", "What is in view", "Whole slide"
_TOOLTIPS = {
    _TISSUE: "Tiles with tissue on them; glass, pen and the slide's edges are left out",
    _SHAPES: "The selected shapes of the Shapes layer that was active last, or all of it where "
    "none is selected; glass inside them is looked at too",
    _VIEW: "The part of the slide that the canvas shows now; glass is looked at too",
    _ALL: "Every tile of the slide, glass too: for tissue that is not found by itself",
}
_NO_SHAPES = "Add a Shapes layer and draw around what the model shall look at"


class RegionPicker(QWidget):
    """Four ways to say where to look."""

    changed = Signal()
    """Another way is chosen, or it leads to another region."""

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._shapes: Shapes | None = None
        self.buttons = {name: QRadioButton(name) for name in _TOOLTIPS}
        self.buttons[_TISSUE].setChecked(True)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(10)
        grid.setVerticalSpacing(4)
        for index, button in enumerate(self.buttons.values()):
            grid.addWidget(button, index // 2, index % 2)
            button.toggled.connect(lambda on: on and self.changed.emit())
        grid.setColumnStretch(0, 1)
        grid.setColumnStretch(1, 1)
        follow(self, viewer.layers.selection.events.active, self._look_for_shapes)
        follow(self, viewer.layers.events.removed, self._look_for_shapes)
        self.destroyed.connect(lambda: self._watch(None))
        for signal in view_signals(viewer):
            follow(self, signal, self._on_view)
        self._look_for_shapes()

    def region(self, info: SlideInfo) -> RegionSpec:
        """Return the region that is chosen, on this slide.

        Raises
        ------
        RunError
            If there is nothing in it.
        """
        if self.buttons[_TISSUE].isChecked():
            return RegionSpec("tissue")
        if self.buttons[_ALL].isChecked():
            return RegionSpec("all")
        if self.buttons[_VIEW].isChecked():
            shown = rect_in_view_px0(self._viewer, info)
            if shown is None:
                raise RunError(
                    f"Nothing of {info.path.name} is in view: move the slide into the window, or "
                    f"choose tissue."
                )
            return RegionSpec("rect", rect_px0=_whole_pixels(shown))
        polygons = []
        if self._shapes is not None:
            chosen = bool(self._shapes.selected_data)
            polygons = shapes_to_px0(self._shapes, info, selected_only=chosen)
        if not polygons:
            raise RunError(f"There is no area among the drawn shapes. {_NO_SHAPES}.")
        return RegionSpec("polygons", polygons_wkt=tuple(each.wkt for each in polygons))

    def _look_for_shapes(self, _: Any = None) -> None:
        """Keep the Shapes layer that was active last, and say so."""
        active = self._viewer.layers.selection.active
        if isinstance(active, Shapes):
            self._watch(active)
        if self._shapes not in self._viewer.layers:
            self._watch(None)
        button = self.buttons[_SHAPES]
        button.setEnabled(self._shapes is not None)
        button.setToolTip(
            _NO_SHAPES
            if self._shapes is None
            else f"{_TOOLTIPS[_SHAPES]}.\nThat layer is now “{self._shapes.name}”"
        )
        self._count_shapes()
        if self._shapes is None and button.isChecked():
            self.buttons[_TISSUE].setChecked(True)
        for name in (_TISSUE, _VIEW, _ALL):
            self.buttons[name].setToolTip(_TOOLTIPS[name])

    def _watch(self, shapes: Shapes | None) -> None:
        """Follow what is drawn and selected in a layer, and in no other."""
        if shapes is self._shapes:
            return
        if self._shapes is not None:
            self._shapes.events.highlight.disconnect(self._count_shapes)
            self._shapes.events.data.disconnect(self._count_shapes)
        self._shapes = shapes
        if shapes is not None:
            shapes.events.highlight.connect(self._count_shapes)
            shapes.events.data.connect(self._count_shapes)

    def _count_shapes(self, _: Any = None) -> None:
        """Say how many shapes are meant: napari selects the one that was drawn last."""
        drawn = 0 if self._shapes is None else self._shapes.nshapes
        chosen = len(self._shapes.selected_data) if self._shapes is not None else 0
        self.buttons[_SHAPES].setText(
            f"{_SHAPES} ({chosen or drawn} of {drawn})" if drawn else _SHAPES
        )
        if self.buttons[_SHAPES].isChecked():
            self.changed.emit()

    def _on_view(self, _: Any) -> None:
        if self.buttons[_VIEW].isChecked():
            self.changed.emit()


def _whole_pixels(rect: Rect) -> Rect:
    """Return the rectangle with its edges on pixels, outwards: what can be read and repeated."""
    x0, y0 = math.floor(rect.x_px0), math.floor(rect.y_px0)
    return Rect(x0, y0, math.ceil(rect.right_px0) - x0, math.ceil(rect.bottom_px0) - y0)
