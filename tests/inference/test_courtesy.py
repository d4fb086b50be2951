from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest

from napari_histomil.inference import courtesy, prefetch
from napari_histomil.inference.courtesy import (
    LEAST_SHARE,
    NICENESS,
    QUIET_S,
    behind_the_window,
    give_way,
    person_moves,
)
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import Job
from napari_histomil.results import RunStore

MakeJob = Callable[..., Job]


@pytest.fixture(autouse=True)
def _nobody_moved_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courtesy, "_state", courtesy._State())
    monkeypatch.setattr(courtesy, "_own", courtesy._Own())


@contextmanager
def somebody_moving() -> Iterator[None]:
    """Move the view 60 times a second, from a thread of its own."""
    stop = threading.Event()

    def move() -> None:
        while not stop.wait(1 / 60):
            person_moves()

    person_moves()
    mover = threading.Thread(target=move)
    mover.start()
    try:
        yield
    finally:
        stop.set()
        mover.join()


class Clock:
    """Stands for the module `time` in `courtesy`; somebody may move while it is slept."""

    def __init__(self) -> None:
        self.now_s, self.slept_s = 100.0, 0.0
        self.somebody_moves = False

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.slept_s += seconds
        if self.somebody_moves:
            person_moves()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(courtesy, "time", clock)
    return clock


def test_nothing_is_waited_for_while_nobody_moves(clock: Clock) -> None:
    for _ in range(100):
        give_way()
    assert clock.slept_s == 0


def test_a_pause_ends_when_the_person_has_stopped(clock: Clock) -> None:
    person_moves()
    give_way()
    assert clock.slept_s == pytest.approx(QUIET_S)
    give_way()
    assert clock.slept_s == pytest.approx(QUIET_S), "nobody has moved since"


def test_a_run_never_starves(clock: Clock) -> None:
    """Somebody who never stops leaves a thread its share: no less, and not much more."""
    clock.somebody_moves = True
    person_moves()
    give_way()
    begin, worked_s = clock.now_s, 0.0
    for _ in range(6):
        clock.now_s += 0.03
        worked_s += 0.03
        person_moves()
        give_way()
    assert worked_s / (clock.now_s - begin) == pytest.approx(LEAST_SHARE)


def test_a_cancel_ends_the_pause(clock: Clock) -> None:
    class Cancel(threading.Event):
        """Somebody who never stops moving cancels in the first look."""

        def wait(self, timeout: float | None = None) -> bool:
            clock.sleep(timeout or 0.0)
            return True

    clock.somebody_moves = True
    person_moves()
    give_way(Cancel())
    assert clock.slept_s == pytest.approx(QUIET_S)
    give_way()
    assert clock.slept_s > 2 * QUIET_S, "without it the pause is longer"


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_threads_of_a_run_stand_behind_the_window_once_somebody_moved() -> None:
    """In the middle of a piece, where they cannot be paused; never the thread that moves."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    seen: list[int] = []
    steps = [threading.Event() for _ in range(2)]

    def work() -> None:
        with behind_the_window():
            seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            steps[0].set()
            steps[1].wait(5)
            seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    thread = threading.Thread(target=work)
    thread.start()
    steps[0].wait(5)
    person_moves()
    steps[1].set()
    thread.join()
    assert seen == [own, max(own, NICENESS)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own
    assert not courtesy._state.at_full_priority


def test_answers_are_the_same_while_somebody_moves(
    tmp_path: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused_s: Counter[str] = Counter()
    scores = {}
    job = make_job()
    for name in ("alone", "watched"):

        def timed_give_way(cancel: threading.Event, name: str = name) -> None:
            begin = time.monotonic()
            give_way(cancel)
            paused_s[name] += time.monotonic() - begin

        monkeypatch.setattr(prefetch, "give_way", timed_give_way)
        with somebody_moving() if name == "watched" else nullcontext():
            *_, last = run(job, out=tmp_path / name, device="cpu")
        scores[name] = RunStore.open(last.store).scores
    np.testing.assert_array_equal(scores["watched"], scores["alone"])
    assert np.ptp(scores["alone"], axis=0).max() > 0.02, "else nothing was tested"
    assert paused_s["watched"] > max(QUIET_S, paused_s["alone"]), "it gave way"


def test_a_cancelled_run_stops_though_somebody_moves(tmp_path: Path, make_job: MakeJob) -> None:
    cancel = threading.Event()
    with somebody_moving():
        steps = run(make_job(), out=tmp_path, device="cpu", cancel=cancel)
        next(steps)
        next(steps)
        cancel.set()
        last = next(reversed(list(steps)), None)
    assert last is None or last.done < last.total
