"""Where to look: magnifications, fit, go to a place, turn and mirror; and where one is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui import camera
from napari_histomil.ui.keys import KEYS, bind, hint
from napari_histomil.ui.layers import center_of_view_px0
from napari_histomil.ui.minimap import readout
from napari_histomil.ui.orientation import (
    STRAIGHT,
    Orientation,
    orientation_of,
    set_orientation,
    view_signals,
)
from napari_histomil.ui.preferences import shows_minimap
from napari_histomil.ui.session import session
from napari_histomil.ui.widgets.minimap import Minimap, attach_minimap
from napari_histomil.ui.widgets.panel import follow, plain_label

READOUT_MS = 100
"""While the view moves, what is said of it is renewed so often: for a label in new words, Qt lays
the dock out and composes the whole window anew, three times for each step of the camera."""

_NO_SCALE = "Needs the slide's µm/px: set it above"
_NO_SLIDE = "Open a slide first"

_TURNS: dict[str, Callable[[Orientation], Orientation]] = {
    "turn.left": lambda seen: seen.turned(-1),
    "turn.right": lambda seen: seen.turned(1),
    "mirror.left_right": Orientation.mirrored_left_right,
    "mirror.up_down": Orientation.mirrored_up_down,
    "turn.reset": lambda _: STRAIGHT,
}
"""By their names in the table of keys: what becomes of the view."""

_TURN_TEXTS = {
    "turn.left": "↺ 90°",
    "turn.right": "↻ 90°",
    "mirror.left_right": "⇆",
    "mirror.up_down": "⇅",
    "turn.reset": "Reset",
}


class Navigation(QWidget):
    """Buttons and read-outs of the view on one slide."""

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._info: SlideInfo | None = None
        self.minimap: Minimap | None = None
        """On the canvas; None as long as this is in no window."""
        self.readout = plain_label()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(self.readout)
        column.addLayout(self._make_magnifications())
        column.addLayout(self._make_go_to())
        column.addLayout(self._make_turns())
        column.addLayout(self._make_boxes())
        self._readout_timer = QTimer(self)
        self._readout_timer.setSingleShot(True)
        self._readout_timer.setInterval(READOUT_MS)
        self._readout_timer.timeout.connect(self._update_readout)
        moves = viewer.scene.camera.events
        for signal in view_signals(viewer):
            moved = signal in (moves.center, moves.zoom)
            follow(self, signal, self._update_soon if moved else self._update_readout)
        follow(self, session(viewer).slide_closed, self._on_closed)
        for power in camera.MAGNIFICATIONS:
            bind(viewer, f"magnification.{power:g}", self._magnify, power)
        bind(viewer, "slide.fit", self._fit)
        bind(viewer, "slide.native", self._native)
        bind(viewer, "zoom.in", self._step_zoom, 1)
        bind(viewer, "zoom.out", self._step_zoom, -1)
        for name, change in _TURNS.items():
            bind(viewer, name, self._turn, change)
        self.show_info(None)
        QTimer.singleShot(0, self._find_canvas)  # once this is in a window

    def showEvent(self, event: QShowEvent) -> None:
        """Take the canvas of the window that this is in by now."""
        super().showEvent(event)
        self._find_canvas()

    def event(self, event: QEvent) -> bool:
        """Say the magnification on another screen at once."""
        if event.type() == camera.NEW_SCREEN:
            QTimer.singleShot(0, self._update_readout)  # once the canvas knows of it too
        return super().event(event)

    def _find_canvas(self) -> None:
        """Lay the minimap over the canvas of the window."""
        if self.minimap is None:
            self.minimap = attach_minimap(self._viewer, self)
            if self.minimap is not None:
                self.minimap_box.setChecked(self.minimap.shown)
                self.minimap.shown_changed.connect(self.minimap_box.setChecked)
                self._update_readout()

    def _make_magnifications(self) -> QGridLayout:
        self.magnification_buttons: dict[float, QPushButton] = {}
        for power in camera.MAGNIFICATIONS:
            button = QPushButton(f"{power:g}x")
            button.clicked.connect(lambda _=False, power=power: self._magnify(power))
            self.magnification_buttons[power] = button
        self.fit_button = QPushButton("Fit")
        self.fit_button.clicked.connect(self._fit)
        self.native_button = QPushButton("1:1")
        self.native_button.clicked.connect(self._native)
        grid = QGridLayout()
        grid.setSpacing(4)
        buttons = [*self.magnification_buttons.values(), self.native_button, self.fit_button]
        for index, button in enumerate(buttons):
            # The style's own minimum would make four buttons wider than the dock.
            button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            button.setMinimumWidth(button.fontMetrics().horizontalAdvance("1.25x") + 16)
            grid.addWidget(button, index // 4, index % 4)
        return grid

    def _make_go_to(self) -> QHBoxLayout:
        self.x_edit, self.y_edit = QDoubleSpinBox(), QDoubleSpinBox()
        for edit, tooltip in (
            (self.x_edit, "Distance from the slide's left edge"),
            (self.y_edit, "Distance from the slide's top edge"),
        ):
            edit.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
            edit.setAlignment(Qt.AlignmentFlag.AlignRight)
            edit.setToolTip(tooltip)
            # napari's style asks for 90 px: two of them would make the row wider than the dock.
            edit.setStyleSheet("min-width: 56px")
            edit.lineEdit().returnPressed.connect(self._go_to)
        self.unit_box = QComboBox()
        self.unit_box.addItems(["µm", "px"])
        self.unit_box.setToolTip("µm, or pixels of the finest level as files of coordinates count")
        self.unit_box.currentTextChanged.connect(self._update_go_to)
        self.go_button = QPushButton("Go")
        self.go_button.clicked.connect(self._go_to)
        row = QHBoxLayout()
        row.setSpacing(4)
        for widget, stretch in (
            (QLabel("x"), 0), (self.x_edit, 1), (QLabel("y"), 0), (self.y_edit, 1),
            (self.unit_box, 0), (self.go_button, 0),
        ):  # fmt: skip
            row.addWidget(widget, stretch)
        return row

    def _make_turns(self) -> QHBoxLayout:
        self.turn_buttons: dict[str, QPushButton] = {}
        row = QHBoxLayout()
        row.setSpacing(4)
        for name, change in _TURNS.items():
            button = QPushButton(_TURN_TEXTS[name])
            button.clicked.connect(lambda _=False, change=change: self._turn(change))
            button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            button.setMinimumWidth(button.fontMetrics().horizontalAdvance("Reset") + 12)
            self.turn_buttons[name] = button
            row.addWidget(button)
        return row

    def _make_boxes(self) -> QHBoxLayout:
        self.scale_bar_box = QCheckBox("Scale bar")
        self.scale_bar_box.toggled.connect(self._toggle_scale_bar)
        self._wants_scale_bar = True
        scale_bar = self._viewer.canvas.overlays.scale_bar
        follow(self, scale_bar.events.visible, self._on_scale_bar)
        self.minimap_box = QCheckBox("Minimap")
        self.minimap_box.setChecked(shows_minimap())
        self.minimap_box.toggled.connect(self._toggle_minimap)
        self.minimap_box.setToolTip(
            "Show the whole slide in the corner of the view: click or drag there to move"
            + hint("minimap.toggle")
        )
        row = QHBoxLayout()
        row.addWidget(self.scale_bar_box)
        row.addWidget(self.minimap_box)
        row.addStretch(1)
        return row

    def show_info(self, info: SlideInfo | None) -> None:
        """Navigate on this slide from now on."""
        self._info = info
        scaled = info is not None and info.mpp_x is not None
        why_not = _NO_SLIDE if info is None else _NO_SCALE
        for power, button in self.magnification_buttons.items():
            button.setEnabled(scaled)
            button.setToolTip(
                f"One screen pixel shows {10 / power:g} µm{hint(f'magnification.{power:g}')}"
                if scaled
                else why_not
            )
        for widget, tooltip in (
            (self.fit_button, f"Show the whole slide{hint('slide.fit')}"),
            (
                self.native_button,
                f"One pixel of the finest level on one screen pixel{hint('slide.native')}",
            ),
            (self.go_button, "Move this place to the middle of the view; the zoom stays"),
            *((self.turn_buttons[name], KEYS[name].what + hint(name)) for name in _TURNS),
        ):
            widget.setEnabled(info is not None)
            widget.setToolTip(_NO_SLIDE if info is None else tooltip)
        for widget in (self.x_edit, self.y_edit, self.unit_box, self.minimap_box):
            widget.setEnabled(info is not None)
        self.scale_bar_box.setEnabled(scaled)
        self.scale_bar_box.setToolTip(
            "Show a scale bar in µm in the corner of the view" if scaled else why_not
        )
        self.scale_bar_box.setChecked(scaled and self._wants_scale_bar)
        self._toggle_scale_bar(scaled and self._wants_scale_bar)
        unit = self.unit_box.model().item(0)
        unit.setEnabled(scaled)
        self.unit_box.setCurrentText("µm" if scaled else "px")
        self._update_go_to()
        self._update_readout()

    def _magnify(self, power: float) -> None:
        if self._info is None or self._info.mpp_x is None:
            return  # by the key; the button is disabled
        camera.set_magnification(self._viewer, power)

    def _fit(self) -> None:
        if self._info is not None:
            session(self._viewer).fit(self._info)

    def _native(self) -> None:
        if self._info is not None:
            camera.set_native(self._viewer, self._info)

    def _step_zoom(self, steps: int) -> None:
        if self._info is not None:
            camera.step_zoom(self._viewer, self._info, steps)

    def _turn(self, change: Callable[[Orientation], Orientation]) -> None:
        """Turn or mirror the view; a slide that was shown whole is so afterwards."""
        if self._info is None:
            return
        camera.turn(self._viewer, change(orientation_of(self._viewer)), self._info)
        if camera.shows_whole(self._viewer, self._info):
            self._fit()  # and it stays whole when the window changes

    def _on_closed(self, _slide: Any) -> None:
        if not session(self._viewer).slides:
            set_orientation(self._viewer, STRAIGHT)  # the next slide begins as it is stored

    def _px0_per_unit(self, info: SlideInfo) -> tuple[float, float]:
        if self.unit_box.currentText() == "px":
            return 1.0, 1.0
        mpp_x, mpp_y = info.mpp_xy
        return 1 / mpp_x, 1 / mpp_y

    def _update_go_to(self) -> None:
        """Let the fields reach the slide's far edges, in the chosen unit."""
        if self._info is None:
            return
        per_x, per_y = self._px0_per_unit(self._info)
        for edit, largest in (
            (self.x_edit, self._info.width_px0 / per_x),
            (self.y_edit, self._info.height_px0 / per_y),
        ):
            edit.setDecimals(0 if self.unit_box.currentText() == "px" else 1)
            edit.setRange(0, largest)

    def _go_to(self) -> None:
        if self._info is None:
            return
        per_x, per_y = self._px0_per_unit(self._info)
        xy_px0 = (self.x_edit.value() * per_x, self.y_edit.value() * per_y)
        camera.go_to_px0(self._viewer, self._info, xy_px0)

    def _toggle_minimap(self, on: bool) -> None:
        if self.minimap is not None:
            self.minimap.shown = on

    def _toggle_scale_bar(self, on: bool) -> None:
        self._viewer.canvas.overlays.scale_bar.visible = on

    def _on_scale_bar(self, _event: Any) -> None:
        """Follow what napari's menu or a view that comes back has made of the scale bar."""
        if self._info is None or self._info.mpp_x is None:
            return
        self._wants_scale_bar = self._viewer.canvas.overlays.scale_bar.visible
        self.scale_bar_box.setChecked(self._wants_scale_bar)

    def _update_soon(self, _event: Any = None) -> None:
        if not self._readout_timer.isActive():
            self._readout_timer.start()

    def _update_readout(self, _event: Any = None) -> None:
        info = self._info
        if info is None:
            return
        x, y = center_of_view_px0(self._viewer, info)
        self.readout.setToolTip(
            f"Magnification on this screen: at 10x one screen pixel shows 1 µm. The position is "
            f"the middle of the view, from the slide's top-left corner: "
            f"x {x:.0f} px, y {y:.0f} px of the finest level."
        )
        turned = orientation_of(self._viewer).text
        self.turn_buttons["turn.reset"].setEnabled(bool(turned))
        lines = [f"Scale unknown<br>middle at x {x:.0f} px, y {y:.0f} px"]
        if info.mpp_x is not None and info.mpp_y is not None:
            lines = [
                f"<b>{readout(self._viewer, info).replace(', ', '</b>, ')} on this screen",
                f"middle at x {x * info.mpp_x:.0f} µm, y {y * info.mpp_y:.0f} µm",
            ]
        if turned:
            lines.append(f"<i>view {turned}</i>")
        self.readout.setText("<br>".join(lines))
