"""Mouse, pen and keys of napari's canvas -> the tool in the hand.

Qt's events are taken before napari sees them, so a tool works whatever layer is active and napari
draws nothing of its own meanwhile. A pen's events come as those of a mouse; of the pen itself only
its eraser is looked at. With the tool "move", and with the wheel, everything is napari's.
"""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, QObject, QPointF, Qt, QTimer
from qtpy.QtGui import QMouseEvent, QPointingDevice, QTabletEvent, QWheelEvent
from qtpy.QtWidgets import QWidget

from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.annotator import Annotator, annotator
from napari_histomil.ui.drawing.editing_tools import SelectTool, TransformTool, VertexTool
from napari_histomil.ui.drawing.keys import bind_keys
from napari_histomil.ui.drawing.overlay import Overlay, from_canvas
from napari_histomil.ui.drawing.pointer import Pointer
from napari_histomil.ui.drawing.preview import NOTHING, Preview
from napari_histomil.ui.drawing.tools import (
    BrushTool,
    Patch,
    RulerTool,
    SplitTool,
    Tool,
    WandTool,
    shape_tool,
)
from napari_histomil.ui.layers import pyramid_of, rect_in_view_px0, world_scale
from napari_histomil.ui.orientation import center_of_world, look_at_world, view_signals, world_step
from napari_histomil.ui.region_layers import RegionLayers, region_layers
from napari_histomil.ui.widgets.minimap import on_canvas
from napari_histomil.ui.widgets.panel import follow

EDGE_PX = 28
"""So near to the canvas's edge the view scrolls while something is drawn."""

SCROLL_MS, SCROLL_PX = 30, 18.0
"""Between two steps, and how far the largest goes."""

WAND_PIXELS = 400_000
"""Of the view that the wand looks at: a coarser level is taken where it has more."""

_LEFT, _MIDDLE = Qt.MouseButton.LeftButton, Qt.MouseButton.MiddleButton


