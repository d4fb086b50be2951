"""Keeps the shown layers of slides painted: what is there at once, the rest as it comes in.

napari asks a layer for its pixels on the GUI thread. The layer's arrays answer at once through a
`Look` (`slides/look.py`), and the loader fetches what is missing. A `Painting` hears of that and
lets napari ask again: at once when the view is complete, else at screen rate, or more seldom where
frames are slow to draw.
"""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components.overlays import TextOverlay
from napari.utils.notifications import show_error
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtCore import Signal as QtSignal
from qtpy.QtWidgets import QApplication

from napari_histomil.inference.courtesy import person_moves
from napari_histomil.slides.level_array import LevelArray
from napari_histomil.slides.look import Look
from napari_histomil.slides.pyramid import Pyramid
from napari_histomil.ui.dense_screens import use_physical_pixels
from napari_histomil.ui.draw_order import canvas_of, slice_before_drawing, widget_of

if TYPE_CHECKING:
    from napari.layers import Image

REFRESH_MS = 16
"""Between two refreshes of a view that is not complete yet, at least."""

DRAWING_SHARE = 1 / 3
"""Of the time, which may go into drawing such a view: where the processor draws, it is the same
one that decodes, and the picture is complete the later the more often it is drawn before."""

FILLING_SHARE = 1 / 10
"""The same while an overview fills: it changes little from one frame to the next."""

SETTLE_S = 0.05
"""How long `Painting.wait` lets a changed view be drawn before it believes that it is complete."""

LOADING = "histomil_loading"
"""Key of the canvas overlay that says what is still coming."""


class _Bell(QObject):
    """Carries word from any thread to the GUI thread."""

    rung = QtSignal()


