"""How the regions of a slide are shown: a picture of all in view, and napari's shapes of a few.

1. The picture is an RGBA image layer of the view and some of what is around it, as fine as the
   screen, painted by a thread (`region_raster.py`); the old picture stays until the new one is
   there. So a hundred thousand regions cost no more than one.
2. The selected regions, and all in view if they are few, are shapes of one Shapes layer, which is
   made once for a viewer and kept: it has our keys, and other plugins see regions in it.

What a hand does to regions goes through the `AnnotationSet` and its spatial index, never through
what napari finds under the pointer.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image, Shapes
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtCore import Signal as QtSignal

from napari_histomil.geometry import Rect
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.adopting import take_edits
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.camera import pixel_ratio_of
from napari_histomil.ui.frames import selection_kept
from napari_histomil.ui.layers import METADATA_KEY, rect_around_px0, world_scale, world_units
from napari_histomil.ui.orientation import view_signals
from napari_histomil.ui.per_viewer import PerViewer
from napari_histomil.ui.region_raster import FILL, LINE_PX, Cancelled, Frame, Sheet, paint
from napari_histomil.ui.region_shapes import MOST_SHAPES, ShapesContent, few_enough, show_in
from napari_histomil.ui.session import SlideSession

PICTURE_NAME, SHAPES_NAME = "Regions", "Annotations"

AROUND = 0.2
"""Share of the view's sides that the picture reaches beyond it, on each side."""

MOST_PIXELS = 8_000_000
"""A larger picture is painted more coarsely."""

ZOOM_TOLERANCE = 0.02
"""A view that is enlarged by no more than this needs no other picture."""

VIEW_MS = 20
"""After a move of the view the picture is looked at anew."""

SETTLED_MS = 250
"""A view that stood still for so long has its shapes."""

_workers = ThreadPoolExecutor(1, "regions")


class _Bell(QObject):
    """Carries pictures from the painting thread to the GUI thread."""

    painted = QtSignal(object)


@dataclass(frozen=True, eq=False)
class _Picture:
    slide: SlideSession
    frame: Frame
    pixels: NDArray[np.uint8]
    wanted: int
    sheet: Sheet


