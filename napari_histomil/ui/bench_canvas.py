"""A window whose camera is moved by a script, and the clock on what one then sees.

Only what Qt tells in public is used: the canvas is the window's largest OpenGL widget; a frame is
its paint event, and is on the screen when the widget says that frames were swapped. Whether the
window reacts is told by a timer that should ring every two milliseconds: the longest silence
between the move and the complete picture is the stall. All sides are timed in this one way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, QEventLoop, QObject, Qt, QTimer
from qtpy.QtGui import QImage
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QApplication, QMainWindow

from napari_histomil.bench.views import View, ViewTime
from napari_histomil.errors import RunError
from napari_histomil.inference.courtesy import person_moves
from napari_histomil.slides.slide import SlideInfo, Uint8Image
from napari_histomil.ui.layers import to_world_um, world_scale
from napari_histomil.ui.window import open_window

CANVAS_SIZE = (1280, 800)
"""(width, height) that the canvas is given where the screen has the room for it."""

BEAT_MS = 2
QUIET_S = 0.06
"""A picture to which nothing was drawn for so long is complete, if its layer says so too."""
TIMEOUT_S = 120.0


class BenchWindow(QObject):
    """The program's window, its docks in place, under a script.

    Parameters
    ----------
    viewer
        A viewer that is shown.

    Attributes
    ----------
    viewer
        The napari viewer.
    size
        (width, height) of the canvas in logical pixels.
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = viewer
        windows = [
            (window, canvas)
            for window in QApplication.topLevelWidgets()
            if isinstance(window, QMainWindow) and window.isVisible()
            for canvas in window.findChildren(QOpenGLWidget)
        ]
        self._window, self._canvas = max(
            windows, key=lambda pair: pair[1].width() * pair[1].height()
        )
        self._resize()
        self._canvas.installEventFilter(self)
        self._canvas.frameSwapped.connect(self._swapped)
        self._painted = False
        self.frames = 0
        self.last_frame = time.perf_counter()
        # A job must give way to all sides alike, not only where our layer asks it to.
        camera = self.viewer.scene.camera
        self._moves = (camera.events.center, camera.events.zoom)
        for event in self._moves:
            event.connect(_moved)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the canvas."""
        return self._canvas.width(), self._canvas.height()

    def _resize(self) -> None:
        for _ in range(3):  # docks and bars settle with the first
            wide, high = (
                wanted - is_now for wanted, is_now in zip(CANVAS_SIZE, self.size, strict=True)
            )
            self._window.resize(self._window.width() + wide, self._window.height() + high)
            self.rest(0.3)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Note that the canvas is painted."""
        if event.type() == QEvent.Type.Paint:
            self._painted = True
        return False

    def _swapped(self) -> None:
        if self._painted:  # the window is also composed anew where only a label has changed
            self._painted = False
            self.frames += 1
            self.last_frame = time.perf_counter()

    def rest(self, seconds: float) -> None:
        """Let the window work for a while."""
        loop = QEventLoop()
        QTimer.singleShot(int(seconds * 1000), loop.quit)
        loop.exec()

    def look(self, view: View, info: SlideInfo) -> None:
        """Move the camera."""
        camera = self.viewer.scene.camera
        camera.zoom = view.zoom / world_scale(info)[1]
        camera.center = (*camera.center[:-2], *to_world_um(view.xy_px0, info))

    def show(
        self,
        view: View,
        info: SlideInfo,
        finished: Callable[[], bool],
        *,
        on_frame: Callable[[], None] | None = None,
    ) -> ViewTime:
        """Move the camera, and wait until the picture is complete; see the module.

        Parameters
        ----------
        view, info
            Where to look, on which slide.
        finished
            Whether the layer shows all that there is.
        on_frame
            Called after each frame.

        Raises
        ------
        RunError
            If the picture is not complete after half a minute.
        """
        return self.time(lambda: self.look(view, info), finished, on_frame=on_frame)

    def time(
        self,
        act: Callable[[], Any],
        finished: Callable[[], bool],
        *,
        on_frame: Callable[[], None] | None = None,
    ) -> ViewTime:
        """Do something, and wait until the picture is complete; as `show`."""
        frames_before = frames_seen = self.frames
        silences: list[tuple[float, float]] = []  # (begin, length)
        loop = QEventLoop()
        timer = QTimer()
        timer.setTimerType(Qt.TimerType.PreciseTimer)
        timer.setInterval(BEAT_MS)
        start = last = time.perf_counter()

        def beat() -> None:
            nonlocal last, frames_seen
            now = time.perf_counter()
            silences.append((last, now - last))
            last = now
            if on_frame is not None and self.frames > frames_seen:
                frames_seen = self.frames
                on_frame()
                last = time.perf_counter()
            drawn = self.frames > frames_before or now - start > 5 * QUIET_S
            quiet = now - max(self.last_frame, start) > QUIET_S
            if (drawn and quiet and finished()) or now - start > TIMEOUT_S:
                loop.quit()

        timer.timeout.connect(beat)
        timer.start()
        act()
        loop.exec()
        timer.stop()
        if not finished():
            raise RunError(f"A picture was not complete after {TIMEOUT_S:.0f} s.")
        end = self.last_frame if self.frames > frames_before else start
        stall = max((length for begin, length in silences if begin < end), default=0.0)
        return ViewTime(stall, end - start)

    def picture(self) -> Uint8Image:
        """Return what the canvas shows, uint8 [h, w, 3]."""
        image = self._canvas.grabFramebuffer().convertToFormat(QImage.Format.Format_RGB888)
        bits = image.constBits()
        bits.setsize(image.sizeInBytes())
        rows = np.frombuffer(bits, np.uint8).reshape(image.height(), image.bytesPerLine())
        return rows[:, : image.width() * 3].reshape(image.height(), image.width(), 3).copy()

    def release(self) -> None:
        """Time no more, and let go of the window, which stays open."""
        self._canvas.removeEventFilter(self)
        self._canvas.frameSwapped.disconnect(self._swapped)
        for event in self._moves:
            event.disconnect(_moved)
        self.viewer = self._window = self._canvas = None
        self._moves = ()


@contextmanager
def bench_window() -> Iterator[BenchWindow]:
    """Open the program's window under a script, and close it."""
    viewer = open_window()
    window = BenchWindow(viewer)
    try:
        yield window
    finally:
        window.release()
        viewer.close()


def _moved(_event: Any) -> None:
    person_moves()
