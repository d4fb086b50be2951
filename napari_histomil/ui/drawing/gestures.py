"""A hand's way over the slide -> a shape: small state machines, without a window.

Each is told of `press`, `move`, `release`, `double` and `enter`, and answers with a `Drawn` when
the shape is finished; until then `path` is what a preview shows. `back` takes the last vertex
back, and says whether there was one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from shapely.geometry import LineString
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations import drawing
from napari_histomil.annotations.model import Extra
from napari_histomil.errors import AnnotationError
from napari_histomil.ui.drawing.pointer import XY, Pointer

CLOSE_PX = 8.0
"""A click so near to the first vertex closes a polygon."""

DRAG_PX = 5.0
"""A press that moves by more than this is a drag, not a click."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A finished shape."""

    shape: BaseGeometry
    extra: Extra = field(default_factory=Extra)


class Gesture:
    """What all gestures have in common: nothing happens."""

    closed = False
    """Whether the preview's path is closed."""

    def __init__(self) -> None:
        self.path: list[XY] = []

    @property
    def busy(self) -> bool:
        """Whether a shape is begun and not finished."""
        return bool(self.path)

    def press(self, at: Pointer) -> Drawn | None:
        """Take the button, or the pen, going down."""

    def move(self, at: Pointer, *, down: bool) -> Drawn | None:
        """Take the pointer moving."""

    def release(self, at: Pointer) -> Drawn | None:
        """Take the button going up."""

    def double(self, at: Pointer) -> Drawn | None:
        """Take the second press of a double click, instead of `press`."""
        return self.press(at)

    def enter(self) -> Drawn | None:
        """Finish, if it can be finished; the person says so."""

    def back(self) -> bool:
        """Take the last vertex back; a gesture without vertices is given up."""
        was_busy = self.busy
        self.cancel()
        return was_busy

    def cancel(self) -> None:
        """Begin anew."""
        self.path = []


class Clicks(Gesture):
    """Vertices by clicks: a polygon, or a line of several pieces.

    A double click, Enter, or for a polygon a click on the first vertex, finishes. A line may also
    be drawn by one drag.
    """

    def __init__(self, *, closed: bool) -> None:
        super().__init__()
        self.closed = closed
        self._vertices: list[XY] = []
        self._pressed: XY | None = None

    @property
    def vertices(self) -> int:
        """How many are set."""
        return len(self._vertices)

    def press(self, at: Pointer) -> Drawn | None:
        """Take the button, or the pen, going down."""
        if self.closed and len(self._vertices) > 2 and at.near(self._vertices[0], CLOSE_PX):
            return self.enter()
        self._vertices.append(at.xy_px0)
        self._pressed = at.xy_px0
        self.path = [*self._vertices, at.xy_px0]
        return None

    def move(self, at: Pointer, *, down: bool) -> Drawn | None:
        """Take the pointer moving."""
        if self._vertices:
            self.path = [*self._vertices, at.xy_px0]
        return None

    def release(self, at: Pointer) -> Drawn | None:
        """Take the button going up."""
        pressed, self._pressed = self._pressed, None
        if pressed is not None and not at.near(pressed, DRAG_PX):
            self._vertices.append(at.xy_px0)
            if not self.closed and len(self._vertices) == 2:
                return self.enter()
        return None

    def double(self, at: Pointer) -> Drawn | None:
        """Take the second press of a double click, instead of `press`."""
        # Its first click has set the last vertex.
        return self.enter()

    def enter(self) -> Drawn | None:
        """Finish what is begun."""
        vertices = [
            xy for n, xy in enumerate(self._vertices) if n == 0 or xy != self._vertices[n - 1]
        ]
        if len(vertices) < (3 if self.closed else 2):
            return None
        self.cancel()
        if self.closed:
            return Drawn(drawing.freehand(vertices, 0.0))
        return Drawn(drawing.freehand_line(vertices, 0.0))

    def back(self) -> bool:
        """Take the last vertex back; whether there was something."""
        if not self._vertices:
            return False
        hover = self.path[-1]
        self._vertices.pop()
        self.path = [*self._vertices, hover] if self._vertices else []
        return True

    def cancel(self) -> None:
        """Begin anew."""
        super().cancel()
        self._vertices, self._pressed = [], None


