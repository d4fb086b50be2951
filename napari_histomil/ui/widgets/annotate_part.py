"""What the parts of the Annotate dock have in common: brought up to date when somebody looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QTimer
from qtpy.QtGui import QResizeEvent, QShowEvent
from qtpy.QtWidgets import QDockWidget, QVBoxLayout, QWidget

from napari_histomil.errors import HistomilError
from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.widgets.panel import follow


class Part(QWidget):
    """A column of widgets about the annotations of a viewer's slide.

    `refresh` is called once for all that happened in a turn of the event loop; while the part
    cannot be seen, not before it can: a dock that lies behind another one costs nothing, and
    opens no annotations.
    """

    def __init__(self, annotator: Annotator, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.annotator = annotator
        self.column = QVBoxLayout(self)
        self.column.setContentsMargins(0, 0, 0, 0)
        self.column.setSpacing(4)
        self._dock: QDockWidget | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._refresh_if_seen)

    def follow(self, *signals: Any) -> None:
        """Be refreshed after any of these signals."""
        for signal in signals:
            follow(self, signal, self.later)

    def later(self, *_: Any) -> None:
        """Refresh when what happens now has happened."""
        self._timer.start(0)

    def _refresh_if_seen(self) -> None:
        if self.is_seen:
            self.refresh()

    @property
    def is_seen(self) -> bool:
        """Whether it is in front and unfolded.

        Qt calls a dock behind another one visible, and so is what lies in a closed fold.
        """
        dock = self._dock
        in_front = dock is None or not dock.visibleRegion().isEmpty()
        return self.isVisible() and self.height() > 0 and in_front

    def showEvent(self, event: QShowEvent) -> None:
        """Show things as they are, now and when the dock comes to the front."""
        super().showEvent(event)
        dock = _dock_of(self)
        if dock is not self._dock and dock is not None:
            self._dock = dock
            dock.visibilityChanged.connect(self.later)
        self.later()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Show things as they are when a fold opens."""
        super().resizeEvent(event)
        if event.oldSize().height() <= 0:
            self.later()

    def refresh(self) -> None:
        """Show things as they are now."""
        raise NotImplementedError

    def why_not(self) -> str | None:
        """Return why nothing can be changed now, in words; None if it can."""
        if self.annotator.slide is None:
            return "Open a slide first"
        keeper = self.annotator.keeper  # None before the first step on a slide
        if self.annotator.is_reading:
            return "The annotations are still being read"
        return None if keeper is None else keeper.why_read_only

    def attempt(self, step: Callable[[], Any]) -> None:
        """Do something; a refusal comes as a dialog."""
        try:
            step()
        except HistomilError as error:
            show_error(error, self)


def _dock_of(widget: QWidget | None) -> QDockWidget | None:
    while widget is not None and not isinstance(widget, QDockWidget):
        widget = widget.parentWidget()
    return widget
