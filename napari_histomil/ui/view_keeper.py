"""A slide comes back as it was left: kept while it is open, brought back when it is opened again.

The cycle of one slide:

1. it is opened; what was kept of it is read beside the window (`slides.remembered`);
2. the view, the brightness and the heatmaps are brought back (`view_state.py`), unless the person
   has moved already or said where to look;
3. when something changes, it is noted a moment later, and written a little after that by a thread;
4. when the slide or the window is closed, it is written for the last time.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QApplication, QDockWidget, QWidget

from napari_histomil.errors import RunError
from napari_histomil.files import remote_url
from napari_histomil.slides.remembered import remember_view
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui import jobs
from napari_histomil.ui.brightness import tones
from napari_histomil.ui.linked import linked
from napari_histomil.ui.orientation import orientation_of, view_signals
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.per_viewer import PerViewer
from napari_histomil.ui.preferences import PLUGIN, reopens_views
from napari_histomil.ui.session import SlideSession, session
from napari_histomil.ui.view_state import (
    Kept,
    Place,
    bring_back_camera,
    bring_back_run,
    go_to_place,
    tone_of,
    view_of,
)

NOTE_MS = 300
"""After the last change what is seen is noted; cheap, on the GUI thread."""

WRITE_MS = 3000
"""After the last change it is written, by a thread."""

SAVE_SECONDS = 3.0
"""A window that is closed waits at most so long for a slow disk."""

_log = logging.getLogger(__name__)

_writer = ThreadPoolExecutor(1, "view")


class ViewKeeper(QObject):
    """Keeps the views of one viewer's slides; get it with `view_keeper`."""

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._session = session(viewer)
        self._overlays = overlays(viewer)
        self._tones = tones(viewer)
        self._noted: weakref.WeakKeyDictionary[SlideSession, dict[str, Any]] = (
            weakref.WeakKeyDictionary()
        )
        self._written: weakref.WeakKeyDictionary[SlideSession, dict[str, Any]] = (
            weakref.WeakKeyDictionary()
        )
        self._restoring: weakref.WeakSet[SlideSession] = weakref.WeakSet()
        self._places: dict[Path, Place] = {}
        self._plain: set[Path] = set()
        self._front: str | None = None
        # Weakly: the window holds the viewer, with which this shall go.
        self._window: weakref.ref[QWidget] | None = None
        self._note_timer, self._write_timer = _timer(NOTE_MS, self), _timer(WRITE_MS, self)
        self._note_timer.timeout.connect(self.note)
        self._write_timer.timeout.connect(self._write_beside)
        self._session.slide_opened.connect(self._on_opened)
        self._session.slide_closed.connect(self._on_closed)
        self._session.runs_changed.connect(self._on_runs)
        self._session.active_changed.connect(self._on_active)
        self._overlays.current_changed.connect(self._on_change)
        self._overlays.shown_changed.connect(self._on_change)
        self._tones.changed.connect(self._on_change)
        for signal in view_signals(viewer):
            signal.connect(self._on_change)
        viewer.canvas.overlays.scale_bar.events.visible.connect(self._on_change)
        for slide in self._session.slides:
            self._on_opened(slide)
        application = QApplication.instance()
        if application is not None:  # where no window of ours is watched
            application.aboutToQuit.connect(self.save)

    @property
    def busy(self) -> bool:
        """Whether something is still to be brought back."""
        return bool(self._restoring)

    # --- where to look first ---

    def look_at(self, path: Path, place: Place) -> None:
        """Look at a place of a slide when it is opened, whatever was kept of it."""
        self._places[path.absolute()] = place

    def leave_plain(self, path: Path) -> None:
        """Bring nothing back of a slide when it is opened next: it is to be read blindly."""
        self._plain.add(path.absolute())

    def watch(self, window: QWidget) -> None:
        """Write everything when this window is closed."""
        if window is not self.window:
            self._window = weakref.ref(window)
            window.installEventFilter(self)

    @property
    def window(self) -> QWidget | None:
        """The window that is watched."""
        return self._window() if self._window is not None else None

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """See the window being closed; whoever else hears of it is not disturbed."""
        if watched is self.window and event.type() == QEvent.Type.Close:
            self.save()
        return False

    # --- keeping ---

    def note(self) -> None:
        """Take note of what is seen of the active slide."""
        slide = self._session.active
        if self._session.viewer is None or slide not in self._session.slides:
            return
        if slide in self._restoring:
            return  # else what was kept would be forgotten before it is brought back
        self._noted[slide] = self.state(slide)

    def save(self) -> None:
        """Note and write everything now; called when the window goes."""
        self._note_timer.stop()
        self._write_timer.stop()
        self.note()
        self._write_beside()
        # One thread writes one after the other: when this comes back, all is written.
        with suppress(TimeoutError):  # it goes on beside the window, and the program waits for it
            _writer.submit(int).result(SAVE_SECONDS)

    def state(self, slide: SlideSession) -> dict[str, Any]:
        """Return how a slide that is active is looked at, in plain values."""
        view = view_of(self._session.viewer, slide, self._tones.of(slide))
        return view | {"dock": self._dock_in_front()}

    def _unwritten(self) -> list[tuple[SlideSession, dict[str, Any]]]:
        if not reopens_views():
            return []
        return [
            (slide, view)
            for slide, view in self._noted.items()
            if view != self._written.get(slide)
        ]

    def _write_beside(self) -> None:
        for slide, view in self._unwritten():
            self._written[slide] = view
            _keep(slide.info, view)

    def _on_change(self, _: Any = None) -> None:
        self._note_timer.start()
        self._write_timer.start()

    def _on_runs(self) -> None:
        for run in self._session.runs:  # psygnal connects the same slot once
            run.shown.changed.connect(self._on_change, unique=True)
        self._on_change()

    def _on_closed(self, slide: SlideSession) -> None:
        """Write what was noted last: its layers are gone by now."""
        view = self._noted.pop(slide, None)
        known = self._written.pop(slide, None)
        if view is not None and view != known and reopens_views():
            _keep(slide.info, view)

    # --- bringing back ---

    def _on_active(self, slide: SlideSession | None) -> None:
        """Look where the slide was looked at last: slides share one camera.

        Else it would be noted with the place of the slide that was shown before. With a second
        view open, both slides are seen at one place.
        """
        viewer = self._session.viewer
        if slide is None or slide in self._restoring or viewer is None:
            return  # one that is just opened is fitted, and brought back
        if linked(viewer).view is not None:
            return
        view = self._noted.get(slide)
        if view is not None:
            bring_back_camera(viewer, slide.info, view)
        else:
            self._session.fit(slide.info)

    def _on_opened(self, slide: SlideSession) -> None:
        self._restoring.add(slide)
        QTimer.singleShot(0, lambda: self._begin(slide))  # when its layer is shown and fitted

    def _begin(self, slide: SlideSession) -> None:
        viewer = self._session.viewer
        if viewer is None or slide not in self._session.slides:
            self._restoring.discard(slide)
            return
        place = self._places.pop(slide.info.path.absolute(), None)
        if place is not None:
            go_to_place(viewer, slide.info, place)
        looked_at = _looks_at(viewer) if place is None else None
        info = slide.info
        plain = slide.info.path.absolute() in self._plain
        self._plain.discard(slide.info.path.absolute())
        if plain or not reopens_views():
            self._restoring.discard(slide)
            return

        def read(cancel: threading.Event) -> Generator[None, None, Kept]:
            yield
            return Kept.read(info, cancel)

        def done(kept: Kept | None) -> None:
            self._restoring.discard(slide)
            if self._session.viewer is None or slide not in self._session.slides:
                return  # closed meanwhile
            if kept is not None:
                self._bring_back(slide, kept, looked_at)

        def failed(error: Exception) -> None:
            self._restoring.discard(slide)
            raise error

        jobs.start(
            read,
            on_progress=lambda _: None,
            on_done=done,
            on_error=failed,
            title=f"bringing back the view of {slide.name}",
            owner=self.window,
        )

    def _bring_back(
        self, slide: SlideSession, kept: Kept, looked_at: tuple[Any, ...] | None
    ) -> None:
        view, viewer = kept.view, self._session.viewer
        self._tones.set(slide, tone_of(view))
        shown = self._session.active
        if shown is slide and looked_at == _looks_at(viewer):
            bring_back_camera(viewer, slide.info, view)
        elif shown is not slide:
            self._noted.setdefault(slide, view)  # for when it is shown
            self._written.setdefault(slide, view)
        if shown is slide and isinstance(view.get("scale_bar"), bool) and slide.has_mpp:
            viewer.canvas.overlays.scale_bar.visible = view["scale_bar"]
        current = self._overlays.current
        for store, state in kept.runs:
            try:
                run = self._overlays.add(store)
            except RunError:  # computed for other µm/px than the slide has now
                continue
            bring_back_run(run, state)
            if current is None and state.get("id") == view.get("current_run"):
                current = run
        if current is not None and current in self._session.runs:
            self._overlays.choose(current)
            for store, state in kept.runs:
                if store.run_id == current.store.run_id and state.get("visible") is False:
                    current.layer.visible = False
        if len(self._session.slides) == 1 and self._front is None:
            self._raise(view.get("dock"))

    # --- docks ---

    def keep_front(self, name: str) -> None:
        """Leave this dock in front: the person has asked for it."""
        self._front = name

    def _docks(self) -> dict[str, QWidget]:
        window = getattr(self._session.viewer, "window", None)
        docks = getattr(window, "dock_widgets", {})
        end = f" ({PLUGIN})"
        return {name.removesuffix(end): docks[name] for name in docks if name.endswith(end)}

    def _dock_in_front(self) -> str | None:
        for name, widget in self._docks().items():
            if not widget.visibleRegion().isEmpty():
                return name
        return None

    def _raise(self, name: Any) -> None:
        widget: QWidget | None = self._docks().get(name) if isinstance(name, str) else None
        while widget is not None and not isinstance(widget, QDockWidget):
            widget = widget.parentWidget()
        if widget is not None:
            widget.raise_()


def _keep(info: SlideInfo, view: Mapping[str, Any]) -> None:
    """Let the writer's thread keep a view."""
    _writer.submit(_write, info, view).add_done_callback(_log_failure)


def _log_failure(done: Future[None]) -> None:
    error = done.exception()
    if error is not None:
        _log.error("A view cannot be kept", exc_info=error)


def _write(info: SlideInfo, view: Mapping[str, Any]) -> None:
    """Keep a view, in the writer's thread; a picture in memory cannot be opened again."""
    if remote_url(info.path) is not None or info.path.exists():
        remember_view(info, view)


def _looks_at(viewer: Any) -> tuple[Any, ...]:
    view = viewer.scene.camera
    return view.zoom, *view.center, orientation_of(viewer)


def _timer(interval_ms: int, parent: QObject) -> QTimer:
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(interval_ms)
    return timer


_KEEPERS = PerViewer(ViewKeeper)


def view_keeper(viewer: Any) -> ViewKeeper:
    """Return what keeps the views of a viewer, begun at the first call.

    Parameters
    ----------
    viewer
        A napari viewer, or the proxy of one that napari gives to plugins.
    """
    return _KEEPERS.of(viewer)
