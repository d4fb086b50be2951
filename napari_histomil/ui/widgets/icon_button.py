"""Buttons with a picture in the colour of the theme, and rows of them."""

from __future__ import annotations

from typing import Any

from napari.utils.theme import get_theme
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QHBoxLayout, QToolButton, QWidget

from napari_histomil.ui.tool_icons import SIDE, icon
from napari_histomil.ui.widgets.panel import follow

BUTTON_PX = 30


class IconButton(QToolButton):
    """A square button that shows a picture of `tool_icons` and says in its tooltip what it does.

    Parameters
    ----------
    viewer
        Whose theme it follows.
    picture
        A key of `tool_icons.PICTURES`.
    tooltip
        What it does.
    checkable
        Whether it stays pressed.
    """

    def __init__(
        self, viewer: Any, picture: str, tooltip: str, *, checkable: bool = False
    ) -> None:
        super().__init__()
        self._viewer, self._picture, self._tooltip = viewer, picture, tooltip
        self.setCheckable(checkable)
        self.setToolTip(tooltip)
        self.setAccessibleName(tooltip)
        self.setIconSize(QSize(SIDE, SIDE))
        self.setFixedSize(BUTTON_PX, BUTTON_PX)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)  # a click leaves the keys with the canvas
        self.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        follow(self, viewer.events.theme, self._on_theme)
        self._on_theme()

    def allow(self, why_not: str | None) -> None:
        """Enable the button, or disable it and say in the tooltip why."""
        self.setEnabled(why_not is None)
        self.setToolTip(self._tooltip if why_not is None else why_not)

    def say(self, tooltip: str) -> None:
        """Give another tooltip for when the button is enabled."""
        self._tooltip = tooltip
        self.setToolTip(tooltip)
        self.setAccessibleName(tooltip)

    def _on_theme(self, _event: Any = None) -> None:
        theme = get_theme(self._viewer.theme)
        self.setIcon(icon(self._picture, QColor(theme.text.as_hex())))
        pressed, hover = theme.current.as_hex(), theme.primary.as_hex()
        ground = theme.foreground.as_hex()
        self.setStyleSheet(
            f"QToolButton{{background: {ground}; border: none; border-radius: 4px}}"
            f"QToolButton:hover{{background: {hover}}}"
            f"QToolButton:checked{{background: {pressed}}}"
            f"QToolButton:disabled{{background: transparent}}"
            f"QToolButton::menu-indicator{{image: none}}"
        )


def row(*widgets: QWidget, stretch: int | None = None, spacing: int = 3) -> QWidget:
    """Return widgets side by side.

    Parameters
    ----------
    stretch
        Which of them takes what room is left; None for none of them.
    """
    holder = QWidget()
    layout = QHBoxLayout(holder)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(spacing)
    for index, widget in enumerate(widgets):
        layout.addWidget(widget, int(index == stretch))
    if stretch is None:
        layout.addStretch(1)
    return holder
