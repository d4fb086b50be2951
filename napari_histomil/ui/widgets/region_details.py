"""The selected region in the Annotate dock: name, note, sizes, own measurements, history."""

from __future__ import annotations

import math
from typing import Any

import shapely
from qtpy.QtCore import QEvent, QObject, QSignalBlocker
from qtpy.QtWidgets import (
    QHeaderView,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.annotations import bulk, commands, listing
from napari_histomil.annotations.measure import area_mm2, diameter_um, length_um
from napari_histomil.annotations.model import Region
from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.widgets.annotate_part import Part
from napari_histomil.ui.widgets.forms import form
from napari_histomil.ui.widgets.history import History
from napari_histomil.ui.widgets.icon_button import IconButton, row
from napari_histomil.ui.widgets.panel import plain_label
from napari_histomil.ui.widgets.rows import NUMBER, give_room
from napari_histomil.ui.words import count

_NOTE_LINES = 3
_MEASURE_ROWS = 3


class RegionDetails(Part):
    """All that is known of the one region that is selected."""

    def __init__(self, annotator: Annotator, parent: QWidget | None = None) -> None:
        super().__init__(annotator, parent)
        self.region: Region | None = None
        self.words = plain_label()
        self.name_box = QLineEdit()
        self.name_box.setToolTip("Name of the region; Return keeps it")
        self.name_box.editingFinished.connect(self._keep_name)
        self.note_box = QPlainTextEdit()
        self.note_box.setToolTip("Note about the region; kept when you leave the field")
        self.note_box.setTabChangesFocus(True)
        # napari's themes give this kind of field neither ground nor edge.
        self.note_box.setStyleSheet("border: 1px solid rgba(128, 128, 128, 150)")
        self.note_box.setFixedHeight((_NOTE_LINES + 1) * self.fontMetrics().lineSpacing())
        self.note_box.installEventFilter(self)
        self._make_measurements()
        self.history = History(annotator)
        self._fields = QWidget()
        fields = QVBoxLayout(self._fields)
        fields.setContentsMargins(0, 0, 0, 0)
        fields.setSpacing(4)
        fields.addLayout(form(("Name", self.name_box), ("Note", self.note_box)))
        fields.addWidget(self.measurements)
        fields.addWidget(
            row(self.measure_name, self.measure_value, self.measure_button, self.unmeasure_button,
                stretch=0)
        )  # fmt: skip
        fields.addWidget(self.history)
        self.column.addWidget(self.words)
        self.column.addWidget(self._fields)
        self.follow(annotator.selection_changed, annotator.changed, annotator.slide_changed)

    def _make_measurements(self) -> None:
        self.measurements = QTreeWidget()
        self.measurements.setRootIsDecorated(False)
        self.measurements.setHeaderLabels(["Measurement", "Value"])
        give_room(self.measurements)
        header = self.measurements.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        self.measurements.setToolTip("What people and programs have measured; QuPath shows it too")
        self.measurements.setFixedHeight(
            (_MEASURE_ROWS + 1) * (self.fontMetrics().lineSpacing() + 8)
        )
        self.measurements.currentItemChanged.connect(lambda *_: self._allow())
        self.measure_name, self.measure_value = QLineEdit(), QLineEdit()
        self.measure_name.setPlaceholderText("for example Ki-67 %")
        self.measure_name.setToolTip("Name of a measurement of your own")
        self.measure_value.setPlaceholderText("value")
        self.measure_value.setToolTip("Its value, a number")
        self.measure_value.setMaximumWidth(64)
        self.measure_value.returnPressed.connect(self.add_measurement)
        self.measure_button = QPushButton("Add")
        self.measure_button.clicked.connect(self.add_measurement)
        self.unmeasure_button = IconButton(
            self.annotator.viewer, "minus", "Take the chosen measurement away"
        )
        self.unmeasure_button.clicked.connect(self._remove_measurement)
        for box in (self.measure_name, self.measure_value):
            box.textChanged.connect(lambda _: self._allow())

    # --- what is shown ---

    def refresh(self) -> None:
        """Show the selected region as it is now."""
        chosen = self.annotator.pick() if len(self.annotator.selected) == 1 else []
        region = chosen[0] if chosen else None
        other = region is None or self.region is None or region.id != self.region.id
        self.region = region
        self._fields.setVisible(region is not None)
        if region is None:
            many = len(self.annotator.selected)
            self.words.setText(
                f"{count(many)} regions are selected: select one to see what is known of it."
                if many
                else "Select a region to see what is known of it."
            )
            self.history.show_region(None)
            return
        self.words.setText(self._facts(region))
        self.words.setToolTip(_place(region))
        for box, text in ((self.name_box, region.name or ""), (self.note_box, region.note)):
            if other or not box.hasFocus():
                self._fill(box, text)
        why_not = f"{region.label} is locked" if region.is_fixed else ""
        self.name_box.setReadOnly(region.is_fixed)
        self.name_box.setToolTip(why_not or "Name of the region; Return keeps it")
        self.measurements.clear()
        for name, value in region.measurements.items():
            item = QTreeWidgetItem([name, f"{value:g}"])
            item.setTextAlignment(1, NUMBER)
            item.setToolTip(0, name)
            item.setToolTip(1, repr(value))
            self.measurements.addTopLevelItem(item)
        self._allow()
        self.history.show_region(region.id)

    def _fill(self, box: Any, text: str) -> None:
        with QSignalBlocker(box):
            if isinstance(box, QPlainTextEdit):
                if box.toPlainText() != text:
                    box.setPlainText(text)
            elif box.text() != text:
                box.setText(text)

    def _facts(self, region: Region) -> str:
        slide = self.annotator.slide
        lines = [f"<b>{region.class_name or 'unclassified'}</b>"]
        if slide is not None and slide.has_mpp and not region.geometry.is_empty:
            mpp, shape = slide.info.mpp_xy, region.geometry
            length = listing.length_text(length_um(shape, mpp))
            across = listing.length_text(diameter_um(shape, mpp))
            if region.is_areal:
                area = area_mm2(shape, mpp)
                lines[0] += f" {'broken' if math.isnan(area) else listing.area_text(area)}"
                lines.append(f"perimeter {length}, longest diameter {across}")
            elif shape.length:
                lines[0] += f" {length}"
        by = f" by {region.author}" if region.author else ""
        drawn = listing.local_time_text(region.created)
        lines.append(f"drawn {drawn}{by}" if region.created else f"drawn{by or ' elsewhere'}")
        state = region.state + (f" by {region.reviewer}" if region.reviewer else "")
        lines[-1] += f", {state}{', locked' if region.locked else ''}"
        return "<br>".join(lines)

    def _allow(self) -> None:
        name, value = self.measure_name.text().strip(), self._value()
        ready = bool(name) and value is not None
        self.measure_button.setEnabled(ready)
        self.measure_button.setToolTip(
            "Keep the measurement with the region" if ready else "Write a name and a number first"
        )
        chosen = self.measurements.currentItem() is not None
        self.unmeasure_button.allow(None if chosen else "Choose a measurement first")

    def _value(self) -> float | None:
        try:
            value = float(self.measure_value.text().strip().replace(",", "."))
        except ValueError:
            return None
        return value if math.isfinite(value) else None

    # --- what a person does ---

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Keep the note when its field is left."""
        if watched is self.note_box and event.type() == QEvent.Type.FocusOut:
            self.keep_note()
        return super().eventFilter(watched, event)

    def keep_note(self) -> None:
        """Keep what stands in the field as the note of the region."""
        region, note = self.region, self.note_box.toPlainText().strip()
        if region is not None and self._there(region) and note != region.note:
            stamp = self.annotator.stamp()
            self.annotator.attempt(lambda all_: commands.set_note(all_, [region.id], note, stamp))

    def _keep_name(self) -> None:
        region, name = self.region, self.name_box.text().strip()
        if region is not None and self._there(region) and name != (region.name or ""):
            stamp = self.annotator.stamp()
            self.annotator.attempt(lambda all_: commands.set_name(all_, [region.id], name, stamp))

    def add_measurement(self) -> None:
        """Keep a measurement of the person's own with the region."""
        region, name, value = self.region, self.measure_name.text().strip(), self._value()
        if region is None or not name or value is None:
            return
        measured, stamp = {region.id: {name: value}}, self.annotator.stamp()
        if self.annotator.attempt(lambda all_: commands.set_measurements(all_, measured, stamp)):
            self.measure_name.clear()
            self.measure_value.clear()

    def _remove_measurement(self) -> None:
        region, item = self.region, self.measurements.currentItem()
        if region is not None and item is not None:
            name, stamp = item.text(0), self.annotator.stamp()
            self.annotator.attempt(
                lambda all_: bulk.remove_measurement(all_, region.id, name, stamp)
            )

    def _there(self, region: Region) -> bool:
        regions = self.annotator.regions
        return regions is not None and region.id in regions


def _place(region: Region) -> str:
    """Return where a region is, and of how many vertices."""
    if region.geometry.is_empty:
        return "This region has no shape"
    x0, y0, x1, y1 = region.geometry.bounds
    vertices = shapely.get_num_coordinates(region.geometry)
    return (
        f"Level-0 pixels x {x0:.0f} to {x1:.0f}, y {y0:.0f} to {y1:.0f}; {vertices:,} vertices; "
        f"id {region.id}"
    )
