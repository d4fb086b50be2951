"""The table of cases: in the dock with few columns, at the bottom of the window with all."""

from __future__ import annotations

from qtpy.QtCore import QModelIndex, QSignalBlocker, QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QHeaderView,
    QLineEdit,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.errors import HistomilError
from napari_histomil.review.cases import COLUMNS, SORTABLE
from napari_histomil.ui.case_model import NARROW, WIDE, CaseModel
from napari_histomil.ui.reviewing import Reviewing
from napari_histomil.ui.widgets.icon_button import row
from napari_histomil.ui.widgets.panel import follow, plain_label
from napari_histomil.ui.words import count

TYPING_MS = 300
"""The list is filtered when nothing was typed for so long."""

_ROWS = 4
_WIDTHS = {"case": 118, "status": 60, "own": 56, "p": 46, "error": 46, "note": 160, "tags": 120}
_PICTURE = QSize(40, 30)


class CaseTable(QWidget):
    """Filter and table.

    Parameters
    ----------
    state
        The review.
    wide
        With all columns and pictures.
    """

    def __init__(
        self, state: Reviewing, *, wide: bool = False, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._state = state
        self._wide = wide
        self.model = CaseModel(state, WIDE if wide else NARROW, self)
        self.filter_box = QLineEdit()
        self.filter_box.setPlaceholderText('Filter, such as: error > 0.5 and status != "done"')
        self.filter_box.setClearButtonEnabled(True)
        self.filter_box.setToolTip(
            "Lists the cases that this is true of. "
            + "; ".join(f"<b>{name}</b>: {words}" for name, words in COLUMNS.items())
        )
        self._typing = QTimer(self)
        self._typing.setSingleShot(True)
        self._typing.setInterval(TYPING_MS)
        self._typing.timeout.connect(self._filter)
        self.filter_box.textChanged.connect(lambda _: self._typing.start())
        self.patient_box = QCheckBox("by patient")
        self.patient_box.setToolTip("Keep the slides of a patient together")
        self.patient_box.toggled.connect(lambda on: state.list_by(patients=on))
        self._make_table()
        self.words = plain_label()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(row(self.filter_box, self.patient_box, stretch=0))
        column.addWidget(self.table)
        column.addWidget(self.words)
        follow(self, state.rows_changed, self.refresh)
        follow(self, state.row_changed, self._on_row)
        follow(self, state.case_changed, self._show_current)
        self.refresh()

    def _make_table(self) -> None:
        self.table = QTableView()
        self.table.setModel(self.model)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setWordWrap(False)
        self.table.setShowGrid(False)
        self.table.setTabKeyNavigation(False)
        self.table.setCornerButtonEnabled(False)
        self.table.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.table.setIconSize(_PICTURE)
        height = self.fontMetrics().lineSpacing() + 7
        if self._wide:
            height = max(height, _PICTURE.height() + 4)
        else:
            self.table.setFixedHeight((_ROWS + 2) * height)
        vertical = self.table.verticalHeader()
        vertical.hide()
        vertical.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        vertical.setDefaultSectionSize(height)
        header = self.table.horizontalHeader()
        header.setHighlightSections(False)
        header.setSectionsClickable(True)
        header.setSortIndicatorShown(True)
        header.sectionClicked.connect(self._sort)
        self.table.doubleClicked.connect(self._open)
        self.table.activated.connect(self._open)
        self.table.setToolTip("A double click, or Enter, opens a case")

    def refresh(self) -> None:
        """Show the rows as they are listed now."""
        self.model.update()
        for n, name in enumerate(self.model.columns):
            if not self.table.property(f"sized {name}"):
                wide = 190 if self._wide and name == "case" else _WIDTHS.get(name, 84)
                self.table.setColumnWidth(n, wide)
                self.table.setProperty(f"sized {name}", True)
        if self._state.by in self.model.columns:
            falling = Qt.SortOrder.DescendingOrder
            self.table.horizontalHeader().setSortIndicator(
                self.model.columns.index(self._state.by),
                falling if self._state.descending else Qt.SortOrder.AscendingOrder,
            )
        with QSignalBlocker(self.patient_box):
            self.patient_box.setChecked(self._state.by_patient)
        if not self.filter_box.hasFocus() and self.filter_box.text() != self._state.expression:
            with QSignalBlocker(self.filter_box):
                self.filter_box.setText(self._state.expression)
        self._say()
        self._mark_current()

    def _say(self, problem: str = "") -> None:
        rows, shown = self._state.rows, len(self._state.shown)
        if problem or self._state.project is None:
            self.words.setText(problem and f"⚠ {problem}")
            return
        done = sum(each.values["status"] == "done" for each in rows)
        unread = sum(each.facts is None and not each.problem for each in rows)
        words = f"{count(shown)} of {count(len(rows))} cases, {count(done)} done"
        if unread:
            words += f"; results of {count(unread)} are being looked up"
        broken = sum(bool(each.problem) for each in rows)
        self.words.setText(words + (f"; ⚠ {count(broken)} cannot be opened" if broken else ""))

    def _on_row(self, name: str) -> None:
        self.model.update_row(name)
        self._say()

    def _show_current(self) -> None:
        """Scroll to the case that is read: only when it is another, not while rows come in."""
        place = self._mark_current()
        if place is not None:
            self.table.scrollTo(self.model.index(place, 0))

    def _mark_current(self) -> int | None:
        current = self._state.current
        place = None if current is None else self.model.row_of(current.name)
        if place is not None:
            with QSignalBlocker(self.table.selectionModel()):
                self.table.selectRow(place)
        self.table.viewport().update()
        return place

    def _filter(self) -> None:
        try:
            self._state.filter(self.filter_box.text())
        except HistomilError as error:
            self._say(str(error))

    def _sort(self, section: int) -> None:
        name = self.model.columns[section]
        if name in SORTABLE:
            first = name in ("error", "uncertainty", "p", "area_mm2")  # the worst come first
            again = self._state.by == name
            falling = (not self._state.descending) if again else first
            self._state.list_by(name, descending=falling)

    def _open(self, index: QModelIndex) -> None:
        self._state.go(self.model.row_at(index.row()).case)
