"""The tools of the Annotate dock: one button each, the size of the brush, what a shape becomes."""

from __future__ import annotations

from functools import partial

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QButtonGroup, QDoubleSpinBox, QGridLayout, QWidget

from napari_histomil.ui.annotator import (
    LARGEST_BRUSH_UM,
    SMALLEST_BRUSH_UM,
    TOOLS,
    Annotator,
)
from napari_histomil.ui.keys import KEYS, LAYER_KEYS
from napari_histomil.ui.widgets.annotate_part import Part
from napari_histomil.ui.widgets.icon_button import IconButton, row
from napari_histomil.ui.widgets.panel import plain_label

_COLUMNS = 8

WORDS = {
    "move": "Move the view: drag it, turn the wheel to zoom",
    "select": "Select regions: click one, or draw a box; drag them to move them",
    "vertices": "Edit vertices: drag one, click an edge for a new one, Del takes one away",
    "transform": "Move, turn and scale the selected regions",
    "polygon": "Polygon: click its corners, double-click ends it; Ctrl+Z takes the last one back",
    "freehand": "Freehand: draw round an area",
    "rectangle": "Rectangle: drag from corner to corner",
    "ellipse": "Ellipse: drag from corner to corner",
    "line": "Line: drag, or click its corners; its length is measured",
    "points": "Points: click each of them",
    "brush": "Brush: paint an area; what touches the selected region becomes part of it",
    "eraser": "Eraser: rub parts of the selected region out",
    "wand": "Wand: drag over what has a similar colour in the view",
    "split": "Cut the selected region in two along a line",
    "ruler": "Ruler: measure a distance; nothing is drawn",
}
"""What each tool does."""

_MODES = {
    "new": "Each shape becomes a region",
    "add": "Each shape is added to the selected region",
    "subtract": "Each shape is cut out of the selected region; inside of it, that makes a hole",
}


def key_hint(name: str) -> str:
    """Return the end of a tooltip that names the key, if there is one."""
    table = KEYS | LAYER_KEYS
    return f" (key: {table[name].text})" if name in table else ""


class ToolBox(Part):
    """Buttons of the tools, and their settings."""

    def __init__(self, annotator: Annotator, parent: QWidget | None = None) -> None:
        super().__init__(annotator, parent)
        viewer = annotator.viewer
        self.tool_buttons: dict[str, IconButton] = {}
        self.mode_buttons: dict[str, IconButton] = {}
        grid = QGridLayout()
        grid.setSpacing(4)
        group = QButtonGroup(self)
        for n, tool in enumerate(TOOLS):
            button = IconButton(
                viewer, tool, f"{WORDS[tool]}{key_hint(f'tool.{tool}')}", checkable=True
            )
            button.clicked.connect(partial(self._take, tool))
            group.addButton(button)
            self.tool_buttons[tool] = button
            grid.addWidget(button, n // _COLUMNS, n % _COLUMNS)
        grid.setColumnStretch(_COLUMNS, 1)
        modes = QButtonGroup(self)
        for mode, words in _MODES.items():
            button = IconButton(viewer, mode, f"{words}{key_hint(f'mode.{mode}')}", checkable=True)
            button.clicked.connect(partial(self._set_mode, mode))
            modes.addButton(button)
            self.mode_buttons[mode] = button
        self.brush_box = _number("Brush ", SMALLEST_BRUSH_UM, LARGEST_BRUSH_UM, " µm")
        self.brush_box.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
        self.brush_box.setToolTip(
            f"Width of brush and eraser on the slide{key_hint('annotate.larger')}"
        )
        self.brush_box.valueChanged.connect(self._set_brush)
        self.wand_box = _number("Wand ", 0.5, 100.0, "")
        self.wand_box.setToolTip(
            "How far a colour may be from the one under the pointer (CIE Lab; 2 is just seen)"
        )
        self.wand_box.valueChanged.connect(self._set_tolerance)
        self.column.addLayout(grid)
        self.column.addWidget(
            row(
                *self.mode_buttons.values(), self.brush_box, self.wand_box,
            )
        )  # fmt: skip
        self.words = plain_label()
        # Room for two lines: what is below stays where it is.
        self.words.setMinimumHeight(2 * self.words.fontMetrics().lineSpacing())
        self.words.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.column.addWidget(self.words)
        self.follow(
            annotator.tool_changed, annotator.settings_changed, annotator.slide_changed,
            annotator.selection_changed, annotator.class_changed, annotator.changed,
        )  # fmt: skip

    def refresh(self) -> None:
        """Show which tool is in the hand, and how it is set."""
        annotator = self.annotator
        why_not = self.why_not()
        for tool, button in self.tool_buttons.items():
            button.setChecked(tool == annotator.tool)
            button.allow(None if tool in ("move", "select", "ruler") else why_not)
        for mode, button in self.mode_buttons.items():
            button.setChecked(mode == annotator.mode)
            no_target = mode != "new" and not annotator.selected
            button.allow(why_not or ("Select a region first" if no_target else None))
        with QSignalBlocker(self.brush_box), QSignalBlocker(self.wand_box):
            scaled = annotator.slide is None or annotator.slide.has_mpp
            self.brush_box.setSuffix(" µm" if scaled else " px")
            self.brush_box.setValue(annotator.brush_um)
            self.wand_box.setValue(annotator.wand_tolerance)
        self.words.setText(self._say())

    def _say(self) -> str:
        words = WORDS[self.annotator.tool].split(": ", 1)
        active = self.annotator.active_class
        if self.annotator.tool in ("move", "select", "vertices", "transform", "ruler", "split"):
            return f"<b>{words[0]}</b>" + (f": {words[1]}" if len(words) > 1 else "")
        return f"<b>{words[0]}</b> as {active.name if active else 'unclassified'}: {words[-1]}"

    def _take(self, tool: str) -> None:
        self.annotator.set_tool(tool)

    def _set_mode(self, mode: str) -> None:
        self.annotator.mode = mode

    def _set_brush(self, width: float) -> None:
        self.annotator.brush_um = width

    def _set_tolerance(self, tolerance: float) -> None:
        self.annotator.wand_tolerance = tolerance


def _number(prefix: str, least: float, most: float, suffix: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(least, most)
    box.setDecimals(1)
    box.setPrefix(prefix)
    box.setSuffix(suffix)
    box.setKeyboardTracking(False)
    box.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
    return box
