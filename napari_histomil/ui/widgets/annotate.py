"""The Annotate dock: who draws on what, classes, tools, the regions, their files, done.

Each section is a file of its own beside this one; all speak with the viewer's `Annotator`.
"""

from __future__ import annotations

import time
from typing import Any

from napari.utils.theme import get_theme
from qtpy.QtCore import QSignalBlocker, Qt, QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QLabel, QLineEdit, QWidget
from superqt import QElidingLabel

from napari_histomil.annotations.stamps import system_user
from napari_histomil.ui.annotator import Annotator, annotator
from napari_histomil.ui.drawing.canvas import attach_drawing
from napari_histomil.ui.preferences import keep_author, preferred_author
from napari_histomil.ui.region_layers import region_layers
from napari_histomil.ui.widgets.annotate_classes import ClassList
from napari_histomil.ui.widgets.annotate_done import DonePart
from napari_histomil.ui.widgets.annotate_files import FilePart
from napari_histomil.ui.widgets.annotate_part import Part
from napari_histomil.ui.widgets.annotate_tools import ToolBox, key_hint
from napari_histomil.ui.widgets.annotate_totals import Totals
from napari_histomil.ui.widgets.differences import Differences
from napari_histomil.ui.widgets.forms import fold
from napari_histomil.ui.widgets.icon_button import IconButton, row
from napari_histomil.ui.widgets.legend import Legend, attach_legend
from napari_histomil.ui.widgets.panel import Panel, follow, plain_label
from napari_histomil.ui.widgets.region_details import RegionDetails
from napari_histomil.ui.widgets.region_list import RegionList
from napari_histomil.ui.words import duration

SAVED_MS = 1000
"""The line about saving is brought up to date so often."""


class AnnotateWidget(Panel):
    """Dock about the annotations of the active slide of one viewer."""

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        state = annotator(napari_viewer)
        self._viewer = state.viewer
        self._layers = region_layers(state.viewer)
        self.legend: Legend | None = None
        """The legend on the canvas; None as long as this is in no window with one."""
        self.head = Head(state)
        self.classes = ClassList(state)
        self.tools = ToolBox(state)
        self.regions = RegionList(state)
        self.details = RegionDetails(state)
        self.totals = Totals(state)
        self.files = FilePart(state)
        self.differences = Differences(state)
        self.done = DonePart(state)
        self.add(self.head)
        self.section("Classes").addWidget(self.classes)
        self.section("Tools").addWidget(self.tools)
        self.section("Regions").addWidget(self.regions)
        self.details_fold = fold(
            "Selected region", self.details, tooltip="Name, note, measurements, history"
        )
        self.totals_fold = fold(
            "Totals",
            self.totals,
            tooltip="What each class adds up to, and its share of tissue",
        )
        self.files_section = self.section("Files")
        self.differences_fold = fold(
            "Second reader",
            self.differences,
            tooltip="Compare with what somebody else drew, and settle the differences",
        )
        for folded in (self.details_fold, self.totals_fold):
            self.regions.column.addWidget(folded)
        self.files_section.addWidget(self.files)
        self.files_section.addWidget(self.differences_fold)
        self.section("Done").addWidget(self.done)
        QTimer.singleShot(0, self._find_canvas)  # behind another dock it may not be shown

    def showEvent(self, event: QShowEvent) -> None:
        """Let the tools draw on the canvas once there is a window with one."""
        super().showEvent(event)
        attach_drawing(self._viewer, self)
        self._find_canvas()

    def _find_canvas(self) -> None:
        """Lay the legend over the canvas of the window, if this is in one by now."""
        if self.legend is None:
            self.legend = attach_legend(self._viewer, self)
            if self.legend is not None:
                action = self.classes.legend_action
                action.setChecked(self.legend.shown)
                action.toggled.connect(self._show_legend)
                self.legend.shown_changed.connect(action.setChecked)

    def _show_legend(self, shown: bool) -> None:
        if self.legend is not None:
            self.legend.shown = shown


