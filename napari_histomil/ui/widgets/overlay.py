"""The Overlay dock: which result lies over the slide, how it is shown, and what it says where.

What is only about segmentations is in `segmentation.py`, about MIL runs in `attention.py`, what
lies under the pointer in `readout.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, QTimer
from qtpy.QtGui import QPaintEvent, QShowEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QHBoxLayout,
    QPushButton,
    QWidget,
)

from napari_histomil.heatmaps import NORMALISATIONS
from napari_histomil.ui.colours import COLOUR_MAPS
from napari_histomil.ui.heatmap_view import HeatmapView
from napari_histomil.ui.keys import KEYS, hint
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.run_facts import doubts, made_by, provenance
from napari_histomil.ui.session import RunView
from napari_histomil.ui.widgets.attention import AttentionPart
from napari_histomil.ui.widgets.colour_bar import ColourBar
from napari_histomil.ui.widgets.forms import choice_box, form
from napari_histomil.ui.widgets.heat_legend import HeatLegend, attach_heat_legend
from napari_histomil.ui.widgets.panel import Panel, follow, plain_label
from napari_histomil.ui.widgets.readout import Readout
from napari_histomil.ui.widgets.run_chooser import RunChooser
from napari_histomil.ui.widgets.segmentation import SegmentationPart
from napari_histomil.ui.widgets.slider_spin import SliderSpin
from napari_histomil.ui.words import count

_OF_HEATMAPS = ("Heatmap", "Threshold", "Hottest tiles")
"""Sections that say nothing of a segmentation."""

_NOTHING = "Choose a stored result above, or compute one in the Run dock"


class OverlayWidget(Panel):
    """Dock about the result over the active slide of one viewer: a heatmap, or another kind."""

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._overlays = overlays(napari_viewer)
        self._run: RunView | None = None
        self._stale = False
        self.legend: HeatLegend | None = None
        self._make_result()
        self._make_appearance()
        self._make_threshold()
        self._make_tour()
        self.segmentation = SegmentationPart(self._overlays)
        self.add(self.segmentation)
        self.attention = AttentionPart(self._overlays)
        self.add(self.attention)
        self._make_readout(self._overlays.session.viewer)
        self._steered = [
            self.visible_box, self.class_box, self.scale_box, self.colours_box, self.colour_bar,
            self.opacity, self.threshold, self.next_button, self.previous_button,
        ]  # fmt: skip
        self._tooltips = [widget.toolTip() for widget in self._steered]

        follow(self, self._overlays.current_changed, self._show_run)
        follow(self, self._overlays.shown_changed, self._update_shown)
        follow(self, self._overlays.stepped, self._update_tour)
        self.destroyed.connect(lambda: self._let_go())
        self._show_run(self._overlays.current)
        QTimer.singleShot(0, self._find_canvas)  # behind another dock it may not be shown

    def showEvent(self, event: QShowEvent) -> None:
        """Lay the legend over the canvas once there is a window with one."""
        super().showEvent(event)
        self._find_canvas()

    def _find_canvas(self) -> None:
        if self.legend is None:
            self.legend = attach_heat_legend(self._overlays.session.viewer, self)

    # -------------------------------------------------------------------- the widgets

    def _make_result(self) -> None:
        column = self.section("Result")
        self.chooser = RunChooser(self._overlays)
        self.made_by_label = plain_label()
        self.doubts_label = plain_label(
            tooltip="Reasons not to believe this result without a second look"
        )
        for widget in (self.chooser, self.made_by_label, self.doubts_label):
            column.addWidget(widget)

    def _make_appearance(self) -> None:
        column = self.section("Heatmap")
        self.visible_box = QCheckBox("Show over the slide")
        self.visible_box.setToolTip(f"Show or hide the heatmap{hint('overlay.toggle')}")
        self.visible_box.toggled.connect(self._set_visible)
        self.class_box = choice_box("The class whose score is shown, one number per tile")
        self.class_box.activated.connect(self._set_class)
        self.scale_box = choice_box("How scores become colours; the scores stay as they are")
        self.colours_box = choice_box("The colours from low to high")
        for box, entries in ((self.scale_box, NORMALISATIONS), (self.colours_box, COLOUR_MAPS)):
            for name, words in entries.items():
                box.addItem(name)
                box.setItemData(box.count() - 1, words, Qt.ItemDataRole.ToolTipRole)
        self.scale_box.activated.connect(self._set_scale)
        self.colours_box.activated.connect(self._set_colours)
        self.opacity = SliderSpin(0, 100, step=5, suffix=" %")
        self.opacity.setToolTip(
            f"How strongly the heatmap covers the tissue (keys: {KEYS['overlay.fainter'].text} "
            f"fainter, {KEYS['overlay.stronger'].text} stronger)"
        )
        self.opacity.value_changed.connect(self._set_opacity)
        self.colour_bar = ColourBar()
        self.colour_bar.setToolTip("What the colours mean; below the mark tiles are not shown")
        column.addWidget(self.visible_box)
        column.addLayout(
            form(
                ("Class", self.class_box),
                ("Scale", self.scale_box),
                ("Colours", self.colours_box),
                ("Opacity", self.opacity),
            )
        )
        column.addWidget(self.colour_bar)

    def _make_threshold(self) -> None:
        column = self.section("Threshold")
        self.threshold = SliderSpin(0, 1, step=0.01, decimals=3)
        self.threshold.setToolTip(
            "Tiles whose raw score is lower are transparent, whatever scale is shown"
        )
        self.threshold.value_changed.connect(self._set_threshold)
        self.stats_label = plain_label(
            tooltip="Areas are those of the cells on the slide, each counted once; the share is "
            "of what the model looked at, not of the whole slide"
        )
        column.addWidget(self.threshold)
        column.addWidget(self.stats_label)

    def _make_tour(self) -> None:
        column = self.section("Hottest tiles")
        self.previous_button, self.next_button = QPushButton("Previous"), QPushButton("Next")
        for button, key, slot, words in (
            (self.previous_button, "hottest.previous", self._overlays.previous_hottest, "Go back"),
            (self.next_button, "hottest.next", self._overlays.next_hottest, "Go on"),
        ):
            button.setToolTip(
                f"{words} in the tour from the highest score downwards, each stop in another "
                f"place, at 20x{hint(key)}"
            )
            button.clicked.connect(slot)
        self.tour_label = plain_label()
        row = QHBoxLayout()
        row.setSpacing(6)
        for widget, stretch in (
            (self.previous_button, 0),
            (self.next_button, 0),
            (self.tour_label, 1),
        ):
            row.addWidget(widget, stretch)
        column.addLayout(row)

    def _make_readout(self, viewer: Any) -> None:
        self.readout = Readout(viewer)
        self.foot("Under the pointer").addWidget(self.readout)
        self.read_out = self.readout.read_out

    # ------------------------------------------------------------- from the run to here

    def _show_run(self, run: RunView | None) -> None:
        self._let_go()
        self._run = run
        self.readout.show_run(run)
        self.segmentation.show_run(run)
        self.attention.show_run(run)
        heatmap = self._heatmap
        for title in _OF_HEATMAPS:
            self.show_section(title, shown=run is None or heatmap is not None)
        for widget, tooltip in zip(self._steered, self._tooltips, strict=True):
            widget.setEnabled(run is not None)
            widget.setToolTip(_NOTHING if run is None else tooltip)
        self.class_box.clear()
        if heatmap is not None:
            self.class_box.addItems(heatmap.class_names)
        for signal, slot in self._signals():
            signal.connect(slot)
        self._update()

    @property
    def _heatmap(self) -> HeatmapView | None:
        """The scores of tiles that are steered; a MIL run has a part of its own."""
        run = self._run
        return run.heatmap if run is not None and run.attention is None else None

    def _let_go(self) -> None:
        """Hear no more of the run that was shown."""
        for signal, slot in self._signals():
            signal.disconnect(slot)
        self._run = None

    def _signals(self) -> list[tuple[Any, Callable[[], None]]]:
        """Return the signals of the run that is shown, each with what follows it."""
        if self._run is None:
            return []
        if self._run.segmentation is not None:
            return [(self._run.segmentation.measured, self._on_filled)]
        heatmap = self._heatmap
        if heatmap is None:
            return []
        return [(heatmap.changed, self._update), (heatmap.filled, self._on_filled)]

    def _on_filled(self) -> None:
        """Show the newer numbers, but only to somebody who looks: they take time to count."""
        if self.visibleRegion().isEmpty():
            self._stale = True
        else:
            self._update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Catch up with what was filled in while the dock lay behind another one."""
        super().paintEvent(event)
        if self._stale:
            self._stale = False
            QTimer.singleShot(0, self._update)

    def _update(self) -> None:
        """Show the run's facts, choices and numbers."""
        run = self._run
        self.made_by_label.setVisible(run is not None)
        if run is None:
            self.doubts_label.hide()
            self.stats_label.setText(_NOTHING + ".")
            self.colour_bar.show_scale(self.colours_box.currentText(), ("", ""), "", 0)
        else:
            self.made_by_label.setText(made_by(run.store))
            self.made_by_label.setToolTip(provenance(run.store))
            # Those of a MIL run stand with its answer.
            self._show_doubts([] if run.attention is not None else doubts(run))
        heatmap = self._heatmap
        if heatmap is not None:
            self.class_box.setCurrentIndex(heatmap.class_index)
            self.scale_box.setCurrentText(heatmap.normalisation)
            self.colours_box.setCurrentText(heatmap.colours)
            self.threshold.set_value(heatmap.threshold)
            self.colour_bar.show_scale(
                heatmap.colours,
                heatmap.scale_ends,
                heatmap.scale_title,
                heatmap.shown_share(heatmap.threshold) if heatmap.threshold > 0 else 0,
            )
            self._show_stats(heatmap)
        self._update_shown()
        self._update_tour()

    def _show_doubts(self, sentences: list[str]) -> None:
        self.doubts_label.setVisible(bool(sentences))
        self.doubts_label.setText("\n".join(f"⚠ {sentence}" for sentence in sentences))

    def _show_stats(self, heatmap: Any) -> None:
        stats = heatmap.stats()
        self.stats_label.setText(
            f"<b>{stats.percent:.1f} %</b> of the area looked at is at or above "
            f"{heatmap.threshold:.3g}:<br><b>{stats.area_mm2:.2f} mm²</b> of "
            f"{stats.looked_at_mm2:.2f} mm², <b>{count(stats.tiles)}</b> of "
            f"{count(stats.looked_at_tiles)} tiles"
        )

    def _update_shown(self) -> None:
        if self._run is None:
            return
        layer = self._run.layer
        with QSignalBlocker(self.visible_box):
            self.visible_box.setChecked(layer.visible)
        self.opacity.set_value(round(100 * layer.opacity))

    def _update_tour(self) -> None:
        heatmap = self._heatmap
        if heatmap is None:
            self.tour_label.setText("")
            return
        stops, at = heatmap.tour.size, heatmap.stop
        self.previous_button.setEnabled(at is not None and at > 0)
        self.next_button.setEnabled(stops > 0 and (at is None or at < stops - 1))
        if at is None or at >= stops:
            self.tour_label.setText(f"{stops} places")
        else:
            score = heatmap.values[heatmap.tour[at]]
            self.tour_label.setText(f"{at + 1} of {stops}: <b>{score:.3f}</b>")

    # ------------------------------------------------------------- from here to the run

    def _set_visible(self, visible: bool) -> None:
        if self._run is not None:
            self._run.layer.visible = visible

    def _set_opacity(self, percent: float) -> None:
        if self._run is not None:
            self._run.layer.opacity = percent / 100

    def _set_class(self, index: int) -> None:
        if self._run is not None:
            self._run.heatmap.class_index = index

    def _set_scale(self) -> None:
        if self._run is not None:
            self._run.heatmap.normalisation = self.scale_box.currentText()

    def _set_colours(self) -> None:
        if self._run is not None:
            self._run.heatmap.colours = self.colours_box.currentText()

    def _set_threshold(self, value: float) -> None:
        if self._run is not None:
            self._run.heatmap.threshold = value
