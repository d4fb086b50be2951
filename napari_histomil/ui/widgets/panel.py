"""What all docks look like: a column that scrolls on low screens, with titled sections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import (
    QFrame,
    QLabel,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

DOCK_WIDTH = 360
"""Width in logical pixels at which every dock shows all it has."""

_LEAST_HEIGHT = 120


class Panel(QWidget):
    """A dock: add sections from top to bottom in the order of the work."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._content = QWidget()
        self._column = QVBoxLayout(self._content)
        self._column.setContentsMargins(10, 8, 10, 8)
        self._column.setSpacing(6)
        self._column.addStretch(1)
        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QFrame.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._scroll.setWidget(self._content)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._scroll)
        self._content.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Ask for another width when the content does."""
        if watched is self._content and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)

    def minimumSizeHint(self) -> QSize:
        """Ask for so much width that nothing is cut off beside the scroll bar."""
        bar = self._scroll.verticalScrollBar().sizeHint().width()
        return QSize(self._content.minimumSizeHint().width() + bar, _LEAST_HEIGHT)

    def add(self, widget: QWidget) -> None:
        """Add a widget at the bottom of the column."""
        self._column.insertWidget(self._column.count() - 1, widget)

    def section(self, title: str) -> QVBoxLayout:
        """Begin a titled section; returns the column that its widgets go into."""
        heading = QLabel(f"<b>{title}</b>")
        heading.setContentsMargins(0, 8 if self._column.count() > 1 else 0, 0, 0)
        self.add(heading)
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        self.add(body)
        return column


def plain_label(text: str = "", tooltip: str = "") -> QLabel:
    """Return a label that wraps, whose text can be selected, and that asks for no width."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
    policy.setHeightForWidth(True)
    label.setSizePolicy(policy)
    label.setToolTip(tooltip)
    return label


def follow(owner: QWidget, signal: Any, slot: Callable[..., Any]) -> None:
    """Connect a signal of napari or psygnal to a widget's method until the widget is deleted.

    Those signals know nothing of Qt: without this they would call into a dock that was closed.
    """
    signal.connect(slot)

    def stop() -> None:
        signal.disconnect(slot)

    owner.destroyed.connect(stop)