class Head(Part):
    """Which slide, who draws, how far it is saved, undo and redo."""

    def __init__(self, state: Annotator, parent: QWidget | None = None) -> None:
        super().__init__(state, parent)
        viewer = state.viewer
        state.author = preferred_author() or None
        self.slide_label = QElidingLabel()
        self.slide_label.setElideMode(Qt.TextElideMode.ElideMiddle)
        self.author_box = QLineEdit(preferred_author())
        self.author_box.setPlaceholderText(system_user() or "your name")
        self.author_box.setToolTip(
            "Your name: it is written to every region that you draw, change or judge"
        )
        self.author_box.editingFinished.connect(self._keep_author)
        self.undo_button = IconButton(viewer, "undo", "Undo")
        self.undo_button.clicked.connect(lambda: state.undo())
        self.redo_button = IconButton(viewer, "redo", "Redo")
        self.redo_button.clicked.connect(lambda: state.redo())
        self.saved_label = plain_label()
        self._failed = False
        self.column.addWidget(self.slide_label)
        self.column.addWidget(
            row(QLabel("Author"), self.author_box, self.undo_button, self.redo_button, stretch=1)
        )
        self.column.addWidget(self.saved_label)
        self._clock = QTimer(self)
        self._clock.setInterval(SAVED_MS)
        self._clock.timeout.connect(self._show_saved)
        self._clock.start()
        self.follow(state.changed, state.slide_changed)
        follow(self, state.saving_changed, self._show_saved)
        follow(self, viewer.events.theme, lambda _event: self._colour())

    def refresh(self) -> None:
        """Show slide, steps and saving as they are now."""
        slide, regions = self.annotator.slide, self.annotator.regions
        self.slide_label.setText(slide.name if slide else "Open a slide to annotate it.")
        self.slide_label.setToolTip(str(slide.info.path) if slide else "")
        why_not = self.why_not()
        done, undone = (None, None) if regions is None else (regions.can_undo, regions.can_redo)
        for button, what, word, key in (
            (self.undo_button, done, "undo", "annotate.undo"),
            (self.redo_button, undone, "redo", "annotate.redo"),
        ):
            button.say(f"{word.capitalize()}: {what}{key_hint(key)}")
            button.allow(why_not or (None if what else f"There is nothing to {word}"))
        with QSignalBlocker(self.author_box):
            if not self.author_box.hasFocus():
                self.author_box.setText(self.annotator.author or "")
        self._show_saved()

    def _show_saved(self) -> None:
        """Say how far what was done is on the disk."""
        if not self.is_seen:
            return
        keeper = self.annotator.keeper
        text, failed, tooltip = "", False, ""
        if keeper is not None:
            tooltip = f"In {keeper.folder}"
            saving = keeper.saving
            if keeper.why_read_only is not None:
                text, failed = keeper.why_read_only, True
            elif saving is None:
                text = ""
            elif saving.kind == "saving":
                text = "Saving…"
            elif saving.kind == "failed":
                text, failed = f"Not saved: {saving.sentence}", True
            else:
                text = f"Saved {duration(time.time() - saving.time)} ago"
        elif self.annotator.is_reading:
            text = "Reading…"
        if self.saved_label.text() != text:
            self.saved_label.setText(text)
        self.saved_label.setToolTip(tooltip)
        if failed is not self._failed:
            self._failed = failed
            self._colour()

    def _colour(self) -> None:
        """Have what failed in red, which the themes have in shades of their own."""
        dark = get_theme(self.annotator.viewer.theme).type == "dark"
        red = "#ff6b6b" if dark else "#b00020"
        self.saved_label.setStyleSheet(f"color: {red}" if self._failed else "")

    def _keep_author(self) -> None:
        name = self.author_box.text().strip()
        if name != (self.annotator.author or ""):
            self.annotator.author = name or None
            keep_author(name)
