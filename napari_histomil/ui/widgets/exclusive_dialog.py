"""Which classes may not overlap, and what happens to a shape that would."""

from __future__ import annotations

from dataclasses import replace

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QHeaderView,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.errors import HistomilError
from napari_histomil.ui import class_store
from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.tool_icons import class_icon
from napari_histomil.ui.widgets.forms import form
from napari_histomil.ui.widgets.panel import plain_label
from napari_histomil.ui.widgets.rows import give_room, without_icons

MORE_GROUPS = 2
"""Empty groups that are offered besides those that there are."""


class ExclusiveDialog(QDialog):
    """A box for each class and group."""

    def __init__(self, annotator: Annotator, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("Classes that exclude each other")
        self._annotator = annotator
        classes = annotator.classes
        groups = [*classes.exclusive, *[frozenset[str]()] * MORE_GROUPS]
        self.tree = QTreeWidget()
        self.tree.setRootIsDecorated(False)
        self.tree.setMinimumSize(420, 280)
        # Styles draw an empty box in the shade of the ground: here it is what one looks for.
        self.tree.setStyleSheet(
            "QTreeWidget::indicator:unchecked {border: 1px solid rgb(128, 128, 128)}"
        )
        give_room(self.tree)
        self.tree.setHeaderLabels(["Class", *(f"Group {n}" for n in range(1, len(groups) + 1))])
        self.tree.header().setStretchLastSection(False)
        self.tree.header().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for each in classes.classes:
            item = QTreeWidgetItem([each.name])
            item.setIcon(0, class_icon(each.color))
            for column, group in enumerate(groups, 1):
                inside = each.name in group
                item.setCheckState(
                    column, Qt.CheckState.Checked if inside else Qt.CheckState.Unchecked
                )
            self.tree.addTopLevelItem(item)
        self.rule_box = QComboBox()
        self.rule_box.addItem("cut the new shape off", "clip")
        self.rule_box.addItem("refuse the new shape", "refuse")
        self.rule_box.setCurrentIndex(self.rule_box.findData(annotator.overlaps))
        self.rule_box.setToolTip("What happens to a shape that is drawn over such a region")
        buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        without_icons(buttons)
        buttons.accepted.connect(self._accept)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 16, 16, 12)
        layout.setSpacing(10)
        layout.addWidget(
            plain_label(
                "Regions of two classes in one group may not overlap. Regions of one class may."
            )
        )
        layout.addWidget(self.tree, 1)
        layout.addLayout(form(("Where they would overlap", self.rule_box)))
        layout.addWidget(buttons)

    @property
    def groups(self) -> tuple[frozenset[str], ...]:
        """What is ticked; groups of fewer than two classes exclude nothing."""
        rows = [self.tree.topLevelItem(n) for n in range(self.tree.topLevelItemCount())]
        groups = [
            frozenset(
                row.text(0) for row in rows if row.checkState(column) == Qt.CheckState.Checked
            )
            for column in range(1, self.tree.columnCount())
        ]
        return tuple(group for group in groups if len(group) > 1)

    def _accept(self) -> None:
        self._annotator.overlaps = self.rule_box.currentData()
        groups = self.groups
        try:
            class_store.edit(self._annotator, lambda classes: replace(classes, exclusive=groups))
        except HistomilError as error:
            show_error(error, self.parentWidget())
        self.accept()
