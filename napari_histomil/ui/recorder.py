"""Records what a window shows of the case that is read, once its reader has agreed.

A view is kept when the next one begins; a drag is many views, of which only those are kept that
stand still for a moment. A window that nobody moves is not read for ever: see `IDLE_S`.
"""

from __future__ import annotations

import time
from typing import Any

from psygnal import Signal

from napari_histomil.annotations.stamps import Stamp
from napari_histomil.errors import HistomilError, ReviewError
from napari_histomil.review.viewing import View, ViewingLog, folder_of
from napari_histomil.ui.camera import um_per_pixel
from napari_histomil.ui.layers import rect_in_view_px0
from napari_histomil.ui.orientation import view_signals
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.per_viewer import PerViewer
from napari_histomil.ui.reviewing import reviewing

LEAST_S = 0.2
"""A view that lasts less is a moment of a movement."""

IDLE_S = 60.0
"""A view counts no longer: whoever has not moved for so long may not be there."""


class Recorder:
    """The record of one viewer; get it with `recorder`. It is off at first, in every window."""

    changed = Signal()
    """Recording began or ended."""
    failed = Signal(Exception)

    def __init__(self, viewer: Any) -> None:
        self._state = reviewing(viewer)
        self._log: ViewingLog | None = None
        self._began = 0.0
        self._view: View | None = None
        self.clock = time.monotonic
        for signal in view_signals(viewer):
            signal.connect(self._on_move)
        self._state.case_changed.connect(self._on_move)
        self._state.project_changed.connect(self.stop)
        overlays(viewer).shown_changed.connect(self._on_move)

    @property
    def on(self) -> bool:
        """Whether views are recorded."""
        return self._log is not None

    def start(self) -> None:
        """Record from now on: the reader has agreed to `viewing.CONSENT`.

        Raises
        ------
        HistomilError
            If nothing is under review, or the record cannot be written.
        """
        if self._state.project is None or self._state.log is None:
            raise ReviewError("Open a review first: what is recorded belongs to it.")
        if self._log is None:
            folder = folder_of(self._state.project)
            self._log = ViewingLog(folder, self._state.log.reader)
            self._begin()
            self.changed.emit()

    def stop(self) -> None:
        """Record no more; does nothing if it is off."""
        if self._log is None:
            return
        self._keep()
        if self._log is not None:
            self._log.close()
        self._log = self._view = None
        self.changed.emit()

    def _on_move(self, _: Any = None) -> None:
        if self._log is not None:
            self._keep()
            self._begin()

    def _begin(self) -> None:
        """Note what is seen from now on."""
        state, session = self._state, self._state.session
        slide, viewer = session.active, session.viewer
        self._began, self._view = self.clock(), None
        if state.current is None or slide is None or viewer is None or not slide.has_mpp:
            return
        rect = rect_in_view_px0(viewer, slide.info)
        if rect is None:
            return
        run = overlays(viewer).current
        self._view = View(
            case=state.current.name,
            slide=slide.info.fingerprint,
            xy_px0=(rect.x_px0, rect.y_px0),
            size_px0=(rect.width_px0, rect.height_px0),
            um_per_px=um_per_pixel(viewer),
            seconds=0.0,
            at=Stamp.now("").time,
            overlay=run is not None and bool(run.layer.visible),
        )

    def _keep(self) -> None:
        """Keep the view that ends now."""
        view, seconds = self._view, min(self.clock() - self._began, IDLE_S)
        self._view = None
        if view is None or self._log is None or seconds < LEAST_S:
            return
        try:
            self._log.add(
                View(
                    view.case, view.slide, view.xy_px0, view.size_px0, view.um_per_px,
                    round(seconds, 3), view.at, view.overlay,
                )
            )  # fmt: skip
        except HistomilError as error:
            log, self._log = self._log, None
            log.close()
            self.changed.emit()
            self.failed.emit(error)


_RECORDERS = PerViewer(Recorder)


def recorder(viewer: Any) -> Recorder:
    """Return the recorder of a viewer, begun at the first call; it is off."""
    return _RECORDERS.of(viewer)
