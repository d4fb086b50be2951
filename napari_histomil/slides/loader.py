"""A few threads that fetch pixels beside the window, what is looked at first.

Whoever looks at a slide (`look.Look`) or fills its overview (`overview.Overview`) is a client and
says at any time what it wants now. That takes the place of what it wanted before: what has left
the view is never fetched. Nothing here knows what a job does.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cache

from napari_histomil.slides.threads import core_count, lower_priority

MAX_THREADS = 8
"""More than that only wait for each other where Python's own lock is needed."""

LINGER_S = 5.0
"""How long a thread without work waits for some."""

NICENESS = 2
"""The window's own thread comes first where cores are few."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to fetch."""

    rank: float
    """The lowest of all clients' is done first."""
    key: Hashable
    """What tells it from the client's other jobs."""
    run: Callable[[], None]
    """Called in a thread of the loader; deals with errors of its own."""


class Loader:
    """Threads that do their clients' jobs in the order of rank.

    They begin with the first job, and end when the last client leaves or nobody has wanted
    anything for `LINGER_S`.

    Parameters
    ----------
    threads
        How many jobs may be done at once.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._alive = 0
        self._idle = 0
        self._jobs: dict[Hashable, deque[Job]] = {}
        self._running: set[tuple[Hashable, Hashable]] = set()
        self._ending = False
        self._changed = threading.Condition()

    def want(self, client: Hashable, jobs: Iterable[Job]) -> None:
        """Set what a client wants from now on; what is being done just now is not done again."""
        with self._changed:
            new = [job for job in jobs if (client, job.key) not in self._running]
            wanted = deque(sorted(new, key=lambda job: job.rank))
            if not wanted:
                self._jobs.pop(client, None)
                return
            self._ending = False
            self._jobs[client] = wanted
            self._changed.notify(min(len(wanted), self._idle))
            for _ in range(min(len(wanted) - self._idle, self._threads - self._alive)):
                self._alive += 1
                threading.Thread(target=self._work, name="slide loader", daemon=True).start()

    def leave(self, client: Hashable) -> None:
        """Drop all that a client wants; a job that is being done just now is done to its end."""
        with self._changed:
            self._jobs.pop(client, None)
            self._ending = not self._jobs
            self._changed.notify_all()

    def _work(self) -> None:
        lower_priority(NICENESS)
        while True:
            with self._changed:
                while (taken := self._take()) is None:
                    self._idle += 1
                    called = not self._ending and self._changed.wait(LINGER_S)
                    self._idle -= 1
                    if not called and not self._jobs:
                        self._alive -= 1
                        return
            client, job = taken
            try:
                job.run()
            # The edge of the thread: jobs tell the errors they know of to their clients.
            except Exception:  # noqa: BLE001
                _log.exception("a job of the slide loader failed")
            finally:
                with self._changed:
                    self._running.discard((client, job.key))
            del client, job, taken  # an idle thread keeps no slide in memory

    def _take(self) -> tuple[Hashable, Job] | None:
        if not self._jobs:
            return None
        client = min(self._jobs, key=lambda each: self._jobs[each][0].rank)
        jobs = self._jobs[client]
        job = jobs.popleft()
        if not jobs:
            del self._jobs[client]
        self._running.add((client, job.key))
        return client, job


@cache
def shared_loader() -> Loader:
    """Return the process's one loader."""
    return Loader(max(min(core_count(), MAX_THREADS), 2))
