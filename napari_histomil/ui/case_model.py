"""The cases under review as the rows of a table; `Reviewing` orders and filters them."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QObject, Qt
from qtpy.QtGui import QFont, QIcon, QImage, QPixmap

from napari_histomil.review.cases import COLUMNS, Row
from napari_histomil.slides.slide import Uint8Image
from napari_histomil.ui.reviewing import Reviewing
from napari_histomil.ui.widgets.rows import NUMBER

NARROW = ("case", "status", "own", "p", "error")
"""Columns in the dock."""

WIDE = (
    "case", "patient", "label", "status", "own", "confidence", "final", "predicted", "p",
    "error", "uncertainty", "spread", "area_mm2", "right", "annotations", "judged", "missed",
    "tags", "reader", "note",
)  # fmt: skip
"""Columns of the large table; what else the project's table says comes after them."""

TITLES = {"area_mm2": "Area mm²", "own": "Own", "p": "P"}
_ROOT = QModelIndex()


class CaseModel(QAbstractTableModel):
    """Rows of cases."""

    def __init__(
        self, state: Reviewing, columns: tuple[str, ...], parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._state = state
        self._fixed = columns
        self._rows: list[Row] = []
        self._icons: dict[str, QIcon] = {}
        self.columns: tuple[str, ...] = columns

    @property
    def _models(self) -> tuple[str, ...]:
        """Models beside the main one that have a column of their own."""
        project = self._state.project
        return () if project is None or self._fixed == NARROW else project.models[1:]

    def update(self) -> None:
        """Show the rows as they are listed now."""
        project = self._state.project
        facts = () if project is None or self._fixed == NARROW else project.facts
        models = tuple(f"p[{name}]" for name in self._models)
        columns = (*self._fixed, *models, *(f"fact[{name}]" for name in facts))
        rows, before = self._state.shown, self._rows
        if columns == self.columns and [r.case for r in rows] == [r.case for r in before]:
            self._rows = rows  # selection and place stay
            if rows:
                self.dataChanged.emit(
                    self.index(0, 0), self.index(len(rows) - 1, len(columns) - 1)
                )
            return
        self.beginResetModel()
        self._rows, self.columns = rows, columns
        self.endResetModel()

    def update_row(self, name: str) -> None:
        """Show one row as it is now."""
        for n, row in enumerate(self._rows):
            if row.case.name == name:
                self.dataChanged.emit(self.index(n, 0), self.index(n, len(self.columns) - 1))

    def row_of(self, name: str) -> int | None:
        """Return where a case is listed."""
        return next((n for n, row in enumerate(self._rows) if row.case.name == name), None)

    def row_at(self, number: int) -> Row:
        """Return a row."""
        return self._rows[number]

    # --- what Qt asks ---

    def rowCount(self, parent: QModelIndex = _ROOT) -> int:
        """Return how many cases are listed."""
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: QModelIndex = _ROOT) -> int:
        """Return how many things are said of each."""
        return 0 if parent.isValid() else len(self.columns)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = 0) -> Any:
        """Return titles of columns."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        name = self.columns[section]
        base, _, inside = name.partition("[")
        if role == Qt.ItemDataRole.DisplayRole:
            if inside:
                return f"P {inside[:-1]}" if base == "p" else inside[:-1]
            return TITLES.get(name, name.capitalize())
        if role == Qt.ItemDataRole.ToolTipRole:
            words = COLUMNS[base]
            return f"{words[0].upper()}{words[1:]} (in a filter: {name})"
        return None

    def data(self, index: QModelIndex, role: int = 0) -> Any:
        """Return what is said of a case."""
        row, name = self._rows[index.row()], self.columns[index.column()]
        value = _value(row, name)
        if role == Qt.ItemDataRole.DisplayRole:
            return text_of(value)
        if role == Qt.ItemDataRole.TextAlignmentRole and isinstance(value, int | float):
            return int(NUMBER)
        if role == Qt.ItemDataRole.DecorationRole and name == "case" and self._fixed != NARROW:
            return self._icon(row.case.name)
        if role == Qt.ItemDataRole.ToolTipRole:
            return _tooltip(row, value)
        if role == Qt.ItemDataRole.FontRole:
            current = self._state.current
            if current is not None and current.name == row.case.name:
                font = QFont()
                font.setBold(True)
                return font
        return None

    def _icon(self, name: str) -> QIcon | None:
        pixels = self._state.thumbnails.get(name)
        if pixels is None:
            return None
        if name not in self._icons:
            self._icons[name] = QIcon(QPixmap.fromImage(_image(pixels)))
        return self._icons[name]


def _value(row: Row, name: str) -> Any:
    base, _, inside = name.partition("[")
    if not inside:
        return row.values.get(name)
    return (row.values.get(f"{base}[]") or {}).get(inside[:-1])


def text_of(value: Any) -> str:
    """Return a value as the table has it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, tuple):
        return ", ".join(value)
    return str(value)


def _tooltip(row: Row, value: Any) -> str:
    if row.problem:
        return f"⚠ {row.problem}"
    if row.hidden:
        return "Results are shown once your own answer is locked"
    notes = () if row.facts is None else row.facts.notes
    return "\n".join([text_of(value), *(f"⚠ {note}" for note in notes)])


def _image(pixels: Uint8Image) -> QImage:
    height, width, _ = pixels.shape
    return QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888).copy()
