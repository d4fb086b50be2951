"""The list of regions in the Annotate dock: sort, filter, select, fly there, write notes."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from qtpy.QtCore import QItemSelection, QItemSelectionModel, QSignalBlocker, Qt, QTimer
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHeaderView,
    QLineEdit,
    QMenu,
    QSizePolicy,
    QTableView,
    QWidget,
)

from napari_histomil.annotations import commands, listing
from napari_histomil.annotations.collection import Change
from napari_histomil.annotations.listing import COLUMNS, Filter
from napari_histomil.annotations.measure import sizes
from napari_histomil.annotations.model import STATES
from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.region_model import TITLES, RegionModel
from napari_histomil.ui.widgets.annotate_part import Part
from napari_histomil.ui.widgets.icon_button import row
from napari_histomil.ui.widgets.panel import follow, plain_label
from napari_histomil.ui.widgets.region_actions import RegionActions
from napari_histomil.ui.words import count

TYPING_MS = 200
"""The list is filtered when nothing was typed for so long."""

FEW = 1000
"""A step that changes no more regions has their rows painted anew, and the order kept."""

_WIDTHS = {
    "Class": 98, "Name": 63, "Size": 76, "Diameter": 73, "Author": 64, "Time": 78, "Note": 110,
    "State": 70,
}  # fmt: skip
_ROWS = 9


class RegionTable(QTableView):
    """The table; Del deletes what is selected."""

    def __init__(self, annotator: Annotator) -> None:
        super().__init__()
        self._annotator = annotator

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Delete by key; all others move about in the list."""
        if event.key() in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace):
            self._annotator.delete_selected()
        else:
            super().keyPressEvent(event)


