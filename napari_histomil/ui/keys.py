"""The keys of the window, in one table, how they are bound, and the sheet that lists them.

A key here is free in napari 0.9 whatever layer is active: napari asks the active layer's keys
before the viewer's, so a key that a layer uses would never arrive. The tests press every key
with every kind of layer.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qtpy.compat import isalive
from qtpy.QtCore import QObject, Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QVBoxLayout,
    QWidget,
)

_QT_NAMES = {"Control": "Ctrl", "PageUp": "PgUp", "PageDown": "PgDown"}


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the window."""

    key: str
    """As napari writes it, such as ``Control-1``."""
    group: str
    what: str

    @property
    def text(self) -> str:
        """As people write it, with the names of this machine's keyboard."""
        name = self.key.replace("-", "+")
        for naparis, qts in _QT_NAMES.items():
            name = name.replace(naparis, qts)
        return QKeySequence(name).toString(QKeySequence.SequenceFormat.NativeText)


KEYS: dict[str, Key] = {
    "magnification.1.25": Key("Control-1", "Slide", "Magnification 1.25x (8 µm a screen pixel)"),
    "magnification.2.5": Key("Control-2", "Slide", "Magnification 2.5x (4 µm a screen pixel)"),
    "magnification.5": Key("Control-3", "Slide", "Magnification 5x (2 µm a screen pixel)"),
    "magnification.10": Key("Control-4", "Slide", "Magnification 10x (1 µm a screen pixel)"),
    "magnification.20": Key("Control-5", "Slide", "Magnification 20x (0.5 µm a screen pixel)"),
    "magnification.40": Key("Control-6", "Slide", "Magnification 40x (0.25 µm a screen pixel)"),
    "slide.fit": Key("Control-7", "Slide", "Fit the slide into the window"),
    "slide.native": Key("Control-8", "Slide", "1:1, a pixel of the finest level a screen pixel"),
    "zoom.in": Key("PageUp", "Slide", "Zoom in to the next magnification"),
    "zoom.out": Key("PageDown", "Slide", "Zoom out to the next magnification"),
    "turn.right": Key("J", "View", "Turn the view right by 90 degrees"),
    "turn.left": Key("Shift-J", "View", "Turn the view left by 90 degrees"),
    "mirror.left_right": Key("H", "View", "Mirror the view, left and right exchanged"),
    "mirror.up_down": Key("Shift-H", "View", "Mirror the view, top and bottom exchanged"),
    "turn.reset": Key("Control-9", "View", "Turn and mirror the view back"),
    "minimap.toggle": Key("Shift-M", "View", "Show or hide the minimap"),
    "overlay.toggle": Key("U", "Overlay", "Show or hide the heatmap"),
    "overlay.fainter": Key(",", "Overlay", "Make the heatmap fainter"),
    "overlay.stronger": Key(".", "Overlay", "Make the heatmap stronger"),
    "hottest.next": Key("N", "Overlay", "Go to the next hottest tile"),
    "hottest.previous": Key("Shift-N", "Overlay", "Go back to the previous hottest tile"),
    "annotate.toggle": Key("Q", "Annotate", "Take the tool used last, or put it down"),
    **{
        f"anyclass.{n}": Key(f"Alt-{n}", "Annotate", f"Class {n}, whatever layer is active")
        for n in range(1, 10)
    },
    "compare.toggle": Key("Shift-U", "Compare", "Open or close the second view"),
    "keys.sheet": Key("?", "Help", "Show this sheet"),
}

LAYER_KEYS: dict[str, Key] = {
    **{
        f"tool.{tool}": Key(key, "Tools (while our layer is active)", what)
        for tool, key, what in (
            ("move", "M", "Move the view"),
            ("select", "S", "Select"),
            ("vertices", "E", "Edit vertices"),
            ("transform", "T", "Move, scale, turn what is selected"),
            ("polygon", "P", "Polygon"),
            ("freehand", "F", "Freehand"),
            ("rectangle", "R", "Rectangle"),
            ("ellipse", "O", "Ellipse"),
            ("line", "L", "Line"),
            ("points", "D", "Points"),
            ("brush", "B", "Brush"),
            ("eraser", "X", "Eraser"),
            ("wand", "W", "Wand"),
            ("split", "K", "Split what is selected by a line"),
            ("ruler", "G", "Ruler"),
        )
    },
    **{f"class.{n}": Key(str(n), "Drawing", f"Class {n}") for n in range(1, 10)},
    "annotate.undo": Key("Control-Z", "Drawing", "Take back the last vertex, or the last step"),
    "annotate.redo": Key("Control-Shift-Z", "Drawing", "Do it again"),
    "annotate.enter": Key("Enter", "Drawing", "Finish the shape, as a double click"),
    "annotate.escape": Key("Escape", "Drawing", "Give the shape up; select nothing"),
    "annotate.back": Key("Backspace", "Drawing", "Take back the last vertex, or delete"),
    "annotate.delete": Key("Delete", "Drawing", "Delete the vertex held, or what is selected"),
    "annotate.pan": Key("Space", "Drawing", "Held: a drag moves the view"),
    "annotate.smaller": Key("[", "Drawing", "Smaller brush (Ctrl and the wheel, too)"),
    "annotate.larger": Key("]", "Drawing", "Larger brush"),
    "region.next": Key("N", "Drawing", "Go to the next region"),
    "region.previous": Key("Shift-N", "Drawing", "Go to the previous region"),
}
"""Keys of our layer of annotations, active with every tool: they beat those of napari."""

