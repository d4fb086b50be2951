"""What threads need to know of the machine: how many cores they may use, and who goes first."""

from __future__ import annotations

import os
import sys
import threading


def core_count() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def lower_priority(niceness: int, thread: int | None = None) -> None:
    """Let a thread stand behind others; without privileges there is no way back.

    Only Linux knows a priority of each thread; elsewhere, and where a sandbox forbids it, nothing
    is done.

    Parameters
    ----------
    niceness
        0 is ordinary, 19 the least; a thread that has as much already stays as it is.
    thread
        Number that the system gives the thread (``threading.get_native_id``); this one if None.
    """
    if sys.platform != "linux":
        return
    if thread is None:
        thread = threading.get_native_id()
    try:
        if os.getpriority(os.PRIO_PROCESS, thread) < niceness:
            os.setpriority(os.PRIO_PROCESS, thread, niceness)
    except OSError:  # a sandbox may forbid it
        return
