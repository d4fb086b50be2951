from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from napari_histomil.inference import courtesy
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


def test_it_costs_nothing_while_nobody_moves() -> None:
    start = time.perf_counter()
    for _ in range(10_000):
        give_way()
    assert time.perf_counter() - start < 0.2, "20 microseconds each"


def test_a_pause_ends_when_the_person_has_stopped() -> None:
    person_moves()
    start = time.perf_counter()
    give_way()
    assert QUIET_S * 0.5 < time.perf_counter() - start < QUIET_S * 4
    start = time.perf_counter()
    give_way()
    assert time.perf_counter() - start < QUIET_S / 2, "nobody has moved since"


def test_a_run_never_starves() -> None:
    """Somebody who never stops leaves a thread its share: no less, and not much more."""
    worked = 0.0
    with somebody_moving():
        give_way()
        begin = time.perf_counter()
        for _ in range(6):
            start = time.perf_counter()
            while time.perf_counter() - start < 0.03:
                sum(range(100))
            worked += time.perf_counter() - start
            give_way()
        share = worked / (time.perf_counter() - begin)
    assert LEAST_SHARE / 2 < share < 0.5


def test_a_cancel_ends_the_pause() -> None:
    cancel = threading.Event()
    with somebody_moving():
        threading.Timer(0.05, cancel.set).start()
        start = time.perf_counter()
        give_way(cancel)
        assert time.perf_counter() - start < QUIET_S * 3


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


def test_answers_are_the_same_while_somebody_moves(tmp_path: Path, make_job: MakeJob) -> None:
    job = make_job()
    seconds = {}
    scores = {}
    for name in ("alone", "watched"):
        start = time.perf_counter()
        if name == "alone":
            *_, last = run(job, out=tmp_path / name, device="cpu")
        else:
            with somebody_moving():
                *_, last = run(job, out=tmp_path / name, device="cpu")
        seconds[name] = time.perf_counter() - start
        scores[name] = RunStore.open(last.store).scores
    np.testing.assert_array_equal(scores["watched"], scores["alone"])
    assert np.ptp(scores["alone"], axis=0).max() > 0.02, "else nothing was tested"
    assert seconds["watched"] > 1.5 * seconds["alone"], "it gave way"


def test_a_cancelled_run_stops_though_somebody_moves(tmp_path: Path, make_job: MakeJob) -> None:
    cancel = threading.Event()
    with somebody_moving():
        steps = run(make_job(), out=tmp_path, device="cpu", cancel=cancel)
        next(steps)
        next(steps)
        cancel.set()
        start = time.perf_counter()
        list(steps)
        assert time.perf_counter() - start < 1
