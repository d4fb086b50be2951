"""What became of a region: who changed it, when, what to; and back to how it was."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHeaderView, QPushButton, QTreeWidget, QTreeWidgetItem, QWidget

from napari_histomil.annotations import listing
from napari_histomil.annotations.history import Version
from napari_histomil.errors import AnnotationError
from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.widgets.annotate_part import Part
from napari_histomil.ui.widgets.icon_button import row
from napari_histomil.ui.widgets.panel import plain_label
from napari_histomil.ui.widgets.rows import give_room

_ROLE = Qt.ItemDataRole.UserRole
_ROWS = 4


class History(Part):
    """The versions of one region, the newest first."""

    def __init__(self, annotator: Annotator, parent: QWidget | None = None) -> None:
        super().__init__(annotator, parent)
        self._region_id: str | None = None
        self.tree = QTreeWidget()
        self.tree.setRootIsDecorated(False)
        self.tree.setHeaderLabels(["When", "Who", "What"])
        give_room(self.tree)
        self.tree.setToolTip("What became of the region, the newest first")
        header = self.tree.header()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        self.tree.setFixedHeight((_ROWS + 1) * (self.fontMetrics().lineSpacing() + 8))
        self.tree.currentItemChanged.connect(lambda *_: self._allow())
        self.revert_button = QPushButton("Back to this")
        self.revert_button.clicked.connect(self.revert)
        self.words = plain_label()
        self.column.addWidget(self.tree)
        self.column.addWidget(row(self.words, self.revert_button, stretch=0))

    def show_region(self, region_id: str | None) -> None:
        """Show the versions of a region."""
        self._region_id = region_id
        self.later()

    def refresh(self) -> None:
        """Show the versions as they are now."""
        self.tree.clear()
        self.words.setText("")
        keeper = self.annotator.keeper
        if keeper is not None and self._region_id is not None:
            try:
                versions = keeper.history(self._region_id)
            except AnnotationError as error:  # what can be read stays usable
                self.words.setText(str(error))
                versions = []
            for version in reversed(versions):
                self.tree.addTopLevelItem(_item(version))
        self._allow()

    @property
    def chosen(self) -> Version | None:
        """The version that is chosen in the list."""
        item = self.tree.currentItem()
        return None if item is None else item.data(0, _ROLE)

    def _allow(self) -> None:
        newest = self.tree.topLevelItem(0)
        chosen = self.tree.currentItem()
        ready = chosen is not None and chosen is not newest
        self.revert_button.setEnabled(ready)
        self.revert_button.setToolTip(
            "Bring the region back as it was then; that can be undone"
            if ready
            else "Choose an earlier version first"
        )

    def revert(self) -> None:
        """Bring the region back to the chosen version."""
        keeper, version = self.annotator.keeper, self.chosen
        if keeper is not None and version is not None and self._region_id is not None:
            region_id = self._region_id
            self.attempt(lambda: keeper.revert(region_id, version))


def _item(version: Version) -> QTreeWidgetItem:
    when = listing.local_time_text(version.time) or "at first"
    what = version.text or "as it was found"
    item = QTreeWidgetItem([when, version.author or "?", what])
    item.setData(0, _ROLE, version)
    item.setToolTip(0, version.time)
    item.setToolTip(2, what)
    return item
