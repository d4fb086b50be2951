"""Work beside the window: start a generator in a thread, hear of it on the GUI thread, stop it.

The cycle of one job:

1. `start` hands a generator function to a napari worker, together with an event that asks it to
   stop; the person goes on working.
2. What the generator yields is put on a queue; the thread touches neither layers nor widgets.
3. A timer on the GUI thread empties the queue a few times a second: one call of `on_progress`.
4. The generator ends by itself, because of the event, or with an error; its ``finally`` clauses
   run in its own thread in all three cases.
5. The GUI thread hears the rest of the queue, then exactly one of `on_done` and `on_error`.

What a job does lives with whoever starts it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, QTimer, Slot
from qtpy.QtWidgets import QWidget
from superqt.utils import GeneratorWorker

REFRESH_MS = 250
"""Time between two calls of `on_progress`: four a second are enough for an eye, and a heatmap
takes 30-60 ms to upload."""

GRACE_S = 0.5
"""A cancelled generator may still yield for so long before it is closed."""

Generate = Callable[[threading.Event], Iterator[Any]]

_log = logging.getLogger(__name__)
_running: set[JobHandle] = set()  # a handle must outlive its thread even if nobody keeps it


class JobHandle(QObject):
    """One job that `start` has started; lives on the GUI thread."""

    def __init__(
        self,
        generate: Generate,
        title: str,
        on_progress: Callable[[list[Any]], None],
        on_done: Callable[[Any], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        super().__init__()
        self._cancel = threading.Event()
        self._values: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._result: Any = None
        self._error: Exception | None = None
        self._on_progress, self._on_done, self._on_error = on_progress, on_done, on_error
        self._timer = QTimer(self)
        self._timer.setInterval(REFRESH_MS)
        self._timer.timeout.connect(self._deliver)
        # napari's own classes would turn every warning of any thread into a notification and
        # every error into a second message: superqt's plain worker says nothing by itself.
        self._worker = create_worker(
            _Titled(title, self._work, generate),
            _worker_class=_Worker,
            _ignore_errors=True,
            _start_thread=False,
        )
        self._worker.cancel_event = self._cancel
        self._worker.warned.connect(_log_warning)
        self._worker.finished.connect(self._finish)

    @property
    def running(self) -> bool:
        """Whether `on_done` or `on_error` is still to come."""
        return self in _running

    @property
    def cancelled(self) -> bool:
        """Whether the job has been asked to stop."""
        return self._cancel.is_set()

    def cancel(self) -> None:
        """Ask the job to stop; `on_done` comes when it has. Does not wait."""
        self._cancel.set()

    def _work(self, generate: Generate) -> Iterator[None]:
        """Run in the worker's thread: queue what comes, keep the result or the error."""
        try:
            with contextlib.closing(_as_generator(generate(self._cancel))) as values:
                deadline = math.inf
                while time.monotonic() < deadline:
                    try:
                        self._values.put(next(values))
                    except StopIteration as end:
                        self._result = end.value
                        break
                    if self._cancel.is_set():
                        deadline = min(deadline, time.monotonic() + GRACE_S)
                    yield
        # The edge of the thread: whatever escapes is shown on the GUI thread. It is not left to
        # the worker, which takes a RuntimeError (all of torch's) for its own deletion.
        except Exception as error:  # noqa: BLE001
            self._error = error

    def _begin(self, owner: QWidget | None) -> None:
        if owner is not None:
            owner.destroyed.connect(self._owner_gone)
        _running.add(self)
        self._timer.start()
        self._worker.start()

    @Slot()
    def _deliver(self) -> None:
        values = []
        with contextlib.suppress(queue.Empty):
            while True:
                values.append(self._values.get_nowait())
        if values:
            self._on_progress(values)

    @Slot()
    def _finish(self) -> None:
        self._timer.stop()
        try:
            self._deliver()
        finally:
            _running.discard(self)
            if self._error is None:
                self._on_done(self._result)
            else:
                self._on_error(self._error)

    @Slot()
    def _owner_gone(self) -> None:
        """Stop, and be silent: the widgets that would hear of it are gone."""
        self.cancel()
        self._on_progress = self._on_done = self._on_error = _ignore


def start(
    generate: Generate,
    *,
    on_progress: Callable[[list[Any]], None],
    on_done: Callable[[Any], None],
    on_error: Callable[[Exception], None],
    title: str = "a job of HistoMIL",
    owner: QWidget | None = None,
) -> JobHandle:
    """Run a generator in a thread and hear of it on the GUI thread.

    Parameters
    ----------
    generate
        Called in the thread with an event; the generator ends soon after the event is set. If
        it goes on yielding instead it is closed between two values.
    on_progress
        Called at most four times a second with all values yielded since the last call.
    on_done
        Called once with the generator's return value when it has ended, also after a cancel.
    on_error
        Called once instead of `on_done` with what the generator raised.
    title
        What is going on, in words: napari shows it when the window is closed meanwhile.
    owner
        The widget that hears of the job. Closing it, or napari, cancels the job; nothing is
        called any more then.

    Returns
    -------
    JobHandle
    """
    handle = JobHandle(generate, title, on_progress, on_done, on_error)
    handle._begin(owner)
    return handle


class _Worker(GeneratorWorker):
    """A worker whose `quit` lets the generator end by itself.

    The worker's own way leaves the generator suspended, with its ``finally`` unrun and its files
    open. napari calls `quit` when the window closes and the program ends.
    """

    cancel_event: threading.Event

    def quit(self) -> None:
        self.cancel_event.set()


class _Titled(functools.partial):
    """A generator function that says what it does where napari prints it."""

    title: str

    def __new__(cls, title: str, function: Callable[..., Any], *args: Any) -> _Titled:
        titled = super().__new__(cls, function, *args)
        titled.title = title
        return titled

    def __repr__(self) -> str:
        return self.title

    __str__ = __repr__


def _as_generator(values: Iterator[Any]) -> Iterator[Any]:
    """Give any iterator a `close` and a return value."""
    return (yield from values)


def _ignore(_: Any) -> None:
    pass


def _log_warning(arguments: tuple[Any, ...]) -> None:
    """Log what `warnings.showwarning` was called with: no window is opened for a warning."""
    _log.warning("%s", warnings.formatwarning(*arguments[:4]).strip())