class Freehand(Gesture):
    """The outline follows the pointer while the button is down."""

    closed = True

    def press(self, at: Pointer) -> Drawn | None:
        """Take the button, or the pen, going down."""
        self.path = [at.xy_px0]
        return None

    def move(self, at: Pointer, *, down: bool) -> Drawn | None:
        """Take the pointer moving."""
        if down and self.path and at.xy_px0 != self.path[-1]:
            self.path.append(at.xy_px0)
        return None

    def release(self, at: Pointer) -> Drawn | None:
        """Take the button going up."""
        path, self.path = self.path, []
        if all(at.near(xy, DRAG_PX) for xy in path):
            return None  # a click
        return Drawn(drawing.freehand(path, at.px0_per_pixel))


class Box(Gesture):
    """A rectangle, or the ellipse in it, from corner to corner."""

    closed = True

    def __init__(self, *, is_ellipse: bool) -> None:
        super().__init__()
        self._is_ellipse = is_ellipse
        self._from: XY | None = None
        self._to: XY | None = None

    def press(self, at: Pointer) -> Drawn | None:
        """Take the button, or the pen, going down."""
        self._from = self._to = at.xy_px0
        return None

    def move(self, at: Pointer, *, down: bool) -> Drawn | None:
        """Take the pointer moving."""
        if down and self._from is not None:
            self._to = at.xy_px0
            try:
                outline = self._shape()
            except AnnotationError:  # of no width yet
                return None
            self.path = [(x, y) for x, y in outline.exterior.coords[:-1]]
        return None

    def release(self, at: Pointer) -> Drawn | None:
        """Take the button going up."""
        began = self._from
        if began is None or at.near(began, DRAG_PX):
            self.cancel()
            return None
        self._to = at.xy_px0
        shape = self._shape()
        self.cancel()
        return Drawn(shape, drawing.ELLIPSE if self._is_ellipse else Extra())

    def cancel(self) -> None:
        """Begin anew."""
        super().cancel()
        self._from = self._to = None

    def _shape(self) -> BaseGeometry:
        assert self._from is not None
        assert self._to is not None
        make = drawing.ellipse if self._is_ellipse else drawing.rectangle
        return make(self._from, self._to)


class Points(Gesture):
    """Each click is a point."""

    def press(self, at: Pointer) -> Drawn | None:
        """Take the button, or the pen, going down."""
        return Drawn(drawing.points([at.xy_px0]))


class Stroke(Gesture):
    """What a round brush covers while the button is down.

    Parameters
    ----------
    radius_px0
        Returns half the width of the brush as it is now.
    """

    def __init__(self, radius_px0: Callable[[], float]) -> None:
        super().__init__()
        self._radius_px0 = radius_px0
        self.width_px0 = 0.0
        """Of the stroke that is being drawn."""

    def press(self, at: Pointer) -> Drawn | None:
        """Take the button, or the pen, going down."""
        self.path = [at.xy_px0]
        self.width_px0 = 2 * self._radius_px0()
        return None

    def move(self, at: Pointer, *, down: bool) -> Drawn | None:
        """Take the pointer moving."""
        if down and self.path and not at.near(self.path[-1], 0.5):
            self.path.append(at.xy_px0)
        return None

    def release(self, at: Pointer) -> Drawn | None:
        """Take the button going up."""
        path, self.path = self.path, []
        return Drawn(drawing.stroke(path, self.width_px0 / 2)) if path else None


class Straight(Gesture):
    """A straight line by one drag: the ruler."""

    def press(self, at: Pointer) -> Drawn | None:
        """Take the button, or the pen, going down."""
        self.path = [at.xy_px0]
        return None

    def move(self, at: Pointer, *, down: bool) -> Drawn | None:
        """Take the pointer moving."""
        if down and self.path:
            self.path = [self.path[0], at.xy_px0]
        return None

    def release(self, at: Pointer) -> Drawn | None:
        """Take the button going up."""
        path, self.path = [*self.path[:1], at.xy_px0], []
        if at.near(path[0], DRAG_PX / 2):
            return None
        return Drawn(LineString(path))