class RegionList(Part):
    """Filter, table, and what can be done with the selected regions."""

    def __init__(self, annotator: Annotator, parent: QWidget | None = None) -> None:
        super().__init__(annotator, parent)
        self.model = RegionModel(self)
        self.model.edited.connect(self._write)
        self._mpp: tuple[float, float] | None = None
        self._shown: Any = None
        self._changed: set[str] | None = None  # None: all rows are to be made anew
        self._following = False
        self._make_filter()
        self._make_table()
        self.actions_row = RegionActions(annotator)
        self.words = plain_label()
        self.column.addWidget(row(self.class_box, self.state_box, self.text_box, stretch=2))
        self.column.addWidget(self.table)
        self.column.addWidget(self.actions_row)
        self.column.addWidget(self.words)
        self.follow(annotator.changed, annotator.slide_changed, annotator.class_changed)
        follow(self, annotator.stepped, self._on_step)
        follow(self, annotator.selection_changed, self._on_selected)
        held = weakref.WeakMethod(self._order)
        annotator.order = lambda: [] if held() is None else held()()
        self.destroyed.connect(lambda: setattr(annotator, "order", None))

    # --- the widgets ---

    def _make_filter(self) -> None:
        self.class_box, self.state_box = QComboBox(), QComboBox()
        for box, words in (
            (self.class_box, "Show the regions of one class"),
            (self.state_box, "Show the regions in one state"),
        ):
            box.setToolTip(words)
            box.setSizeAdjustPolicy(
                QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
            )
            box.setMinimumContentsLength(6)
            box.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
            box.activated.connect(self._filter)
        self.state_box.addItem("any state", None)
        for state in STATES:
            self.state_box.addItem(state, state)
        self.text_box = QLineEdit()
        self.text_box.setPlaceholderText("Find…")
        self.text_box.setClearButtonEnabled(True)
        self.text_box.setToolTip("Show regions with these words in class, name, author or note")
        self._typing = QTimer(self)
        self._typing.setSingleShot(True)
        self._typing.setInterval(TYPING_MS)
        self._typing.timeout.connect(self._filter)
        self.text_box.textChanged.connect(lambda _: self._typing.start())

    def _make_table(self) -> None:
        self.table = RegionTable(self.annotator)
        self.table.setModel(self.model)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.table.setEditTriggers(
            QAbstractItemView.EditTrigger.DoubleClicked
            | QAbstractItemView.EditTrigger.EditKeyPressed
        )
        self.table.setWordWrap(False)
        self.table.setShowGrid(False)
        self.table.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.table.setCornerButtonEnabled(False)
        self.table.setTabKeyNavigation(False)
        height = self.fontMetrics().lineSpacing() + 7
        vertical = self.table.verticalHeader()
        vertical.hide()
        vertical.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        vertical.setDefaultSectionSize(height)
        header = self.table.horizontalHeader()
        header.setHighlightSections(False)
        header.setSortIndicatorClearable(True)  # a third click: the order of drawing
        header.setSectionsMovable(True)
        for column, name in enumerate(COLUMNS):
            self.table.setColumnWidth(column, _WIDTHS[name])
        header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        self.table.setSortingEnabled(True)
        header.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        header.customContextMenuRequested.connect(self._column_menu)
        self.table.setFixedHeight((_ROWS + 2) * height)
        self.table.selectionModel().selectionChanged.connect(self._choose)
        self.table.clicked.connect(lambda _: self._fly())
        self.table.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.table.customContextMenuRequested.connect(
            lambda at: self.actions_row.popup(self.table.viewport().mapToGlobal(at))
        )
        self.model.modelReset.connect(self._show_selected)

    def _column_menu(self, at: Any) -> None:
        menu = QMenu(self.table)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for column, name in enumerate(COLUMNS):
            action = menu.addAction(name)
            action.setToolTip(TITLES[name])
            action.setCheckable(True)
            action.setChecked(not self.table.isColumnHidden(column))
            action.toggled.connect(
                lambda shown, column=column: self.table.setColumnHidden(column, not shown)
            )
        menu.popup(self.table.horizontalHeader().mapToGlobal(at))

    # --- what is shown ---

    def _on_step(self, change: Change) -> None:
        if change.added or change.removed or len(change.changed) > FEW:
            self._changed = None
        elif self._changed is not None:
            self._changed.update(change.changed)

    def refresh(self) -> None:
        """Show the regions as they are now."""
        self.bring_up_to_date()
        self._fill_classes()
        self._say()

    def bring_up_to_date(self) -> None:
        """Have the rows that belong to the regions as they are now."""
        annotator = self.annotator
        regions, slide = annotator.regions, annotator.slide
        changed, self._changed = self._changed, set()
        mpp = slide.info.mpp_xy if slide is not None and slide.has_mpp else None
        if regions is not self._shown or mpp != self._mpp:
            self._shown, self._mpp = regions, mpp
            self.model.show_set(regions, mpp)
        elif changed is None:
            self.model.update()
        elif changed:
            self.model.update_changed(changed)

    def _order(self) -> Sequence[str]:
        self.bring_up_to_date()
        return self.model.ids()

    def _fill_classes(self) -> None:
        regions = self.annotator.regions
        found = {} if regions is None else regions.totals()
        names = [each.name for each in self.annotator.classes.classes if each.name in found]
        names += [name for name in found if name is not None and name not in names]
        entries = [("any class", None), *((name, name) for name in names)]
        if None in found:
            entries.append(("unclassified", ""))
        with QSignalBlocker(self.class_box):
            chosen = self.class_box.currentData()
            self.class_box.clear()
            for words, data in entries:
                self.class_box.addItem(words, data)
            self.class_box.setCurrentIndex(max(self.class_box.findData(chosen), 0))
        if self.class_box.currentData() != chosen:
            self._filter()

    def _filter(self) -> None:
        self.model.show_filtered(
            Filter(
                self.class_box.currentData(), self.state_box.currentData(), self.text_box.text()
            )
        )
        self._say()

    def _say(self) -> None:
        regions = self.annotator.regions
        there, shown = 0 if regions is None else len(regions), self.model.rowCount()
        if not there:
            self.words.setText(
                "Nothing is drawn yet: take a tool, or import a file."
                if regions is not None
                else "Open a slide to annotate it."
            )
            return
        words = f"{count(there)} region{'s' if there != 1 else ''}"
        if shown != there:
            words = f"{count(shown)} of {words} shown"
        chosen = self.annotator.selected
        if chosen:
            words += f", {count(len(chosen))} selected"
            if self._mpp is not None and len(chosen) > 1:
                area = float(sizes(self.annotator.pick(), self._mpp).area_mm2.sum())
                words += f" ({listing.area_text(area)})" if area else ""
        self.words.setText(words)

    # --- the selection ---

    def _choose(self) -> None:
        """Select what a person selects in the list, and fly to a single one."""
        if not self._following:
            self._following = True
            try:
                self.annotator.select(self._selected_ids(), fly=False)
            finally:
                self._following = False
            if len(self.annotator.selected) == 1:
                self._fly()
            self._say()

    def _fly(self) -> None:
        if len(self.annotator.selected) == 1:
            self.annotator.fly_to(self.annotator.selected)

    def _selected_ids(self) -> list[str]:
        ranges = self.table.selectionModel().selection()
        rows = {row for each in ranges for row in range(each.top(), each.bottom() + 1)}
        return [self.model.regions[row].id for row in sorted(rows)]

    def _on_selected(self) -> None:
        """Show what is selected elsewhere."""
        if self.isVisible() and not self._following:
            self.bring_up_to_date()  # what was just drawn has a row now
            self._show_selected()

    def _show_selected(self) -> None:
        if self._following:
            return
        rows = self.model.rows_of(self.annotator.selected)
        selection = QItemSelection()
        for first, last in _runs(rows):
            selection.select(self.model.index(first, 0), self.model.index(last, len(COLUMNS) - 1))
        self._following = True
        try:
            self.table.selectionModel().select(
                selection, QItemSelectionModel.SelectionFlag.ClearAndSelect
            )
            if rows:
                index = self.model.index(rows[0], 0)
                self.table.selectionModel().setCurrentIndex(
                    index, QItemSelectionModel.SelectionFlag.NoUpdate
                )
                across = self.table.horizontalScrollBar().value()
                self.table.scrollTo(index)
                self.table.horizontalScrollBar().setValue(across)
        finally:
            self._following = False
        self._say()

    # --- writing ---

    def _write(self, region_id: str, column: str, text: str) -> None:
        stamp = self.annotator.stamp()
        make = commands.set_name if column == "Name" else commands.set_note
        self.annotator.attempt(lambda regions: make(regions, [region_id], text, stamp))


def _runs(rows: Iterable[int]) -> Iterable[tuple[int, int]]:
    """Yield first and last of every run of ascending whole numbers without a gap."""
    for _, run in groupby(enumerate(rows), lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in run]
        yield numbers[0], numbers[-1]
