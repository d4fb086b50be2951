"""Threads that make things ahead of whoever takes them: bounded, first error wins, close joins."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from napari_histomil.inference.courtesy import give_way

T = TypeVar("T")

_POLL_SECONDS = 0.05
"""How often a thread that waits looks whether it shall stop."""


class Stopped(Exception):
    """Raised inside a thread of a crew that is closing; never leaves the crew."""


class Crew(Generic[T]):
    """Threads that put items into a bounded queue until there is nothing left to do.

    Parameters
    ----------
    count
        Number of threads.
    work
        Runs in each thread; calls `put` for every item, returns when there is nothing left.
    limit
        Items that may wait to be taken; `put` waits at this number.
    name
        Of the threads, for those who look at them.

    Notes
    -----
    The first error that a thread raises stops all of them and is raised by `take`; errors that
    follow from it are dropped. `close` stops the threads at their next `put` or `check` and
    waits for them.
    """

    def __init__(
        self, count: int, work: Callable[[Crew[T]], None], *, limit: int, name: str
    ) -> None:
        self._items: queue.Queue[T] = queue.Queue(limit)
        self._stop = threading.Event()
        self._mutex = threading.Lock()
        self._error: BaseException | None = None
        self._running = count
        self._work = work
        self._threads = [
            threading.Thread(target=self._run, name=f"{name} {i}", daemon=True)
            for i in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, item: T) -> None:
        """Hand an item over; waits while the queue is full. For the crew's own threads."""
        while True:
            self.check()
            try:
                return self._items.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue

    def check(self) -> None:
        """Raise `Stopped` if the crew is closing. For the crew's own threads, between steps."""
        if self._stop.is_set():
            raise Stopped

    def rest(self) -> None:
        """Give way to a person who moves, then check as `check` does."""
        give_way(self._stop)
        self.check()

    def take(self, timeout: float | None = None) -> T | None:
        """Return the next item, or None when all is done and taken.

        Raises
        ------
        TimeoutError
            If nothing came within `timeout` seconds.
        BaseException
            The first error of a thread.
        """
        waited = 0.0
        while True:
            with self._mutex:
                error, running = self._error, self._running
            if error is not None:
                raise error
            try:
                return self._items.get(timeout=_POLL_SECONDS if running else 0)
            except queue.Empty:
                if not running:
                    return None
            waited += _POLL_SECONDS
            if timeout is not None and waited >= timeout:
                raise TimeoutError

    def take_nowait(self) -> T | None:
        """Return an item that is there already, or None."""
        try:
            return self._items.get_nowait()
        except queue.Empty:
            return None

    def close(self) -> None:
        """Stop the threads and wait until they have ended; what nobody took is dropped."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            self._work(self)
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001  kept, and raised where it is waited for
            with self._mutex:
                if self._error is None:
                    self._error = error
            self._stop.set()
        finally:
            with self._mutex:
                self._running -= 1
