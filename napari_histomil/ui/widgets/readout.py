"""What lies under the pointer: raw scores of the tile there, or probabilities of the pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.layers import to_px0
from napari_histomil.ui.orientation import (
    canvas_step,
    center_of_world,
    view_signals,
    world_step,
)
from napari_histomil.ui.segmentation_painter import ValueReader
from napari_histomil.ui.session import RunView
from napari_histomil.ui.widgets.panel import follow, plain_label


class Readout(QWidget):
    """Follows the pointer over a viewer's canvas, also while the view moves under it."""

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._run: RunView | None = None
        self.label = plain_label(tooltip="Raw values of the model under the pointer")
        self.label.setMinimumHeight(3 * self.fontMetrics().lineSpacing())
        self.label.setAlignment(Qt.AlignmentFlag.AlignTop)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.label)
        self._values = ValueReader(self)
        self._values.answered.connect(self._show_values)
        self._pointer: NDArray[np.float64] | None = None  # (x, y) from the canvas's middle, px
        callbacks = viewer.mouse_move_callbacks

        def on_move(_viewer: Any, event: Any) -> None:
            aside = np.array(event.position[-2:]) - center_of_world(viewer)
            self._pointer = canvas_step(viewer, aside)
            self.read_out(event.position)

        def on_view(_event: Any) -> None:
            # A key moves the tissue and not the pointer, and napari says nothing of it.
            if self._pointer is not None:
                self.read_out(center_of_world(viewer) + world_step(viewer, self._pointer))

        for signal in view_signals(viewer):
            follow(self, signal, on_view)
        callbacks.append(on_move)
        self.destroyed.connect(lambda: callbacks.remove(on_move))

    def text(self) -> str:
        """Return what is said."""
        return self.label.text()

    def show_run(self, run: RunView | None) -> None:
        """Speak of another run from now on."""
        self._run = run
        if run is None:
            self.label.setText("")

    def read_out(self, world: Sequence[float]) -> None:
        """Say what lies at a world position, as in napari's ``event.position``."""
        run = self._run
        if run is None:
            return
        info = run.slide.info
        x, y = to_px0(world, info)
        self.label.setToolTip(f"Level-0 pixel x {x:.0f}, y {y:.0f}")
        if not (0 <= x < info.width_px0 and 0 <= y < info.height_px0):
            self.label.setText("outside the slide")
        elif run.segmentation is not None:
            self._values.ask(run.segmentation.store, (float(x), float(y)))
        elif run.attention is not None:
            self._show_attention(run, float(x), float(y))
        else:
            self._show_scores(run, float(x), float(y))

    def _show_scores(self, run: RunView, x: float, y: float) -> None:
        heatmap, where = run.heatmap, _where(run.slide.info, x, y)
        tile = heatmap.tile_at((x, y))
        if tile is None:
            self.label.setText(f"{where}<br>not looked at: outside the region of this run")
        elif tile in run.store.skipped:
            self.label.setText(f"{where}<br>no score: {run.store.skipped[tile]}")
        elif heatmap.values[tile] != heatmap.values[tile]:  # NaN
            self.label.setText(f"{where}<br>not computed yet")
        else:
            said = _said(heatmap.class_names, heatmap.scores[tile], heatmap.class_index)
            self.label.setText(f"{where}<br>{said}")

    def _show_attention(self, run: RunView, x: float, y: float) -> None:
        view, where = run.attention, _where(run.slide.info, x, y)
        tile = view.tile_at((x, y))
        if tile is None or np.isnan(view.values[tile]):
            self.label.setText(f"{where}<br>not examined: no value, which is not 0")
            return
        words = [
            f"<b>{name} {value}</b>" if name == view.normalisation else f"{name} {value}"
            for name, value in view.readings(tile)
        ]
        self.label.setText(f"{where}<br>{', '.join(words)}")

    def _show_values(self, xy_px0: tuple[float, float], values: Any) -> None:
        run = self._run
        if run is None or run.segmentation is None:
            return
        where = _where(run.slide.info, *xy_px0)
        if values is None or np.isnan(values).any():
            facts = run.segmentation.facts
            done = facts is not None and facts.done_tiles == len(run.store.grid)
            why = "not looked at" if done else "not looked at, or not computed yet"
            self.label.setText(f"{where}<br>{why}")
            return
        view = run.segmentation
        marked = view.style.class_index if view.style.probability else int(np.argmax(values))
        self.label.setText(f"{where}<br>{_said(view.class_names, values, marked, 2)}")


def _where(info: SlideInfo, x: float, y: float) -> str:
    mpp_x, mpp_y = info.mpp_xy
    return f"x {x * mpp_x:.0f} µm, y {y * mpp_y:.0f} µm"


def _said(
    names: Sequence[str], values: NDArray[np.float32], marked: int, decimals: int = 4
) -> str:
    """Return names with values, one of them in bold."""
    words = [f"{name} {value:.{decimals}f}" for name, value in zip(names, values, strict=True)]
    words[marked] = f"<b>{words[marked]}</b>"
    return ", ".join(words)
