"""The Overlay dock's part about a MIL run: its answer, which map on which scale, threshold.

The strip of patches is in `patch_strip.py`, what stands on the canvas in `heat_legend.py`.
"""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Iterator
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, QTimer
from qtpy.QtWidgets import QCheckBox, QPushButton, QVBoxLayout, QWidget

from napari_histomil.annotations.spatial import classes_at
from napari_histomil.heatmaps import SCALES
from napari_histomil.ui import attention_maps as maps
from napari_histomil.ui import jobs
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.attention_view import (
    HOT,
    AttentionView,
    number,
    spread_text,
    with_unit,
)
from napari_histomil.ui.colours import COLOUR_MAPS
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.keys import KEYS, hint
from napari_histomil.ui.legend import UNCLASSIFIED
from napari_histomil.ui.overlays import Overlays
from napari_histomil.ui.session import RunView
from napari_histomil.ui.widgets.answer import Answer
from napari_histomil.ui.widgets.attention_file import AttentionFileDialog
from napari_histomil.ui.widgets.colour_bar import ColourBar
from napari_histomil.ui.widgets.forms import choice_box, form
from napari_histomil.ui.widgets.panel import follow, heading, plain_label
from napari_histomil.ui.widgets.patch_strip import PatchStrip
from napari_histomil.ui.widgets.slider_spin import SliderSpin
from napari_histomil.ui.words import count

_REST_MS = 200
"""Rest after the last change of the annotations before overlaps are counted anew."""

_SIGNED_COLOURS = "Contributions diverge around 0: blue speaks against, white is 0, red speaks for"


