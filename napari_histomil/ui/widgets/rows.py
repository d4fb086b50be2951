"""How the small lists of docks and dialogs look: rows with room, numbers in the middle of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QModelIndex, QSize, Qt
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QDialogButtonBox, QHeaderView, QStyledItemDelegate, QTreeWidget

NUMBER = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
"""Where numbers stand in a row."""

ROOM_PX = 6
"""Added to the height of a line of text."""


class _Row(QStyledItemDelegate):
    """Makes rows as high, whether they have an icon or not."""

    def sizeHint(self, option: Any, index: QModelIndex) -> QSize:
        size = super().sizeHint(option, index)
        return QSize(size.width(), max(size.height(), option.fontMetrics.lineSpacing() + ROOM_PX))


def give_room(tree: QTreeWidget) -> None:
    """Make the rows of a list as high as a line of text and some room."""
    tree.setItemDelegate(_Row(tree))


def explain_columns(tree: QTreeWidget, tooltips: Sequence[str], least_px: int = 36) -> None:
    """Say what columns are; the first one takes the room that the others leave."""
    header, how = tree.header(), QHeaderView.ResizeMode
    header.setStretchLastSection(False)
    header.setMinimumSectionSize(least_px)
    for column, words in enumerate(tooltips):
        tree.headerItem().setToolTip(column, words)
        header.setSectionResizeMode(column, how.ResizeToContents if column else how.Stretch)


def fit_rows(tree: QTreeWidget, least: int, most: int) -> None:
    """Make a list as high as its rows, within limits; more of them are scrolled."""
    rows = min(max(tree.topLevelItemCount(), least), most)
    height = tree.fontMetrics().lineSpacing() + ROOM_PX
    tree.setFixedHeight((rows + 1) * height + 2 * tree.frameWidth() + 4)


def without_icons(buttons: QDialogButtonBox) -> None:
    """Leave out the pictures that some styles put on OK and Cancel: no other button has any."""
    for button in buttons.buttons():
        button.setIcon(QIcon())
