"""Idle cores help a read of several tiles.

Decoders let other threads run, so the tiles of one region can be decoded side by side. Helpers
are taken only while fewer threads read than there are cores: many readers do not need them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from napari_histomil.slides.threads import core_count

Item = TypeVar("Item")


class Helpers:
    """Threads that share the work of whoever reads; for use from several threads.

    Parameters
    ----------
    cores
        So many threads, readers and helpers together, work at most; readers are never held up.
    """

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._busy = 0
        self._lock = threading.Lock()
        self._pool = (
            ThreadPoolExecutor(cores - 1, thread_name_prefix="tiles") if cores > 1 else None
        )

    def share(self, work: Callable[[Item], None], items: Sequence[Item]) -> None:
        """Do `work` for each item, in this thread and in idle ones.

        The first error is raised, when nobody works on an item any more.
        """
        left = iter(items)

        def run() -> None:
            for item in left:  # an iterator of a sequence gives each item to one thread
                work(item)

        with self._lock:
            self._busy += 1
            helping = max(min(self._cores - self._busy, len(items) - 1), 0)
            self._busy += helping
        try:
            if not helping or self._pool is None:
                run()
                return
            futures = [self._pool.submit(run) for _ in range(helping)]
            try:
                run()
            finally:
                errors = [
                    future.exception() for future in futures if not future.cancel()
                ]  # waits for those who have begun
            for error in errors:
                if error is not None:
                    raise error
        finally:
            with self._lock:
                self._busy -= 1 + helping


@cache
def shared_helpers() -> Helpers:
    """Return the process's helpers."""
    return Helpers(core_count())