class RegionLayers:
    """The layers that show the regions of one viewer's active slide; get it with `region_layers`.

    Attributes
    ----------
    picture, shapes
        The layers; None until there is something to show or to draw.
    """

    painted = Signal()
    """The picture of what is in view is there."""
    seen_changed = Signal()
    """A layer's eye was opened or closed."""

    def __init__(self, viewer: Any) -> None:
        self._viewer = weakref.ref(viewer)
        self._annotator = annotator(viewer)
        self.picture: Image | None = None
        self.shapes: Shapes | None = None
        self._fill, self._line_px = FILL, LINE_PX
        self._slide: SlideSession | None = None
        self._frame: Frame | None = None
        self._sheet: Sheet | None = None
        self._content = ShapesContent()
        self._rows: list[NDArray[np.float64]] = []
        self._wanted = 0
        self._shown = 0
        self._bell = _Bell()
        self._bell.painted.connect(self._on_painted, Qt.ConnectionType.QueuedConnection)
        self._view_timer = self._timer(VIEW_MS, self._follow_view)
        self._settled_timer = self._timer(SETTLED_MS, self._show_shapes)
        for signal in (*view_signals(viewer), viewer.canvas.events.size):
            signal.connect(self._on_view)
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        state = self._annotator
        state.changed.connect(self._on_change)
        state.class_changed.connect(self._on_change)
        state.selection_changed.connect(self._on_selection)
        state.slide_changed.connect(self._on_slide)
        self._on_slide()

    def _timer(self, interval_ms: int, call: Callable[[], None]) -> QTimer:
        timer = QTimer(self._bell)
        timer.setSingleShot(True)
        timer.setInterval(interval_ms)
        timer.timeout.connect(call)
        return timer

    # --- how it looks -------------------------------------------------------------------------

    @property
    def fill(self) -> float:
        """Opacity of the fills, 0 to 1."""
        return self._fill

    @fill.setter
    def fill(self, opacity: float) -> None:
        self._fill = min(max(opacity, 0.0), 1.0)
        self._paint()

    @property
    def line_px(self) -> float:
        """Width of outlines in pixels of the screen."""
        return self._line_px

    @line_px.setter
    def line_px(self, width: float) -> None:
        self._line_px = min(max(width, 0.5), 10.0)
        self._paint()

    @property
    def seen(self) -> bool:
        """Whether regions are seen: not all of the layers were hidden by their eyes."""
        layers = [layer for layer in (self.picture, self.shapes) if layer is not None]
        return not layers or any(layer.visible for layer in layers)

    @property
    def complete(self) -> bool:
        """Whether all that was done is in the picture, and the view in its frame."""
        return (
            self._shown == self._wanted
            and not self._view_timer.isActive()
            and not self._settled_timer.isActive()
        )

    # --- when it changes ----------------------------------------------------------------------

    def _on_slide(self) -> None:
        self._slide = self._annotator.slide
        self._frame = None
        if self.shapes is not None and self._slide is not None:
            self.shapes.units = world_units(self._slide.info)
            self.shapes.scale = world_scale(self._slide.info)
        if self.picture is not None:
            self.picture.visible = self._slide is not None
        self._on_change()

    def _on_change(self) -> None:
        self._sheet = None
        self._paint()
        self._settled_timer.start()

    def _on_selection(self) -> None:
        self._paint()
        self._settled_timer.start()

    def _on_view(self, _: Any = None) -> None:
        if self._slide is not None and (self.picture is not None or self._has_regions()):
            self._view_timer.start()
            self._settled_timer.start()

    def _follow_view(self) -> None:
        """Have another picture painted where the view has left the one that is shown."""
        if self._slide is None or self._viewer() is None:
            return
        view = rect_around_px0(self._viewer(), self._slide.info, 0.0)
        if self._frame is None or not _covers(self._frame, view, self._pixel_px0()):
            self._paint()

    def _has_regions(self) -> bool:
        regions = self._annotator.regions
        return regions is not None and len(regions) > 0

    def _pixel_px0(self) -> tuple[float, float]:
        """Return the level-0 pixels along (x, y) that a physical pixel of the screen shows."""
        viewer, slide = self._viewer(), self._slide
        assert slide is not None
        row, column = world_scale(slide.info)
        pixel = 1 / (viewer.scene.camera.zoom * pixel_ratio_of(viewer))
        return pixel / column, pixel / row

    # --- the picture --------------------------------------------------------------------------

    def _paint(self) -> None:
        """Have what is in view painted as it is now."""
        viewer, slide, state = self._viewer(), self._slide, self._annotator
        self._wanted += 1
        if viewer is None or slide is None or (self.picture is None and not self._has_regions()):
            self._shown = self._wanted
            return
        frame = self._frame_now(viewer, slide.info)
        regions = list(state.regions or ()) if self._sheet is None else []
        sheet, hidden, selected = self._sheet, state.hidden, state.selected
        fill, line_px, wanted = self._fill, self._line_px, self._wanted
        held, bell = weakref.ref(self), self._bell

        def turn() -> None:
            alive = held()
            if alive is None or alive._wanted != wanted:
                raise Cancelled

        def work() -> _Picture | None:
            try:
                turn()
                made = Sheet.of(regions, hidden) if sheet is None else sheet
                pixels = paint(made, frame, selected, fill=fill, line_px=line_px, turn=turn)
            except Cancelled:
                return None
            return _Picture(slide, frame, pixels, wanted, made)

        def done(future: Future[_Picture | None]) -> None:
            picture = future.result()
            if picture is not None:
                bell.painted.emit(picture)

        _workers.submit(work).add_done_callback(done)

    def _frame_now(self, viewer: Any, info: SlideInfo) -> Frame:
        rect = rect_around_px0(viewer, info, AROUND)
        sx, sy = self._pixel_px0()
        coarser = (rect.width_px0 * rect.height_px0 / (sx * sy) / MOST_PIXELS) ** 0.5
        sx, sy = sx * max(coarser, 1), sy * max(coarser, 1)
        size = max(round(rect.width_px0 / sx), 1), max(round(rect.height_px0 / sy), 1)
        # On a grid of the slide: pixels stay where they are when the view is moved a little.
        x, y = round(rect.x_px0 / sx) * sx, round(rect.y_px0 / sy) * sy
        return Frame(x, y, (sx, sy), size)

    def _on_painted(self, picture: _Picture) -> None:
        viewer = self._viewer()
        if viewer is None or picture.slide is not self._slide or picture.wanted != self._wanted:
            return
        self._sheet = picture.sheet
        self._frame = picture.frame
        self._shown = picture.wanted
        layer = self._picture_layer(viewer)
        scale, translate = _place_of(picture.frame, picture.slide.info)
        if layer.data.shape == picture.pixels.shape:
            layer.data[...] = picture.pixels  # the layer's own: napari would scan a new one
        else:
            layer.data = picture.pixels
        affine = _affine(scale, translate)
        if not np.array_equal(layer.affine.affine_matrix[-3:, -3:], affine):
            # Scale and translate one after the other would be sliced twice; this refreshes too.
            layer.affine = affine
        else:
            layer.refresh(thumbnail=False, extent=False, highlight=False)
        self.painted.emit()

    def _picture_layer(self, viewer: Any) -> Image:
        if self.picture is None:
            assert self._slide is not None
            self.picture = Image(
                np.zeros((8, 8, 4), np.uint8),
                name=PICTURE_NAME,
                rgb=True,
                blending="translucent",
                interpolation2d="nearest",  # its pixels are those of the screen, and it is quicker
                units=world_units(self._slide.info),
                axis_labels=("y", "x"),
                metadata={METADATA_KEY: {"kind": "regions"}},
            )
            self._append(viewer, self.picture)
        return self.picture

    # --- the shapes ---------------------------------------------------------------------------

    def shapes_layer(self) -> Shapes:
        """Return the Shapes layer, made now if there is none."""
        viewer = self._viewer()
        if self.shapes is None:
            info = None if self._slide is None else self._slide.info
            self.shapes = Shapes(
                ndim=2,
                name=SHAPES_NAME,
                metadata={METADATA_KEY: {"kind": "annotations"}},
                axis_labels=("y", "x"),
                units=("pixel", "pixel") if info is None else world_units(info),
                scale=(1, 1) if info is None else world_scale(info),
            )
            self.shapes.events.data.connect(self._on_edited)
            self._append(viewer, self.shapes)
            self._settled_timer.start()
        return self.shapes

    def _show_shapes(self) -> None:
        """Show the selected regions as shapes, and all in view if they are few."""
        viewer, regions = self._viewer(), self._annotator.regions
        if self.shapes is None or self._slide is None or viewer is None or regions is None:
            return
        chosen = self._annotator.pick() if len(self._annotator.selected) <= MOST_SHAPES else []
        rect = rect_around_px0(viewer, self._slide.info, 0.0)
        if len(regions) <= MOST_SHAPES or self._few_in(rect):
            hidden = self._annotator.hidden
            seen = [each for each in regions.within(rect) if each.class_name not in hidden]
            if few_enough(seen):
                chosen = seen
        if not few_enough(chosen):
            chosen = []
        pixel = 2.0 ** round(math.log2(self._pixel_px0()[0]))
        content = ShapesContent(tuple(chosen), pixel)
        if not content.same_as(self._content):
            self._content = content
            self._rows = show_in(self.shapes, content)

    def _on_edited(self, event: Any) -> None:
        """Do what the person changed with napari's buttons; what is refused is shown as it was."""
        if getattr(event, "action", "") not in ("added", "changed", "removed"):
            return
        content, rows = self._content, self._rows
        self._content = ShapesContent()  # shown anew in any case
        if self.shapes is not None:
            take_edits(self._annotator, self.shapes, content.regions, rows)
        self._settled_timer.start()

    def _few_in(self, rect: Rect) -> bool:
        """Whether few regions are in a rectangle; asks no region, of which there may be many."""
        if self._sheet is None:
            return False
        left, top, right, bottom = self._sheet.bounds.T
        seen = (right >= rect.x_px0) & (left <= rect.right_px0)
        seen &= (bottom >= rect.y_px0) & (top <= rect.bottom_px0)
        return int(seen.sum()) <= MOST_SHAPES

    # --- the layer list -----------------------------------------------------------------------

    def _append(self, viewer: Any, layer: Any) -> None:
        layer.events.visible.connect(self._on_eye)
        with selection_kept(viewer.layers):
            if layer is self.picture and self.shapes in viewer.layers:
                viewer.layers.insert(viewer.layers.index(self.shapes), layer)
            else:
                viewer.layers.append(layer)

    def _on_inserted(self, event: Any) -> None:
        """Stay on top of slides that are opened later."""
        viewer, own = self._viewer(), [self.picture, self.shapes]
        if viewer is None or event.value in own:
            return
        for layer in own:
            if layer is not None and layer in viewer.layers:
                at, top = viewer.layers.index(layer), len(viewer.layers)
                if at < top - 1 and event.index > at:
                    viewer.layers.move(at, top)

    def _on_eye(self, _: Any = None) -> None:
        self.seen_changed.emit()

    def _on_removed(self, event: Any) -> None:
        """Make a new one when it is needed: the person took it away."""
        if event.value is self.picture:
            self.picture, self._frame = None, None
        elif event.value is self.shapes:
            self.shapes, self._content = None, ShapesContent()


