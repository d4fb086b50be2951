"""The regions of a slide as the rows of a table: ordered and filtered as whole columns.

Qt's own proxy for sorting asks Python to compare two rows at a time, which takes many seconds for
100,000 of them. Here `listing.order` gives the order of all at once, and the table asks only for
the rows that are seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QObject, Qt, Signal
from qtpy.QtGui import QFont

from napari_histomil.annotations import listing
from napari_histomil.annotations.collection import AnnotationSet
from napari_histomil.annotations.listing import COLUMNS, Filter, Measures
from napari_histomil.annotations.measure import MppXY
from napari_histomil.annotations.model import Region
from napari_histomil.ui.tool_icons import class_icon

TITLES = {
    "Class": "Class of the region, in its colour",
    "Name": "Name, double click to change it",
    "Size": "Area of an area, length of a line",
    "Diameter": "Largest distance between two points",
    "Author": "Who drew it",
    "Time": "When it was changed last",
    "Note": "Note, double click to change it",
    "State": "How far its judgement has come, and by whom",
}

_EDITABLE = ("Name", "Note")
_ROOT = QModelIndex()


class RegionModel(QAbstractTableModel):
    """Rows of regions.

    Attributes
    ----------
    regions
        In the order of the rows.
    """

    edited = Signal(str, str, str)
    """A person wrote something: id of the region, column, text."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.regions: list[Region] = []
        self._all: AnnotationSet | None = None
        self._measures: Measures | None = None
        self._sort: tuple[str, bool] | None = None
        self._filter = Filter()
        self._rows: dict[str, int] = {}
        self._icons: dict[tuple[int, int, int], Any] = {}

    # --- what it shows ---

    def show_set(self, regions: AnnotationSet | None, mpp_xy: MppXY | None) -> None:
        """Show the regions of another slide."""
        self._all = regions
        self._measures = None if mpp_xy is None else Measures(mpp_xy)
        self.update()

    def show_filtered(self, wanted: Filter) -> None:
        """Show the regions that a filter shows."""
        if wanted != self._filter:
            self._filter = wanted
            self.update()

    def update(self) -> None:
        """Make the rows anew."""
        rows = [] if self._all is None else [*self._all][::-1]  # what was drawn last is on top
        if self._filter:
            rows = [region for region in rows if self._filter.shows(region)]
        if self._sort is not None:
            column, descending = self._sort
            places = listing.order(rows, column, self._measures, descending=descending)
            rows = [rows[place] for place in places]
        self.beginResetModel()
        self.regions = rows
        self._rows = {region.id: row for row, region in enumerate(rows)}
        self.endResetModel()
        if self._measures is not None:
            self._measures.forget(rows)

    def update_changed(self, ids: Collection[str]) -> None:
        """Show some regions as they are now, in the rows that they have."""
        if self._all is None:
            return
        for each in ids:
            row = self._rows.get(each)
            if row is not None and each in self._all:
                self.regions[row] = self._all.get(each)
                self.dataChanged.emit(self.index(row, 0), self.index(row, len(COLUMNS) - 1))

    def rows_of(self, ids: Iterable[str]) -> list[int]:
        """Return the rows of regions that are shown, from top to bottom."""
        return sorted(self._rows[each] for each in ids if each in self._rows)

    def ids(self) -> list[str]:
        """Return the ids of the rows, from top to bottom."""
        return list(self._rows)

    # --- what Qt asks ---

    def rowCount(self, parent: QModelIndex = _ROOT) -> int:
        """Return how many regions are shown."""
        return 0 if parent.isValid() else len(self.regions)

    def columnCount(self, parent: QModelIndex = _ROOT) -> int:
        """Return how many things are said of each."""
        return 0 if parent.isValid() else len(COLUMNS)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = 0) -> Any:
        """Return titles of columns."""
        if orientation == Qt.Orientation.Horizontal:
            if role == Qt.ItemDataRole.DisplayRole:
                return COLUMNS[section]
            if role == Qt.ItemDataRole.ToolTipRole:
                return TITLES[COLUMNS[section]]
        return None

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Let names and notes be written."""
        flags = Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled
        if index.isValid() and COLUMNS[index.column()] in _EDITABLE:
            flags |= Qt.ItemFlag.ItemIsEditable
        return flags

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a cell shows."""
        region, column = self.regions[index.row()], COLUMNS[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return self.text(region, column)
        if role == Qt.ItemDataRole.EditRole:
            return (region.name or "") if column == "Name" else region.note
        if role == Qt.ItemDataRole.DecorationRole and column == "Class":
            color = region.shown_color
            if color not in self._icons:
                self._icons[color] = class_icon(color)
            return self._icons[color]
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._tooltip(region, column)
        if role == Qt.ItemDataRole.TextAlignmentRole and column in ("Size", "Diameter"):
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.FontRole and region.class_name is None and column == "Class":
            font = QFont()
            font.setItalic(True)
            return font
        return None

    def setData(
        self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole
    ) -> bool:
        """Tell what a person wrote; the row changes when the step is done."""
        text = str(value).strip()
        if role != Qt.ItemDataRole.EditRole or text == self.data(index, role):
            return False
        self.edited.emit(self.regions[index.row()].id, COLUMNS[index.column()], text)
        return True

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Order the rows by a column; -1 is the order of drawing, the last one first."""
        descending = order == Qt.SortOrder.DescendingOrder
        wanted = None if column < 0 else (COLUMNS[column], descending)
        if wanted != self._sort:
            self._sort = wanted
            self.update()

    # --- words ---

    def text(self, region: Region, column: str) -> str:
        """Return what a cell says."""
        if column == "Class":
            return region.class_name or "unclassified"
        if column == "Name":
            return region.name or ""
        if column == "Author":
            return region.author
        if column == "Time":
            return listing.local_time_text(listing.last_time(region))
        if column == "Note":
            return region.note.replace("\n", " ")
        if column == "State":
            lock = " 🔒" if region.locked and region.state != "locked" else ""
            return f"{region.state}{lock}"
        if self._measures is None:
            return ""
        if column == "Diameter":
            if region.geometry.geom_type == "Point" or region.geometry.is_empty:
                return ""
            return listing.length_text(float(self._measures.diameters_um([region])[0]))
        dimension = {"Polygon": 2, "MultiPolygon": 2, "LineString": 1, "MultiLineString": 1}.get(
            region.geometry.geom_type, 0
        )
        area = float(self._measures.areas_mm2([region])[0])
        return listing.size_text(dimension, area, float(self._measures.lengths_um([region])[0]))

    def _tooltip(self, region: Region, column: str) -> str:
        if column == "Note":
            return region.note
        if column == "Time":
            return (
                f"drawn {region.created or 'at an unknown time'}, changed {region.edited or '-'}"
            )
        if column == "State":
            by = f" by {region.reviewer}" if region.reviewer else ""
            return f"{region.state}{by}{', locked against changes' if region.locked else ''}"
        if column == "Size":
            if region.is_areal:
                return f"{region.geometry.area:,.0f} square pixels of level 0"
            return f"{region.geometry.length:,.0f} pixels of level 0"
        if column == "Class" and not region.geometry.is_empty:
            x, y = region.geometry.centroid.coords[0]
            return f"{region.label}, level-0 pixel x {x:.0f}, y {y:.0f}"
        return self.text(region, column)