class Painting:
    """One shown layer of a slide; get it with `follow` or `painting`.

    Attributes
    ----------
    pyramid
        The slide's levels.
    """

    changed = Signal()
    """More pixels are shown, or the view is complete; emitted on the GUI thread."""

    def __init__(self, viewer: Any, layer: Image) -> None:
        arrays: list[LevelArray] = list(layer.data)
        self.pyramid: Pyramid = arrays[0].pyramid
        self._viewer = weakref.ref(viewer)
        self._layer = weakref.ref(layer)
        self._bell = _Bell()
        # Queued always: word may come from within a paint, and must not begin another there.
        self._bell.rung.connect(self._arrived, Qt.ConnectionType.QueuedConnection)
        self._timer: QTimer | None = None
        self._overview_done = self.pyramid.overview.complete
        self._begun = self.pyramid.overview.begun
        self._frame_s = 0.0
        self._frame_end_s = 0.0
        self._said: Exception | None = None
        self._closed = False
        bell = self._bell
        self._look = arrays[0].look or Look(self.pyramid)
        for array in arrays:
            array.look = self._look
        self._look.arrived = lambda: bell.rung.emit()
        self._look.arrived()  # what came in before somebody followed
        self._canvas = canvas_of(viewer)
        if self._canvas is not None:
            self._canvas.frameSwapped.connect(self._on_frame)
        layer.events.visible.connect(self._on_visible)
        viewer.scene.camera.events.center.connect(self._on_camera)
        viewer.scene.camera.events.zoom.connect(self._on_camera)
        viewer.layers.events.removed.connect(self._on_removed)
        self._mark()

    @property
    def complete(self) -> bool:
        """Whether all that is in view is shown as fine as it can be."""
        layer = self._layer()
        return self._closed or layer is None or not layer.visible or self._look.final

    def wait(self, timeout_s: float) -> bool:
        """Process events until what is in view is complete.

        Parameters
        ----------
        timeout_s
            Give up after so long.

        Returns
        -------
        bool
            Whether it is complete.
        """
        end = time.monotonic() + timeout_s
        quiet_since = None
        while (now := time.monotonic()) < end:
            QApplication.processEvents()
            if not self.complete:
                quiet_since = None
            elif quiet_since is None:
                quiet_since = now
            elif now - quiet_since > SETTLE_S:  # a move of the camera has been drawn by now
                return True
            time.sleep(0.002)
        return self.complete

    def set_lut(self, lut: NDArray[np.uint8] | None) -> None:
        """Show the slide through a table of brightness; its pixels stay as they are.

        Parameters
        ----------
        lut
            uint8 [256]: what is shown for each value; None for the pixels themselves.
        """
        if lut is not None and (lut.shape != (256,) or lut.dtype != np.uint8):
            raise ValueError(f"a table has 256 values of uint8, not {lut.dtype} {lut.shape}")
        self._look.set_lut(lut)
        self._refresh()

    def close(self) -> None:
        """Let go of the layer; what it shows stays as it is."""
        if self._closed:
            return
        self._closed = True
        self._look.close()
        layer, viewer = self._layer(), self._viewer()
        if layer is not None:
            layer.events.visible.disconnect(self._on_visible)
            for array in layer.data:
                if getattr(array, "look", None) is self._look:
                    array.look = None
            _PAINTINGS.pop(layer, None)
        if viewer is not None:
            viewer.scene.camera.events.center.disconnect(self._on_camera)
            viewer.scene.camera.events.zoom.disconnect(self._on_camera)
            viewer.layers.events.removed.disconnect(self._on_removed)
            if self._canvas is not None:
                self._canvas.frameSwapped.disconnect(self._on_frame)
            self._show_text(viewer, "")
        if self._timer is not None:
            self._timer.stop()

    # --- pixels come in ---

    def _arrived(self) -> None:
        """Refresh now, or soon; on the GUI thread."""
        if self._closed:
            return
        self._say_trouble()
        if not self._look.grown:  # it has been painted meanwhile
            return
        # Since the viewer asked last, which a move of the camera makes it do, too.
        waited_ms = (time.monotonic() - self._look.painted_s) * 1000
        filling = self._look.waiting == 0 and not self.pyramid.overview.complete
        share = FILLING_SHARE if filling else DRAWING_SHARE
        between_ms = max(REFRESH_MS, self._frame_s * 1000 / share)
        all_in = self._look.waiting == 0 and not filling
        new_sketch = self.pyramid.overview.begun and not self._begun
        if all_in or new_sketch or waited_ms >= between_ms:
            self._refresh()
            return
        if self._timer is None:
            self._timer = QTimer()
            self._timer.setSingleShot(True)
            self._timer.timeout.connect(self._arrived)
        if not self._timer.isActive():
            self._timer.start(int(between_ms - waited_ms) + 1)

    def _on_frame(self) -> None:
        """Note how long it took from the pixels to the screen."""
        now = time.monotonic()
        if self._look.painted_s > self._frame_end_s:
            self._frame_s = now - self._look.painted_s
        self._frame_end_s = now

    def _refresh(self) -> None:
        layer = self._layer()
        if self._closed or layer is None:
            return
        if self._timer is not None:
            self._timer.stop()
        renewed = self.pyramid.overview.complete and not self._overview_done
        self._overview_done = self.pyramid.overview.complete
        self._begun = self.pyramid.overview.begun
        layer.refresh(thumbnail=renewed, extent=False, highlight=False)
        self._mark()
        self.changed.emit()

    def _mark(self) -> None:
        viewer, layer = self._viewer(), self._layer()
        if viewer is None or layer is None:
            return
        overview = self.pyramid.overview
        loading = layer.visible and not overview.complete and overview.slow
        self._show_text(viewer, f"loading {overview.share:.0%}" if loading else "")

    @staticmethod
    def _show_text(viewer: Any, text: str) -> None:
        overlays = viewer.canvas.overlays
        if LOADING not in overlays:
            if not text:
                return
            overlays[LOADING] = TextOverlay(position="top_left")
        overlay = overlays[LOADING]
        overlay.text = text
        overlay.visible = bool(text)

    def _say_trouble(self) -> None:
        trouble = self.pyramid.trouble
        if trouble is not None and self._said is None:
            self._said = trouble
            show_error(f"{trouble} The place is shown as a grey checker.")

    # --- what the person does ---

    def _on_camera(self) -> None:
        person_moves()

    def _on_visible(self) -> None:
        layer = self._layer()
        if layer is not None and not layer.visible:
            self._look.rest()
        elif self.pyramid.overview.complete and not self._overview_done:
            self._refresh()  # it was completed while the layer was hidden
        self._mark()

    def _on_removed(self, event: Any) -> None:
        if event.value is self._layer():
            self.close()


_PAINTINGS: weakref.WeakKeyDictionary[Any, Painting] = weakref.WeakKeyDictionary()


def painting(layer: Any) -> Painting | None:
    """Return the painting of a slide's layer that is shown in a viewer, or None."""
    return _PAINTINGS.get(layer)


def follow(viewer: Any, layer: Image) -> Painting:
    """Keep a slide's layer painted as long as it is in the viewer.

    Parameters
    ----------
    viewer
        The viewer that holds the layer; a ``ViewerModel`` of a second canvas will do.
    layer
        A layer made by `layers.slide_layer`, or a copy of one.
    """
    found = _PAINTINGS.get(layer)
    if found is not None and layer.data[0].look is found._look:
        return found
    if found is not None:  # its data were replaced
        found.close()
    look = layer.data[0].look
    if look is not None and look.arrived is not None:
        # A copy, which shares the arrays of another layer.
        shown = layer.data[0].pyramid
        layer.data = shown.arrays(Look(shown))
    use_physical_pixels(viewer, layer)
    slice_before_drawing(widget_of(viewer))
    made = _PAINTINGS[layer] = Painting(viewer, layer)
    return made


def complete(viewer: Any, timeout_s: float) -> bool:
    """Process events until all slides in view are shown as fine as they can be.

    Returns
    -------
    bool
        Whether they are.
    """
    end = time.monotonic() + timeout_s
    shown = [found for layer in viewer.layers if (found := painting(layer)) is not None]
    return all(each.wait(max(end - time.monotonic(), 0.01)) for each in shown)