class DrawingCanvas(QObject):
    """Drawing on one canvas; get it with `attach_drawing`.

    Attributes
    ----------
    tool
        The tool in the hand; None with "move".
    """

    def __init__(self, viewer: Any, canvas: QWidget) -> None:
        super().__init__(canvas)
        self._viewer = weakref.ref(getattr(viewer, "__wrapped__", viewer))
        self.state: Annotator = annotator(viewer)
        self._layers: RegionLayers = region_layers(viewer)
        self.tool: Tool | None = None
        self.panning = False
        """Whether Space is held: a drag then moves the view."""
        self._down = False
        self._pan_from: QPointF | None = None
        self._at: QPointF | None = None
        self._keys: tuple[bool, bool] = (False, False)
        self._pen_erases = False
        self._activating = False
        self._last_tool = "polygon"
        self.overlay = Overlay(viewer, canvas, self._look)
        self._scroll_timer = QTimer(self)
        self._scroll_timer.setInterval(SCROLL_MS)
        self._scroll_timer.timeout.connect(self._scroll)
        canvas.setMouseTracking(True)
        canvas.installEventFilter(self)
        canvas.window().installEventFilter(self)
        for signal in (
            *view_signals(viewer),
            viewer.canvas.events.size,
            self.state.changed,
            self.state.selection_changed,
            self.state.class_changed,
            self.state.settings_changed,
        ):
            follow(self.overlay, signal, self._update)
        follow(self.overlay, viewer.layers.selection.events.active, self._on_active_layer)
        follow(self.overlay, self.state.tool_changed, self._on_tool)
        follow(self.overlay, self.state.slide_changed, self._on_slide)
        bind_keys(viewer, self)
        self._on_tool()

    @property
    def _canvas(self) -> QWidget:
        canvas: QWidget = self.parent()
        return canvas

    @property
    def info(self) -> SlideInfo | None:
        """The facts of the slide that is drawn on."""
        slide = self.state.slide
        return None if slide is None else slide.info

    # --- the tool -----------------------------------------------------------------------------

    def _on_tool(self) -> None:
        if self.tool is not None:
            self.tool.cancel()
        self.tool = self._make(self.state.tool)
        self._down = False
        self._scroll_timer.stop()
        viewer = self._viewer()
        if self.tool is not None and viewer is not None:
            self._activating = True
            layer = self._layers.shapes_layer()
            bind_keys(viewer, self, layer)
            viewer.layers.selection.active = layer
            self._activating = False
            layer.mode = "pan_zoom"
            layer.cursor = "cross"
        elif self._layers.shapes is not None:
            self._layers.shapes.cursor = "standard"
        self.overlay.setVisible(self.tool is not None)
        self._update()

    def _make(self, name: str) -> Tool | None:
        state = self.state
        match name:
            case "select":
                return SelectTool(state)
            case "vertices":
                return VertexTool(state)
            case "transform":
                return TransformTool(state, self._px0_per_pixel_now)
            case "brush" | "eraser":
                return BrushTool(state, erases=name == "eraser")
            case "wand":
                return WandTool(state, self._patch)
            case "split":
                return SplitTool(state)
            case "ruler":
                return RulerTool(state)
        return shape_tool(state, name)

    def _on_slide(self) -> None:
        if self.tool is not None:
            self.tool.cancel()
        self._down = False
        self._update()

    def _on_active_layer(self, event: Any) -> None:
        """Put the tool down when the person turns to another layer: it has tools of its own."""
        ours = (self._layers.shapes, self._layers.picture)
        if not self._activating and event.value is not None and event.value not in ours:
            self.state.set_tool("move")

    def _patch(self) -> Patch | None:
        """Return the pixels in view, of a level that has not too many."""
        viewer, slide = self._viewer(), self.state.slide
        if viewer is None or slide is None:
            return None
        rect = rect_in_view_px0(viewer, slide.info)
        if rect is None:
            return None
        levels = pyramid_of(slide.layer)
        pixel = self._px0_per_pixel(slide.info)
        least = max(pixel, math.sqrt(rect.width_px0 * rect.height_px0 / WAND_PIXELS))
        k = min(max(math.ceil(math.log2(max(least, 1))), 0), levels.count - 1)
        size = 2**k
        x, y = int(rect.x_px0 // size), int(rect.y_px0 // size)
        width = math.ceil(rect.right_px0 / size) - x
        height = math.ceil(rect.bottom_px0 / size) - y
        rgb, _ = levels.paint(k, x, y, width, height)
        return Patch(np.asarray(rgb)[..., :3], (x * size, y * size), size)

    # --- events -------------------------------------------------------------------------------

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Give the tool what is its own; True keeps it from napari."""
        kind = event.type()
        if "state" not in vars(self):
            return False  # the window goes, and Python was quicker than Qt
        if watched is not self.parent():
            if kind == QEvent.Type.Close:
                self.state.close()
            return False
        if kind == QEvent.Type.TabletPress and isinstance(event, QTabletEvent):
            self._pen_erases = event.pointerType() == QPointingDevice.PointerType.Eraser
            return False  # Qt makes a mouse's event of it
        if kind == QEvent.Type.TabletRelease:
            return False
        if kind == QEvent.Type.Leave:
            self._at = None
            self._update()
            return False
        if isinstance(event, QMouseEvent):
            return self._on_mouse(kind, event)
        if isinstance(event, QWheelEvent):
            return self._on_wheel(event)
        return False

    def _on_mouse(self, kind: QEvent.Type, event: QMouseEvent) -> bool:
        viewer, info = self._viewer(), self.info
        if viewer is None or viewer.dims.ndisplay != 2:
            return False
        if self._pan(kind, event):
            return True
        self._at = event.position()
        if self.tool is None or info is None:
            return False
        held = event.modifiers()
        self._keys = (
            bool(held & Qt.KeyboardModifier.ShiftModifier),
            bool(held & Qt.KeyboardModifier.AltModifier) or self._pen_erases,
        )
        at = self._pointer(info)
        if kind == QEvent.Type.MouseMove:
            self.tool.move(at, down=self._down)
            self._near_edge()
            self._update()
            return self._down
        if event.button() != _LEFT:
            return False
        if kind == QEvent.Type.MouseButtonPress:
            self._canvas.setFocus()
            self._down = True
            self.tool.press(at)
        elif kind == QEvent.Type.MouseButtonDblClick:
            self._down = True
            self.tool.double(at)
        elif kind == QEvent.Type.MouseButtonRelease:
            if not self._down:
                return False
            self._down = self._pen_erases = False
            self.tool.release(at)
        else:
            return False
        self._near_edge()
        self._update()
        return True

    def _on_wheel(self, event: QWheelEvent) -> bool:
        """Make the tool larger with Ctrl; else the wheel is napari's, and zooms."""
        if self.tool is None or not event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            return False
        return self.tool.larger(event.angleDelta().y() / 120)

    def _pan(self, kind: QEvent.Type, event: QMouseEvent) -> bool:
        """Move the view by the middle button, or by any drag while Space is held."""
        viewer = self._viewer()
        if kind == QEvent.Type.MouseButtonRelease:
            was_panning, self._pan_from = self._pan_from is not None, None
            return was_panning and not self._down
        if kind == QEvent.Type.MouseButtonPress:
            if event.button() == _MIDDLE or (self.panning and self.tool is not None):
                self._pan_from = event.position()
                return True
            return False
        if kind != QEvent.Type.MouseMove:
            return False
        if self._pan_from is None and not (self.panning and self._down):
            return False
        last, here = self._pan_from or self._at, event.position()
        self._pan_from = self._at = here
        if last is not None:
            step = (here.x() - last.x(), here.y() - last.y())
            look_at_world(viewer, center_of_world(viewer) - world_step(viewer, step))
        return True

    def _pointer(self, info: SlideInfo) -> Pointer:
        assert self._at is not None
        x, y = from_canvas(self._viewer(), info, (self._at.x(), self._at.y()))
        return Pointer((float(x), float(y)), self._px0_per_pixel(info), *self._keys)

    def _px0_per_pixel_now(self) -> float:
        return 1.0 if self.info is None else self._px0_per_pixel(self.info)

    def _px0_per_pixel(self, info: SlideInfo) -> float:
        return 1 / (self._viewer().scene.camera.zoom * world_scale(info)[1])

    # --- scrolling at the edge ----------------------------------------------------------------

    def _edge_step(self) -> tuple[float, float]:
        """Return how far the view scrolls now, (x, y) in pixels of the canvas."""
        if self._at is None or self.tool is None or not (self._down or self.tool.busy):
            return 0.0, 0.0

        def along(at: float, size: float) -> float:
            into = max(EDGE_PX - at, 0) if at < size / 2 else -max(at - size + EDGE_PX, 0)
            return -SCROLL_PX * max(min(into / EDGE_PX, 1.0), -1.0)

        canvas = self._canvas
        return along(self._at.x(), canvas.width()), along(self._at.y(), canvas.height())

    def _near_edge(self) -> None:
        if any(self._edge_step()):
            if not self._scroll_timer.isActive():
                self._scroll_timer.start()
        else:
            self._scroll_timer.stop()

    def _scroll(self) -> None:
        viewer, info, step = self._viewer(), self.info, self._edge_step()
        if viewer is None or info is None or self.tool is None or not any(step):
            self._scroll_timer.stop()
            return
        look_at_world(viewer, center_of_world(viewer) + world_step(viewer, step))
        self.tool.move(self._pointer(info), down=self._down)

    # --- what keys do -------------------------------------------------------------------------

    def enter(self) -> None:
        """Finish what is being drawn."""
        if self.tool is not None:
            self.tool.enter()
        self._update()

    def escape(self) -> None:
        """Give up what is being drawn; if nothing is, nothing is selected."""
        if self.tool is not None and self.tool.busy:
            self.tool.cancel()
            self._down = False
        else:
            if self.tool is not None:
                self.tool.cancel()
            self.state.select(())
        self._update()

    def backspace(self) -> None:
        """Take the last vertex back; if nothing is being drawn, as Delete."""
        if self.tool is None or not (self.tool.busy and self.tool.back()):
            self.delete()
        self._update()

    def delete(self) -> None:
        """Delete the vertex that is held, else what is selected."""
        if self.tool is None or not self.tool.delete():
            self.state.delete_selected()
        self._update()

    def undo(self) -> None:
        """Take back the last vertex of what is being drawn, else the last step."""
        if self.tool is not None and self.tool.busy and self.tool.back():
            self._down = False
        else:
            self.state.undo()
        self._update()

    def redo(self) -> None:
        """Do the step undone last again."""
        if self.tool is None or not self.tool.busy:
            self.state.redo()
        self._update()

    def larger(self, steps: float) -> None:
        """Make the brush, or the wand's tolerance, larger or smaller."""
        if self.tool is not None:
            self.tool.larger(steps)

    def take(self, name: str) -> None:
        """Take a tool."""
        self.state.set_tool(name)

    def choose(self, key: int) -> None:
        """Draw in the class of a number key, and give it to what is selected."""
        chosen = self.state.classes.by_key(key)
        if chosen is not None:
            self.state.set_class(chosen.name, apply=True)

    def toggle(self) -> None:
        """Take the tool that was in the hand last, or put it down."""
        if self.state.tool != "move":
            self._last_tool = self.state.tool
            self.state.set_tool("move")
        else:
            self.state.set_tool(self._last_tool)

    # --- what is seen -------------------------------------------------------------------------

    def _look(self) -> tuple[Preview, SlideInfo | None, QPointF | None]:
        return (NOTHING if self.tool is None else self.tool.preview), self.info, self._at

    def _update(self, _: Any = None) -> None:
        self.overlay.update()


def attach_drawing(viewer: Any, widget: QWidget) -> DrawingCanvas | None:
    """Return drawing on the canvas of a viewer; see `on_canvas`."""
    return on_canvas(DrawingCanvas, viewer, widget)
