"""Keeps a segmentation's layer painted as the view moves, its style changes and more is computed.

The cycle:

1. something changed: a moment later the frame for the view is worked out, on the GUI thread;
2. a thread reads the frame's pixels from the run's pyramid, unless it has them, and paints them
   (`segmentation_picture.py`); what was asked for before is dropped;
3. the GUI thread puts the picture into the layer and lays it where it belongs. The old one stays
   until then;
4. the thread counts rough areas and paints the small picture, for the dock and the minimap.

A run that goes on does not stop a picture half-way: it is painted again when it is there.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtCore import Signal as QtSignal
from qtpy.QtWidgets import QApplication

from napari_histomil.geometry import Rect
from napari_histomil.results import SegmentationStore
from napari_histomil.results.segmentation import Stored, from_stored
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.camera import pixel_ratio_of
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.draw_order import widget_of
from napari_histomil.ui.layers import picture_affine, rect_around_px0, world_scale
from napari_histomil.ui.orientation import view_signals
from napari_histomil.ui.segmentation_picture import (
    AROUND,
    Cancelled,
    Frame,
    Picture,
    frame_for,
    holds,
    overview_level,
    paint,
    rect_of,
    rough_facts,
    small_picture,
)
from napari_histomil.ui.segmentation_view import Facts, SegmentationView, Small

VIEW_MS = 20
"""After a move of the view the picture is looked at anew."""

FACTS_MS = 150
"""After the last change areas are counted; a slider that is dragged does not wait for them."""

_painters = ThreadPoolExecutor(1, "segmentation")
_readers = ThreadPoolExecutor(1, "segmentation values")


class _Bell(QObject):
    """Carries what a thread made to the GUI thread."""

    rung = QtSignal(object)


@dataclass(frozen=True, eq=False)
class _Painted:
    frame: Frame
    pixels: Picture
    wanted: int


@dataclass(frozen=True, eq=False)
class _Counted:
    facts: Facts
    small: Small


class SegmentationPainter:
    """Paints one segmentation in one view, until its layer is removed.

    Parameters
    ----------
    viewer
        A napari viewer or ``ViewerModel``.
    info
        The facts of the slide.
    view
        The segmentation, as it is shown.
    layer
        An RGBA image layer (`layers.picture_layer`) that is in the viewer, or will be.
    counts
        Whether areas and the small picture are made too: one painter of several does.
    """

    painted = Signal()
    """The picture of what is in view is there."""

    def __init__(
        self,
        viewer: Any,
        info: SlideInfo,
        view: SegmentationView,
        layer: Image,
        *,
        counts: bool = True,
    ) -> None:
        self._viewer = weakref.ref(viewer)
        self._info, self._view, self._layer, self._counts = info, view, layer, counts
        self._base = np.eye(3)
        self._frame: Frame | None = None
        self._wanted = self._shown = 0
        self._busy = self._again = False
        self._version = 0  # of what is on disk
        self._read: tuple[tuple[int, Frame], Stored] | None = None  # the painting thread's own
        self._told: set[str] = set()
        self._bell = _Bell()
        self._bell.rung.connect(self._on_bell, Qt.ConnectionType.QueuedConnection)
        self._view_timer = self._timer(VIEW_MS, self._follow_view)
        self._facts_timer = self._timer(FACTS_MS, self._count)
        view.changed.connect(self._on_style)
        view.filled.connect(self._on_filled)
        layer.events.visible.connect(self._on_visible)
        self._signals = (*view_signals(viewer), viewer.canvas.events.size)
        for signal in self._signals:
            signal.connect(self._on_view)
        viewer.layers.events.removed.connect(self._on_removed)
        self._paint()
        self._facts_timer.start()

    def _timer(self, interval_ms: int, call: Callable[[], None]) -> QTimer:
        timer = QTimer(self._bell)
        timer.setSingleShot(True)
        timer.setInterval(interval_ms)
        timer.timeout.connect(call)
        return timer

    @property
    def complete(self) -> bool:
        """Whether all that was asked for is in the picture, and the view in its frame."""
        return self._shown == self._wanted and not self._view_timer.isActive() and not self._again

    @property
    def base(self) -> NDArray[np.float64]:
        """[3, 3] in (row, column): how the slide lies in the world; not moved by default."""
        return self._base

    @base.setter
    def base(self, matrix: NDArray[np.float64]) -> None:
        if not np.array_equal(matrix, self._base):
            self._base = np.asarray(matrix, float)
            self._frame = None
            self._paint()

    def wait(self, timeout_s: float) -> bool:
        """Process events until what is in view is painted; says whether it is."""
        end = time.monotonic() + timeout_s
        while not self.complete and time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.002)
        return self.complete

    def let_go(self) -> None:
        """Paint no more."""
        viewer = self._viewer()
        self._wanted += 1
        self._view_timer.stop()
        self._facts_timer.stop()
        self._view.changed.disconnect(self._on_style)
        self._view.filled.disconnect(self._on_filled)
        self._layer.events.visible.disconnect(self._on_visible)
        if viewer is not None:
            for signal in self._signals:
                signal.disconnect(self._on_view)
            viewer.layers.events.removed.disconnect(self._on_removed)

    # --- when it changes ----------------------------------------------------------------------

    def _on_removed(self, event: Any) -> None:
        if event.value is self._layer:
            self.let_go()

    def _on_style(self) -> None:
        self._paint()
        self._facts_timer.start()

    def _on_filled(self, rect_px0: Rect | None) -> None:
        self._version += 1
        if not self._facts_timer.isActive():
            self._facts_timer.start()
        frame = self._frame
        if frame is None or rect_px0 is None:
            touched = True
        else:
            touched = rect_of(self._view.store, frame).intersection(rect_px0) is not None
        if not touched:
            return
        if self._busy:
            self._again = True
        else:
            self._paint()

    def _on_visible(self, _: Any = None) -> None:
        if self._layer.visible:
            self._paint()

    def _on_view(self, _: Any = None) -> None:
        if self._layer.visible:
            self._view_timer.start()

    def _follow_view(self) -> None:
        """Have another picture painted where the view has left the one that is shown."""
        wanted = self._frame_now(0.0)
        if self._frame is None or not holds(self._frame, wanted):
            self._paint()

    def _frame_now(self, around: float) -> Frame | None:
        viewer = self._viewer()
        if viewer is None:
            return None
        view = rect_around_px0(viewer, self._info, around, affine=self._base)
        zoom = viewer.scene.camera.zoom * pixel_ratio_of(viewer)
        scale = abs(np.linalg.det(self._base[:2, :2])) ** 0.5
        return frame_for(self._view.store, view, 1 / (zoom * scale * world_scale(self._info)[1]))

    # --- the picture --------------------------------------------------------------------------

    def _paint(self) -> None:
        """Have what is in view painted as it is now."""
        self._wanted += 1
        self._again = False
        frame = self._frame_now(AROUND) if self._layer.visible else None
        if frame is None:
            self._shown = self._wanted  # nothing of it is in view
            self._busy = False
            return
        view, style, wanted, version = self._view, self._view.style, self._wanted, self._version
        self._busy = True

        def turn() -> None:
            if self._wanted != wanted:
                raise Cancelled

        def work() -> _Painted | None:
            try:
                turn()
                key = version, frame
                if self._read is None or self._read[0] != key:
                    pixels = view.store.read(frame.level, frame.rows, frame.columns)
                    self._read = key, pixels
                pixel_um = view.store.grid.spec.mpp * 2**frame.level
                picture = paint(
                    view.store,
                    self._read[1],
                    style,
                    pixel_um=pixel_um,
                    line=frame.line,
                    turn=turn,
                )
            except Cancelled:
                return None
            return _Painted(frame, picture, wanted)

        self._submit(work)

    def _count(self) -> None:
        """Have rough areas counted, and the small picture painted."""
        view, style = self._view, self._view.style
        if not self._counts:
            return

        def work() -> _Counted | None:
            store, level = view.store, overview_level(view.store)
            pixel_um = store.grid.spec.mpp * 2**level
            stored = store.read(level, slice(None), slice(None))
            done = int(store.done_tiles.sum())
            facts = rough_facts(store, stored, style.steps, pixel_um=pixel_um, done_tiles=done)
            small = small_picture(store, stored, style, pixel_um=pixel_um)
            return _Counted(facts, small) if view.style is style else None

        self._submit(work)

    def _submit(self, work: Callable[[], _Painted | _Counted | None]) -> None:
        bell = self._bell

        def done(future: Future[Any]) -> None:
            error = future.exception()
            result = future.result() if error is None else error
            if result is not None:
                bell.rung.emit(result)

        _painters.submit(work).add_done_callback(done)

    def _on_bell(self, result: Any) -> None:
        if isinstance(result, _Painted):
            self._on_painted(result)
        elif isinstance(result, _Counted):
            self._view.take(result.facts, result.small)
        else:
            self._on_error(result)

    def _on_painted(self, painted: _Painted) -> None:
        if painted.wanted != self._wanted:
            return
        self._busy = False
        self._frame, self._shown = painted.frame, painted.wanted
        layer = self._layer
        if layer.data.shape == painted.pixels.shape:
            layer.data[...] = painted.pixels  # the layer's own: napari would scan a new one
        else:
            layer.data = painted.pixels
        affine = self._base @ picture_affine(
            self._view.store.grid.spec.mpp,
            painted.frame.level,
            (painted.frame.top, painted.frame.left),
        )
        if not np.array_equal(layer.affine.affine_matrix[-3:, -3:], affine):
            layer.affine = affine  # this refreshes too
        else:
            layer.refresh(thumbnail=False, extent=False, highlight=False)
        self.painted.emit()
        if self._again:
            self._paint()

    def _on_error(self, error: Exception) -> None:
        """Say once what is the matter with the run; what else goes wrong is a bug, said too."""
        self._busy = self._again = False
        self._shown = self._wanted
        if str(error) not in self._told:
            self._told.add(str(error))
            show_error(error, widget_of(self._viewer()), info=self._info)


class ValueReader(QObject):
    """Reads the probabilities of single places beside the window; the newest question counts."""

    answered = QtSignal(object, object)
    """Level-0 (x, y), and float32 [C]; NaN where nothing is known. None beside the picture."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._asked = 0
        self._bell = _Bell(self)
        self._bell.rung.connect(self._on_read, Qt.ConnectionType.QueuedConnection)

    def ask(self, store: SegmentationStore, xy_px0: tuple[float, float]) -> None:
        """Ask for the values at a level-0 position; `answered` comes, unless it is asked again."""
        self._asked += 1
        number, held = self._asked, weakref.ref(self)

        def work() -> tuple[int, tuple[float, float], Any] | None:
            asker = held()
            if asker is None or asker._asked != number:
                return None
            return number, xy_px0, values_at(store, xy_px0)

        def done(future: Future[Any]) -> None:
            asker = held()
            if asker is not None and future.exception() is None and future.result() is not None:
                asker._bell.rung.emit(future.result())

        _readers.submit(work).add_done_callback(done)

    def _on_read(self, answer: tuple[int, tuple[float, float], Any]) -> None:
        number, xy_px0, values = answer
        if number == self._asked:
            self.answered.emit(xy_px0, values)


def values_at(store: SegmentationStore, xy_px0: tuple[float, float]) -> NDArray[np.float32] | None:
    """Return the probabilities at a level-0 position, float32 [C]; None beside the picture.

    Raises
    ------
    RunError
        If they do not pass their check.
    """
    across, down = store.picture.pixel_px0
    row, column = int(np.floor(xy_px0[1] / down)), int(np.floor(xy_px0[0] / across))
    rows, columns = store.picture.shape
    if not (0 <= row < rows and 0 <= column < columns):
        return None
    return from_stored(store.read(0, slice(row, row + 1), slice(column, column + 1))[:, 0, 0])