IDLE_KEYS: dict[str, Key] = {
    "patch.previous": Key("P", "Overlay", "The same; with a layer of shapes, P draws a polygon"),
}
"""Keys that a layer of drawings has for itself while it is active."""

REVIEW_KEYS: dict[str, Key] = {
    name: Key(key, "Review (while a case is read)", what)
    for name, key, what in (
        ("review.enter", "Enter", "Lock the own answer; then: done, next case"),
        ("review.place.next", "N", "Go to the next place to judge"),
        ("review.place.previous", "Shift-N", "Go back to the place before"),
        ("review.missed", "A", "The next click marks what the model missed"),
        ("review.back", "Backspace", "Take back the last judgement"),
        ("review.case.next", "Alt-Right", "Next case, without being done"),
        ("review.case.previous", "Alt-Left", "Case before"),
    )
} | {
    f"answer.{n}": Key(str(n), "Review (while a case is read)", f"Answer {n}")
    for n in range(1, 10)
}
"""Keys of the window while a case is read and no tool of drawing is held: then they beat all
others. The keys of a project's form come to them."""

CLASS_KEYS = {
    "class": "Class of that number, for what is selected too",
    "anyclass": "Class of that number, with any layer",
    "answer": "Answer of that number, then how sure; judge a place",
}
"""Families of nine keys that are one line of the sheet."""

COLUMNS = 3

KEY_SHEET = "keys.sheet"
"""The one key that is Qt's and not napari's, which cannot be told of a question mark."""


def bind(viewer: Any, name: str, method: Callable[..., Any], *arguments: Any) -> None:
    """Let a key of the table call a widget's method, in one viewer.

    Parameters
    ----------
    viewer
        The viewer; a plugin's proxy of it does as well.
    name
        Name of the key in `KEYS` or `IDLE_KEYS`.
    method
        A bound method, say of a widget. It is held weakly, so that a dock that was closed does not
        live on in the viewer's keys; its key then does nothing.
    arguments
        What the method is called with.
    """
    held = weakref.WeakMethod(method)

    def press(_viewer: Any) -> None:
        alive = held()
        if alive is not None and _usable(alive.__self__):
            alive(*arguments)

    viewer.bind_key((KEYS | IDLE_KEYS)[name].key, press, overwrite=True)


def _usable(owner: Any) -> bool:
    """Return whether Qt has not deleted the widget under its Python object."""
    return not isinstance(owner, QObject) or isalive(owner)


def hint(name: str) -> str:
    """Return the end of a tooltip that names the key, such as ``" (key: N)"``."""
    key = (KEYS | IDLE_KEYS | LAYER_KEYS | REVIEW_KEYS)[name]
    return f" (key: {key.text})"


class KeySheet(QDialog):
    """All keys of the window on one sheet."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("Keys of HistoMIL")
        columns = QHBoxLayout()
        columns.setSpacing(40)
        for listed in _columns():
            columns.addLayout(_grid(listed))
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 16, 16, 12)
        layout.setSpacing(12)
        layout.addLayout(columns)
        layout.addWidget(buttons)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the sheet: a key, or a row of number keys that do the same kind of thing."""

    text: str
    group: str
    what: str


def rows() -> list[Row]:
    """Return the lines of the sheet in order: the window's keys, then those of drawing."""
    listed: list[Row] = []
    for name, key in (KEYS | IDLE_KEYS | LAYER_KEYS | REVIEW_KEYS).items():
        family, _, number = name.partition(".")
        if family not in CLASS_KEYS:
            listed.append(Row(key.text, key.group, key.what))
        elif number == "1":
            last = (KEYS | LAYER_KEYS | REVIEW_KEYS)[f"{family}.9"]
            text = f"{key.text} … {last.text}"
            listed.append(Row(text, key.group, CLASS_KEYS[family]))
    return listed


def _columns() -> list[list[Row]]:
    """Return the lines for columns that are about equally long; no group is torn apart."""
    listed = rows()
    columns: list[list[Row]] = [[] for _ in range(COLUMNS)]
    at = 0
    for group in dict.fromkeys(row.group for row in listed):
        part = [row for row in listed if row.group == group]
        full = len(columns[at]) + len(part) / 2 > len(listed) / COLUMNS
        if full and columns[at] and at < COLUMNS - 1:
            at += 1
        columns[at] += part
    return columns


def _grid(listed: list[Row]) -> QGridLayout:
    """Return the keys below each other, with the titles of their groups."""
    grid = QGridLayout()
    grid.setHorizontalSpacing(24)
    grid.setVerticalSpacing(6)
    group = None
    for line in listed:
        if line.group != group:
            group = line.group
            heading = QLabel(f"<b>{group}</b>")
            heading.setContentsMargins(0, 8 if grid.count() else 0, 0, 0)
            grid.addWidget(heading, grid.rowCount(), 0, 1, 2)
        row = grid.rowCount()
        grid.addWidget(QLabel(line.text), row, 0)
        grid.addWidget(QLabel(line.what), row, 1)
    grid.setColumnStretch(1, 1)
    grid.setRowStretch(grid.rowCount(), 1)
    return grid
