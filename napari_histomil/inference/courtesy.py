"""A run in the background gives way while a person moves about the slide.

The window calls `person_moves` on every change of the view; a run's threads call `give_way`
between small pieces of work. Somebody who pans then has the machine nearly alone, and the run
goes on, slowly, even under a person who never stops. What is computed does not change, only when.

A thread that is in the middle of a piece cannot be paused; on Linux the system is told to prefer
the window to it from the first movement on. A program in which nobody moves, such as the command
line, keeps its priority, and pays two readings of a clock for a piece.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from napari_histomil.slides.threads import lower_priority

QUIET_S = 0.2
"""Somebody who has not moved for so long has stopped."""

LEAST_SHARE = 0.15
"""Of its speed, which a run keeps however long somebody moves."""

MAX_PAUSE_S = 2.0
"""Of one pause: after a long piece a run need not make up for all of it at once."""

NICENESS = 5
"""Of a run's threads once somebody has moved: a third of the window's claim to a core. Not more,
as a thread that waits for a core may hold Python's lock, for which the window waits in turn."""


class _State:
    """When somebody moved last, and the threads that are still to be lowered."""

    def __init__(self) -> None:
        self.moved_s = -math.inf
        self.ever_moved = False
        self.lock = threading.Lock()
        self.at_full_priority: set[int] = set()


class _Own(threading.local):
    """What a thread knows of itself."""

    went_on_s: float | None = None


_state = _State()
_own = _Own()


def person_moves() -> None:
    """Say that somebody moves the view just now; cheap, from any thread."""
    _state.moved_s = time.monotonic()
    _state.ever_moved = True
    if _state.at_full_priority:
        with _state.lock:
            for thread in _state.at_full_priority:
                lower_priority(NICENESS, thread)
            _state.at_full_priority.clear()


def give_way(cancel: threading.Event | None = None) -> None:
    """Pause while somebody moves, in proportion to how long this thread has worked.

    Parameters
    ----------
    cancel
        Ends the pause at once when it is set.
    """
    now = time.monotonic()
    if now - _state.moved_s < QUIET_S:
        worked = QUIET_S if _own.went_on_s is None else now - _own.went_on_s
        latest = now + min(worked * (1 / LEAST_SHARE - 1), MAX_PAUSE_S)
        while (left := min(latest, _state.moved_s + QUIET_S) - now) > 0:
            if cancel is None:
                time.sleep(left)
            elif cancel.wait(left):
                break
            now = time.monotonic()
    _own.went_on_s = now


@contextmanager
def behind_the_window() -> Iterator[None]:
    """Let this thread stand behind the window: wrap all that a thread of a run does."""
    thread = threading.get_native_id()
    _own.went_on_s = None
    with _state.lock:
        if _state.ever_moved:
            lower_priority(NICENESS, thread)
        else:
            _state.at_full_priority.add(thread)
    try:
        yield
    finally:
        with _state.lock:  # before the thread ends and the system gives its number away
            _state.at_full_priority.discard(thread)
