"""Two views that move as one: cameras copied both ways, pointer and clicks of either told.

It knows no slides: both views look at one world, in the same numbers.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from psygnal import Signal

from napari_histomil.ui.orientation import (
    center_of_world,
    look_at_world,
    orientation_of,
    set_orientation,
    view_signals,
)

Side = Literal["left", "right"]

STEADY_PX = 3
"""Screen pixels that a hand may move during a click."""


class JoinedViews:
    """A viewer and a second view of it, from the beginning of the second to its end."""

    pointed = Signal(str, object)
    """The pointer is in a view: its `Side`, and float64 (row, col) in the world."""
    clicked = Signal(str, object)
    """A click, not a drag, in a view: as `pointed`."""

    def __init__(self, left: Any, right: Any) -> None:
        # The first weakly: it owns, by some ways, whoever owns this.
        self._left_of, self._right = weakref.ref(left), right
        self._joined = True
        self._moving = False
        for view, follow in ((left, self._on_left_moved), (right, self._on_right_moved)):
            for signal in view_signals(view):
                signal.connect(follow)
        left.mouse_move_callbacks.append(self._on_left_pointer)
        right.mouse_move_callbacks.append(self._on_right_pointer)
        left.mouse_drag_callbacks.append(self._on_left_press)
        right.mouse_drag_callbacks.append(self._on_right_press)

    def let_go(self) -> None:
        """Leave both views alone from now on."""
        left, right = self._left_of(), self._right
        for signal in view_signals(right):
            signal.disconnect(self._on_right_moved)
        right.mouse_move_callbacks.clear()
        right.mouse_drag_callbacks.clear()
        if left is None:
            return
        for signal in view_signals(left):
            signal.disconnect(self._on_left_moved)
        left.mouse_move_callbacks.remove(self._on_left_pointer)
        left.mouse_drag_callbacks.remove(self._on_left_press)

    # --- moving ---

    @property
    def joined(self) -> bool:
        """Whether the views move together; joined anew, the second goes to the first."""
        return self._joined

    @joined.setter
    def joined(self, joined: bool) -> None:
        self._joined = joined
        self.follow()

    def follow(self) -> None:
        """Bring the second view to where the first one is."""
        self._copy(self._left_of(), self._right)

    @contextmanager
    def still(self) -> Iterator[None]:
        """Keep what either view does from the other."""
        before, self._moving = self._moving, True
        try:
            yield
        finally:
            self._moving = before

    def _on_left_moved(self, _event: Any) -> None:
        self._copy(self._left_of(), self._right)

    def _on_right_moved(self, _event: Any) -> None:
        self._copy(self._right, self._left_of())

    def _copy(self, source: Any, target: Any) -> None:
        if source is None or target is None or self._moving or not self._joined:
            return
        with self.still():
            set_orientation(target, orientation_of(source))
            target.scene.camera.zoom = source.scene.camera.zoom
            look_at_world(target, center_of_world(source))

    # --- pointer ---

    def _on_left_pointer(self, _viewer: Any, event: Any) -> None:
        self.pointed.emit("left", np.asarray(event.position[-2:], float))

    def _on_right_pointer(self, _viewer: Any, event: Any) -> None:
        self.pointed.emit("right", np.asarray(event.position[-2:], float))

    # napari looks whether these are generator functions, so each is one.
    def _on_left_press(self, _viewer: Any, event: Any) -> Iterator[None]:
        yield from self._press("left", event)

    def _on_right_press(self, _viewer: Any, event: Any) -> Iterator[None]:
        yield from self._press("right", event)

    def _press(self, side: Side, event: Any) -> Iterator[None]:
        position, at_px = np.asarray(event.position[-2:], float), np.asarray(event.pos)
        yield
        dragged = False
        while event.type == "mouse_move":
            dragged |= bool(np.abs(np.asarray(event.pos) - at_px).max() > STEADY_PX)
            yield
        if not dragged:
            self.clicked.emit(side, position)
