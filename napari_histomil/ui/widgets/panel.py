"""What all docks look like: a column that scrolls on low screens, with titled sections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QDockWidget,
    QFrame,
    QLabel,
    QMainWindow,
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
        self._shown = self._placed = False
        self._sections: dict[str, tuple[QLabel, QWidget]] = {}
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

    def showEvent(self, event: QShowEvent) -> None:
        """Find a place in the window when first shown: napari has then put the dock there."""
        super().showEvent(event)
        if not self._shown:
            self._shown = True
            QTimer.singleShot(0, self._arrange)

    def _arrange(self) -> None:
        """Become a tab beside the other docks, or have a width in which nothing is cut off.

        napari's menu opens one dock below the other, where none has room.
        """
        self._placed = True
        window, dock = self.window(), _dock_of(self)
        if dock is None or not isinstance(window, QMainWindow) or dock.isFloating():
            return
        if window.tabifiedDockWidgets(dock):
            return  # somebody has arranged them already
        area = window.dockWidgetArea(dock)
        for panel in window.findChildren(Panel):
            other = _dock_of(panel)
            if other is None or other is dock or not panel._placed:
                continue
            if window.dockWidgetArea(other) == area:
                window.tabifyDockWidget(other, dock)
                dock.raise_()
                return
        window.resizeDocks([dock], [DOCK_WIDTH], Qt.Orientation.Horizontal)

    def add(self, widget: QWidget) -> None:
        """Add a widget at the bottom of the column."""
        self._column.insertWidget(self._column.count() - 1, widget)

    def section(self, title: str) -> QVBoxLayout:
        """Begin a titled section; returns the column that its widgets go into."""
        words = heading(title, first=self._column.count() == 1)
        self.add(words)
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        self.add(body)
        self._sections[title] = words, body
        return column

    def foot(self, title: str) -> QVBoxLayout:
        """Begin a titled section below the column, which is seen wherever that is scrolled to."""
        foot = QWidget()
        column = QVBoxLayout(foot)
        column.setContentsMargins(10, 0, 10, 8)
        column.setSpacing(6)
        column.addWidget(heading(title))
        self.layout().addWidget(foot)
        return column

    def show_section(self, title: str, *, shown: bool) -> None:
        """Show a section with its title, or hide both."""
        for widget in self._sections[title]:
            widget.setVisible(shown)


def heading(title: str, *, first: bool = False) -> QLabel:
    """Return the title of a section; the first of a dock has no room above it."""
    label = QLabel(f"<b>{title}</b>")
    label.setContentsMargins(0, 0 if first else 8, 0, 0)
    return label


def _dock_of(panel: Panel) -> QDockWidget | None:
    """Return the dock that a panel is in, if any."""
    parent = panel.parentWidget()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parentWidget()
    return parent


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