class AttentionPart(QWidget):
    """Widgets that steer the current MIL run; hidden while another result is current."""

    def __init__(self, overlays: Overlays, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._overlays = overlays
        self._run: RunView | None = None
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(6)
        self._column.addWidget(heading("Answer"))
        self.answer = Answer()
        self._column.addWidget(self.answer)
        self._make_appearance()
        self._make_threshold()
        self._column.addWidget(heading("Patches"))
        self.strip = PatchStrip(overlays)
        self._column.addWidget(self.strip)
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(_REST_MS)
        self._rest.timeout.connect(self._count_overlaps)
        self._state = annotator(overlays.session.viewer)
        follow(self, overlays.shown_changed, self._update_shown)
        follow(self, self._state.changed, self._on_annotations)
        follow(self, self._state.slide_changed, self._on_annotations)
        self.destroyed.connect(lambda: self._let_go())

    # -------------------------------------------------------------------- the widgets

    def _make_appearance(self) -> None:
        self._column.addWidget(heading("Map"))
        self.visible_box = QCheckBox("Show over the slide")
        self.visible_box.setToolTip(f"Show or hide the map{hint('overlay.toggle')}")
        self.visible_box.toggled.connect(self._set_visible)
        self.what_box = choice_box("What is shown of each patch")
        self.class_box = choice_box("The class, or head, that the map belongs to")
        self.level_box = choice_box("The magnification at which the model looked")
        self.scale_box = choice_box("How attention becomes colours; the values stay as they are")
        self.colours_box = choice_box("The colours from low to high")
        for name, words in COLOUR_MAPS.items():
            self.colours_box.addItem(name)
            last = self.colours_box.count() - 1
            self.colours_box.setItemData(last, words, Qt.ItemDataRole.ToolTipRole)
        self.what_box.activated.connect(lambda n: self._set("what", self.what_box.itemData(n)))
        self.class_box.activated.connect(lambda n: self._set("class_index", n))
        self.level_box.activated.connect(lambda n: self._set("level", self.level_box.itemData(n)))
        self.scale_box.activated.connect(
            lambda _: self._set("normalisation", self.scale_box.currentText())
        )
        self.colours_box.activated.connect(
            lambda _: self._set("colours", self.colours_box.currentText())
        )
        self.opacity = SliderSpin(0, 100, step=5, suffix=" %")
        self.opacity.setToolTip(
            f"How strongly the map covers the tissue (keys: {KEYS['overlay.fainter'].text} "
            f"fainter, {KEYS['overlay.stronger'].text} stronger)"
        )
        self.opacity.value_changed.connect(self._set_opacity)
        self.smooth_box = QCheckBox("Smooth the picture")
        self.smooth_box.setToolTip(
            "Blur the picture by the side of a patch; values, patches and areas stay as they are, "
            "and the legend says so"
        )
        self.smooth_box.toggled.connect(lambda on: self._set("smooth", on))
        self.colour_bar = ColourBar()
        self.colour_bar.setToolTip("What the colours mean; below the mark patches are not shown")
        self.words = plain_label(tooltip="What the numbers of this map are")
        self._column.addWidget(self.visible_box)
        self._column.addLayout(
            form(
                ("Show", self.what_box),
                ("Class", self.class_box),
                ("Magnification", self.level_box),
                ("Scale", self.scale_box),
                ("Colours", self.colours_box),
                ("Opacity", self.opacity),
            )
        )
        self._column.addWidget(self.smooth_box)
        self._column.addWidget(self.colour_bar)
        self._column.addWidget(self.words)
        self.export_button = QPushButton("Export map…")
        self.export_button.setToolTip("Write the map for people, QuPath, ASAP or CLAM's scripts")
        self.export_button.clicked.connect(self._ask_export)
        self.said = plain_label()
        self.said.hide()
        self._column.addWidget(self.export_button)
        self._column.addWidget(self.said)

    def _make_threshold(self) -> None:
        self._column.addWidget(heading("Threshold"))
        self.threshold = SliderSpin(0, 100, step=1, decimals=1, suffix=" %")
        self.threshold.setToolTip(
            "Place on the colour scale below which patches are transparent; the same patches stay "
            "shown when the scale is changed"
        )
        self.threshold.value_changed.connect(lambda percent: self._set("cut", percent / 100))
        self.stats_label = plain_label(
            tooltip="Areas are those of the patches on the slide, each place counted once; a "
            "patch lies in a region if its middle does"
        )
        self._column.addWidget(self.threshold)
        self._column.addWidget(self.stats_label)

    # ------------------------------------------------------------- from the run to here

    @property
    def view(self) -> AttentionView | None:
        """The MIL run that is steered, as it is shown."""
        return self._run.attention if self._run is not None else None

    def show_run(self, run: RunView | None) -> None:
        """Steer another run, or none."""
        self._let_go()
        self._run = run if run is not None and run.attention is not None else None
        view = self.view
        self.setVisible(view is not None)
        self.said.hide()
        self.answer.show_run(view.run if view is not None else None)
        self.strip.show_run(self._run)
        if view is None:
            return
        _fill(self.what_box, [(what, what, maps.WHAT[what]) for what in view.whats])
        for signal, slot in self._signals():
            signal.connect(slot)
        self.refresh()
        self._count_overlaps()

    def _let_go(self) -> None:
        for signal, slot in self._signals():
            signal.disconnect(slot)
        self._run = None

    def _signals(self) -> list[tuple[Any, Callable[[], None]]]:
        view = self.view
        if view is None:
            return []
        return [(view.changed, self.refresh), (view.replaced, self._count_overlaps)]

    def refresh(self) -> None:
        """Show how the run is shown, and what can be chosen."""
        view = self.view
        if view is None:
            return
        self.what_box.setCurrentIndex(view.whats.index(view.what))
        _fill(self.class_box, [(name, name, "") for name in view.heads])
        self.class_box.setCurrentIndex(view.class_index)
        levels = [(maps.level_name(view.run, level), level, "") for level in view.levels]
        _fill(self.level_box, levels)
        self.level_box.setCurrentIndex(view.levels.index(view.level))
        _fill(self.scale_box, [(name, name, SCALES.get(name, "")) for name in view.scales])
        self.scale_box.setCurrentText(view.normalisation)
        self.scale_box.setEnabled(len(view.scales) > 1)
        self.colours_box.setCurrentText(view.colours)
        self.colours_box.setEnabled(not view.signed)
        self.colours_box.setToolTip(
            _SIGNED_COLOURS if view.signed else "The colours from low to high"
        )
        with QSignalBlocker(self.smooth_box):
            self.smooth_box.setChecked(view.smooth)
        self.colour_bar.show_scale(view.colours, view.scale_ends, view.scale_title, view.cut)
        self.threshold.set_value(100 * view.cut)
        self._say(view)
        self._show_stats(view)
        self._update_shown()

    def _say(self, view: AttentionView) -> None:
        sentences = [html.escape(view.meaning, quote=False)]
        if view.warns_of_hot:
            sentences.append(f"<b>{HOT[0].upper()}{HOT[1:]}.</b>")
        spread = spread_text(view)
        if spread:
            sentences.append(f"{spread[0].upper()}{spread[1:]}, exp of the entropy.")
        if view.smooth:
            sentences.append("The picture is smoothed; the values are not.")
        self.words.setText("<br>".join(sentences))

    def _show_stats(self, view: AttentionView) -> None:
        stats = view.stats()
        if view.cut > 0:
            value = view.threshold
            at = f"{number(value)} logit units"
            if not view.signed:
                at = f"{view.normalisation} {with_unit(view.normalisation, value)}"
            first = f"<b>{stats.percent:.1f} %</b> of the area examined is at or above {at}:"
        else:
            first = "All that was examined is shown:"
        lines = [
            first,
            f"<b>{stats.area_mm2:.2f} mm²</b> of {stats.looked_at_mm2:.2f} mm²",
            f"<b>{count(stats.tiles)}</b> of {count(stats.looked_at_tiles)} patches",
        ]
        lines += [
            f"{html.escape(name)}: holds {of_shown:.0f} % of what is shown; "
            f"{of_class:.0f} % of it is shown"
            for name, of_shown, of_class in stats.overlaps
        ]
        self.stats_label.setText("<br>".join(lines))

    def _update_shown(self) -> None:
        if self._run is None:
            return
        with QSignalBlocker(self.visible_box):
            self.visible_box.setChecked(self._run.layer.visible)
        self.opacity.set_value(round(100 * self._run.layer.opacity))

    # ------------------------------------------------------------- from here to the run

    def _set(self, name: str, value: Any) -> None:
        if self.view is not None:
            setattr(self.view, name, value)

    def _set_visible(self, visible: bool) -> None:
        if self._run is not None:
            self._run.layer.visible = visible

    def _set_opacity(self, percent: float) -> None:
        if self._run is not None:
            self._run.layer.opacity = percent / 100

    def _ask_export(self) -> None:
        if self._run is not None:
            dialog = AttentionFileDialog(self._run, self)
            dialog.said.connect(self._say_written)
            dialog.open()

    def _say_written(self, sentence: str) -> None:
        self.said.setText(sentence)
        self.said.show()

    # ------------------------------------------------------------------- beside the window

    def _on_annotations(self) -> None:
        self._rest.start()

    def _count_overlaps(self) -> None:
        """Find out which patches lie in which annotations, beside the window."""
        run, view, state = self._run, self.view, self._state
        if run is None or view is None:
            return
        regions = state.regions if state.slide is run.slide else None
        areal = [region for region in regions or () if region.is_areal]
        shown = view.shown
        centers = shown.xy_px0 + [side / 2 for side in shown.side_px0]

        def find(cancel: threading.Event) -> Iterator[Any]:
            yield classes_at(centers, areal)

        def found(answers: list[Any]) -> None:
            if self.view is view and view.shown is shown:
                view.inside = {
                    UNCLASSIFIED if name is None else name: inside
                    for name, inside in answers[-1].items()
                }
                self._show_stats(view)

        if not areal:
            view.inside = {}
            self._show_stats(view)
            return
        jobs.start(
            find,
            on_progress=found,
            on_done=lambda _: None,
            on_error=lambda error: show_error(error, self, info=run.slide.info),
            title="counting patches in annotations",
            owner=self,
        )


def _fill(box: Any, entries: list[tuple[str, Any, str]]) -> None:
    """Give a box other entries (text, data, tooltip), unless it has them already."""
    if [(box.itemText(n), box.itemData(n)) for n in range(box.count())] == [
        (text, data) for text, data, _ in entries
    ]:
        return
    box.clear()
    for text, data, tooltip in entries:
        box.addItem(text, data)
        box.setItemData(box.count() - 1, tooltip, Qt.ItemDataRole.ToolTipRole)