def _covers(frame: Frame, view: Rect, pixel_px0: tuple[float, float]) -> bool:
    sx, sy = frame.px0_per_pixel
    width, height = frame.size
    finer = sx / pixel_px0[0]
    largest = max(1.0, (width * height / MOST_PIXELS) ** 0.5) * (1 + ZOOM_TOLERANCE)
    return (
        1 / (1 + ZOOM_TOLERANCE) <= finer <= largest
        and frame.x_px0 <= view.x_px0
        and frame.y_px0 <= view.y_px0
        and frame.x_px0 + width * sx >= view.right_px0
        and frame.y_px0 + height * sy >= view.bottom_px0
    )


def _place_of(frame: Frame, info: SlideInfo) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scale and translate (row, col) of a picture's layer."""
    unit = np.array(world_scale(info))
    scale = np.array(frame.px0_per_pixel[::-1]) * unit
    return scale, np.array([frame.y_px0, frame.x_px0]) * unit + scale / 2


def _affine(scale: NDArray[np.float64], translate: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.diag([*scale, 1.0])
    matrix[:2, 2] = translate
    return matrix


_LAYERS = PerViewer(RegionLayers)


def region_layers(viewer: Any) -> RegionLayers:
    """Return what shows the regions in a viewer, begun at the first call.

    Parameters
    ----------
    viewer
        A napari viewer, a ``ViewerModel``, or the proxy of one that napari gives to plugins.
    """
    return _LAYERS.of(viewer)


def found_region_layers(viewer: Any) -> RegionLayers | None:
    """Return what shows the regions in a viewer; None where none were ever shown."""
    return _LAYERS.found(viewer)
