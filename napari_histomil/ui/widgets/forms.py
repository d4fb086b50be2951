"""How fields are laid out in the docks: a form, and a section that folds."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QComboBox, QFormLayout, QSizePolicy, QWidget
from superqt import QCollapsible


def form(*rows: tuple[str, QWidget]) -> QFormLayout:
    """Return labels on the left and fields of one width on the right."""
    layout = QFormLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setHorizontalSpacing(10)
    layout.setVerticalSpacing(4)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    layout.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    for label, widget in rows:
        layout.addRow(label, widget)
    return layout


def choice_box(tooltip: str) -> QComboBox:
    """Return a list to choose from that takes the width there is, however long its entries."""
    box = QComboBox()
    box.setToolTip(tooltip)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return box


def align(*forms: QFormLayout) -> None:
    """Give the labels of several forms one width, so that their fields begin at one edge."""
    labels = [
        item.widget()
        for each in forms
        for row in range(each.rowCount())
        if (item := each.itemAt(row, QFormLayout.ItemRole.LabelRole)) is not None
    ]
    width = max(label.sizeHint().width() for label in labels)
    for label in labels:
        label.setMinimumWidth(width)


def fold(title: str, content: QWidget, *, tooltip: str) -> QCollapsible:
    """Return a section that is closed until its title is clicked."""
    section = QCollapsible(f"▸ {title}")
    section.setToolTip(tooltip)
    # An arrow in the text follows the theme; QCollapsible's icons keep the first one's colour.
    section.setCollapsedIcon(QIcon())
    section.setExpandedIcon(QIcon())
    section.toggled.connect(lambda is_open: section.setText(f"{'▾' if is_open else '▸'} {title}"))
    section.toggleButton().setStyleSheet(
        "QPushButton, QPushButton:checked, QPushButton:hover"
        "{background: transparent; border: none; text-align: left; font-weight: bold; padding: 0}"
    )
    section.layout().setContentsMargins(0, 8, 0, 0)
    section.addWidget(content)
    section.content().layout().setContentsMargins(0, 4, 0, 0)
    return section
