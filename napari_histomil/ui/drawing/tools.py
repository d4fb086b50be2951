"""What each drawing tool does with the hand: a gesture, what is seen of it, the step at its end.

Tools that change what is there already are in `editing_tools.py`. No tool knows Qt.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Point
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations import drawing, measure
from napari_histomil.annotations.model import UNCLASSIFIED_COLOR
from napari_histomil.errors import AnnotationError
from napari_histomil.ui.annotator import BRUSH_STEP, Annotator, Mode
from napari_histomil.ui.drawing.finishing import finish, split_selected
from napari_histomil.ui.drawing.gestures import (
    Box,
    Clicks,
    Drawn,
    Freehand,
    Gesture,
    Points,
    Straight,
    Stroke,
)
from napari_histomil.ui.drawing.pointer import XY, Pointer
from napari_histomil.ui.drawing.preview import NOTHING, RGB, Path, Preview

SUBTRACT_COLOUR: RGB = (255, 80, 80)
ADD_COLOUR: RGB = (60, 220, 90)

PX_PER_DOUBLE = 60.0
"""Dragging the wand by so many pixels of the screen doubles its tolerance."""


class Tool:
    """A tool in the hand.

    Parameters
    ----------
    state
        What it works on.
    """

    def __init__(self, state: Annotator) -> None:
        self.state = state
        self.pointer: Pointer | None = None
        """Where the hand was last; None off the canvas."""

    @property
    def busy(self) -> bool:
        """Whether something is begun and not finished."""
        return False

    def press(self, at: Pointer) -> None:
        """Take the button, or the pen, going down."""

    def move(self, at: Pointer, *, down: bool) -> None:
        """Take the pointer moving."""

    def release(self, at: Pointer) -> None:
        """Take the button going up."""

    def double(self, at: Pointer) -> None:
        """Take the second press of a double click."""
        self.press(at)

    def enter(self) -> bool:
        """Finish what is begun; whether there was something."""
        return False

    def back(self) -> bool:
        """Take the last vertex back, or give up what is begun; whether there was something."""
        was_busy = self.busy
        self.cancel()
        return was_busy

    def delete(self) -> bool:
        """Delete what is held; whether there was something."""
        return False

    def cancel(self) -> None:
        """Give up what is begun."""

    def larger(self, steps: float) -> bool:
        """Make the tool larger (or smaller, below 0); whether it has a size."""
        return False

    @property
    def preview(self) -> Preview:
        """What is seen of it."""
        return NOTHING


class ShapeTool(Tool):
    """Draws shapes by a gesture."""

    def __init__(self, state: Annotator, name: str, gesture: Gesture) -> None:
        super().__init__(state)
        self.name, self.gesture = name, gesture
        self.mode: Mode = "new"

    @property
    def busy(self) -> bool:
        """Whether something is begun and not finished."""
        return self.gesture.busy

    def press(self, at: Pointer) -> None:
        """Take the button, or the pen, going down."""
        self._begin(at)
        self._take(lambda: self.gesture.press(at))

    def move(self, at: Pointer, *, down: bool) -> None:
        """Take the pointer moving."""
        self._take(lambda: self.gesture.move(at, down=down))

    def release(self, at: Pointer) -> None:
        """Take the button going up."""
        self._take(lambda: self.gesture.release(at))

    def double(self, at: Pointer) -> None:
        """Take the second press of a double click, instead of `press`."""
        self._begin(at)
        self._take(lambda: self.gesture.double(at))

    def enter(self) -> bool:
        """Finish what is begun."""
        was_busy = self.busy
        self._take(self.gesture.enter)
        return was_busy

    def back(self) -> bool:
        """Take the last vertex back; whether there was something."""
        return self.gesture.back()

    def cancel(self) -> None:
        """Begin anew."""
        self.gesture.cancel()

    def _begin(self, at: Pointer) -> None:
        """Take the mode with the first press: modifiers may be let go of while drawing."""
        if not self.gesture.busy:
            self.mode = at.mode(self.state.mode)

    def _take(self, act: Callable[[], Drawn | None]) -> None:
        try:
            drawn = act()
        except AnnotationError as error:  # it goes round nothing, or has no length
            self.gesture.cancel()
            self.state.tell(str(error))
            return
        if drawn is not None:
            self.finish(drawn)

    def finish(self, drawn: Drawn) -> None:
        """Make a step of a finished shape."""
        finish(self.state, drawn, self.mode, self.name)

    @property
    def color(self) -> RGB:
        """Of the preview."""
        return colour_of(self.state, self.mode if self.busy else self.state.mode)

    @property
    def preview(self) -> Preview:
        """What is seen of it."""
        path = self.gesture.path
        if not path:
            return NOTHING
        xy = np.array(path)
        outline = Path(xy, self.gesture.closed, color=self.color, filled=self.gesture.closed)
        marks = xy[:-1] if isinstance(self.gesture, Clicks) else xy[:0]
        return Preview((outline,), handles=marks)


class BrushTool(ShapeTool):
    """Brush and eraser: a stroke extends the selected region, makes one, or takes away."""

    def __init__(self, state: Annotator, *, erases: bool) -> None:
        name = "eraser" if erases else "brush"
        super().__init__(state, name, Stroke(lambda: brush_px0(state) / 2))
        self._erases = erases

    def _begin(self, at: Pointer) -> None:
        mode = at.mode(self.state.mode)
        if self._erases:  # and back: the eraser adds while Alt is held
            mode = "add" if at.subtract else "subtract"
        elif mode == "new" and self._begins_inside(at):
            mode = "add"
        self.mode = mode

    def _begins_inside(self, at: Pointer) -> bool:
        """Whether a stroke begins on the selected region of the class one draws in."""
        active = self.state.active_class
        reach, point = brush_px0(self.state) / 2, Point(at.xy_px0)
        return any(
            region.is_areal
            and (active is None or region.class_name == active.name)
            and shapely.dwithin(region.geometry, point, reach)
            for region in self.state.pick()
        )

    def larger(self, steps: float) -> bool:
        """Change the size; see `Tool.larger`."""
        self.state.brush_um *= BRUSH_STEP**steps
        return True

    @property
    def color(self) -> RGB:
        """Of the preview."""
        if self.busy:
            return colour_of(self.state, self.mode)
        return SUBTRACT_COLOUR if self._erases else colour_of(self.state, self.state.mode)

    @property
    def preview(self) -> Preview:
        """What is seen of it."""
        paths = ()
        if self.gesture.path:
            width = self.gesture.width_px0 if isinstance(self.gesture, Stroke) else 0.0
            paths = (Path(np.array(self.gesture.path), width_px0=width, color=self.color),)
        return Preview(paths, brush_px0=brush_px0(self.state), brush_color=self.color)


@dataclass(frozen=True, eq=False)
class Patch:
    """The pixels in view."""

    rgb: NDArray[np.uint8]
    origin_px0: XY
    px0_per_pixel: float


class WandTool(ShapeTool):
    """Grows over similar colour in the view; a drag makes it more tolerant.

    Parameters
    ----------
    look
        Returns the pixels in view; None where there are none.
    """

    def __init__(self, state: Annotator, look: Callable[[], Patch | None]) -> None:
        super().__init__(state, "wand", Gesture())
        self._look = look
        self._patch: Patch | None = None
        self._seed: Pointer | None = None
        self._area: BaseGeometry | None = None
        self._took_s = self._grown_s = 0.0

    @property
    def busy(self) -> bool:
        """Whether something is begun and not finished."""
        return self._seed is not None

    def press(self, at: Pointer) -> None:
        """Take the button, or the pen, going down."""
        if self._seed is not None:
            return
        self.mode = at.mode(self.state.mode)
        self._patch, self._seed = self._look(), at
        self._grow(at)

    def move(self, at: Pointer, *, down: bool) -> None:
        """Take the pointer moving."""
        # As often as it is quick: the hand must not wait for it.
        if down and time.perf_counter() - self._grown_s > self._took_s:
            self._grow(at)

    def release(self, at: Pointer) -> None:
        """Take the button going up."""
        self._grow(at)
        area = self._area
        self.cancel()
        if area is not None:
            self.finish(Drawn(area))

    def cancel(self) -> None:
        """Begin anew."""
        self._patch = self._seed = self._area = None

    def larger(self, steps: float) -> bool:
        """Change the size; see `Tool.larger`."""
        self.state.wand_tolerance *= BRUSH_STEP**steps
        return True

    def tolerance(self, at: Pointer) -> float:
        """Return how tolerant it is with the hand at a place."""
        if self._seed is None:
            return self.state.wand_tolerance
        (x0, y0), (x, y) = self._seed.xy_px0, at.xy_px0
        dragged = math.hypot(x - x0, y - y0) / at.px0_per_pixel
        return self.state.wand_tolerance * 2 ** (max(dragged - 4, 0) / PX_PER_DOUBLE)

    def _grow(self, at: Pointer) -> None:
        patch, seed = self._patch, self._seed
        if patch is None or seed is None:
            return
        began = time.perf_counter()
        (x, y), (left, top) = seed.xy_px0, patch.origin_px0
        where = ((x - left) / patch.px0_per_pixel, (y - top) / patch.px0_per_pixel)
        try:
            self._area = drawing.wand(
                patch.rgb,
                where,
                self.tolerance(at),
                origin_px0=patch.origin_px0,
                px0_per_pixel=patch.px0_per_pixel,
            )
        except AnnotationError as error:  # begun beside the slide
            self.cancel()
            self.state.tell(str(error))
        self._grown_s = time.perf_counter()
        self._took_s = self._grown_s - began

    @property
    def preview(self) -> Preview:
        """What is seen of it."""
        if self._area is None:
            return NOTHING
        rings = [
            ring
            for part in shapely.get_parts(self._area)
            for ring in (part.exterior, *part.interiors)
        ]
        paths = [Path(shapely.get_coordinates(ring), color=self.color) for ring in rings[:200]]
        return Preview(tuple(paths))


class SplitTool(ShapeTool):
    """Cuts the selected regions by a line."""

    def __init__(self, state: Annotator) -> None:
        super().__init__(state, "split", Clicks(closed=False))

    def finish(self, drawn: Drawn) -> None:
        """Use the line."""
        split_selected(self.state, drawn.shape)


class RulerTool(ShapeTool):
    """Measures a distance, which stays on the canvas until the next one."""

    def __init__(self, state: Annotator) -> None:
        super().__init__(state, "ruler", Straight())
        self._measured: tuple[XY, XY] | None = None

    def press(self, at: Pointer) -> None:
        """Take the button, or the pen, going down."""
        self._measured = None
        super().press(at)

    def finish(self, drawn: Drawn) -> None:
        """Use the line."""
        first, last = shapely.get_coordinates(drawn.shape).tolist()
        self._measured = (tuple(first), tuple(last))

    def cancel(self) -> None:
        """Begin anew."""
        super().cancel()
        self._measured = None

    def back(self) -> bool:
        """Take the last vertex back; whether there was something."""
        was_there = self._measured is not None or self.busy
        self.cancel()
        return was_there

    @property
    def preview(self) -> Preview:
        """What is seen of it."""
        path = list(self._measured or self.gesture.path)
        if len(path) < 2:
            return NOTHING
        xy = np.array(path)
        return Preview(
            (Path(xy, color=(255, 230, 0)),), xy, text=self.text(path), text_at=path[-1]
        )

    def text(self, path: list[XY]) -> str:
        """Return the length of a path in words."""
        info = None if self.state.slide is None else self.state.slide.info
        line = shapely.linestrings(path)
        if info is None or info.mpp_x is None:
            return f"{line.length:,.0f} px"
        length = measure.length_um(line, info.mpp_xy)
        return f"{length / 1000:.2f} mm" if length >= 1000 else f"{length:.1f} µm"


def colour_of(state: Annotator, mode: Mode) -> RGB:
    """Return the colour of a preview: that of the class, or what is done to another region."""
    if mode == "subtract":
        return SUBTRACT_COLOUR
    if mode == "add":
        return ADD_COLOUR
    return UNCLASSIFIED_COLOR if state.active_class is None else state.active_class.color


def brush_px0(state: Annotator) -> float:
    """Return the width of the brush in level-0 pixels."""
    info = None if state.slide is None else state.slide.info
    return state.brush_um / (info.mpp_x if info is not None and info.mpp_x else 1.0)


def shape_tool(state: Annotator, name: str) -> ShapeTool | None:
    """Return the tool of that name that draws by a plain gesture; None for others."""
    gestures: dict[str, Callable[[], Gesture]] = {
        "polygon": lambda: Clicks(closed=True),
        "freehand": Freehand,
        "rectangle": lambda: Box(is_ellipse=False),
        "ellipse": lambda: Box(is_ellipse=True),
        "line": lambda: Clicks(closed=False),
        "points": Points,
    }
    return ShapeTool(state, name, gestures[name]()) if name in gestures else None
