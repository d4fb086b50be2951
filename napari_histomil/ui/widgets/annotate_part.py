"""What the parts of the Annotate dock have in common: brought up to date when somebody looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QVBoxLayout, QWidget

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
        if self.isVisible():
            self.refresh()

    def showEvent(self, event: QShowEvent) -> None:
        """Show things as they are."""
        super().showEvent(event)
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
