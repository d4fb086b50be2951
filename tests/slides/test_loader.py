"""The loader does what is wanted most first, and nothing that is wanted no more."""

from __future__ import annotations

import threading
import time

from napari_histomil.slides.loader import Job, Loader


def wait_for(true) -> None:
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def busy(loader: Loader) -> threading.Event:
    """Occupy the one thread of a loader until the event is set."""
    go, begun = threading.Event(), threading.Event()

    def run() -> None:
        begun.set()
        assert go.wait(5)

    loader.want("busy", [Job(-9.0, "busy", run)])
    assert begun.wait(5)
    return go


def test_the_lowest_rank_of_all_clients_comes_first():
    loader, done = Loader(1), []
    go = busy(loader)
    loader.want("a", [Job(rank, rank, lambda rank=rank: done.append(rank)) for rank in (3, 1)])
    loader.want("b", [Job(rank, rank, lambda rank=rank: done.append(rank)) for rank in (4, 2)])
    go.set()
    wait_for(lambda: len(done) == 4)
    assert done == [1, 2, 3, 4]


def test_what_left_the_view_is_not_done():
    loader, done = Loader(1), []
    go = busy(loader)
    loader.want("a", [Job(0, key, lambda key=key: done.append(key)) for key in "xyz"])
    loader.want("a", [Job(0, "w", lambda: done.append("w"))])
    loader.want("b", [Job(0, "v", lambda: done.append("v"))])
    loader.leave("b")
    go.set()
    wait_for(lambda: done)
    loader.want("a", [Job(0, "end", lambda: done.append("end"))])
    wait_for(lambda: "end" in done)
    assert done == ["w", "end"]


def test_a_failing_job_stops_nobody(caplog):
    loader, done = Loader(1), []

    def fail() -> None:
        raise ValueError("on purpose")

    loader.want("a", [Job(0, "fails", fail), Job(1, "works", lambda: done.append(1))])
    wait_for(lambda: done)
    assert "on purpose" in caplog.text


def test_threads_end_with_the_last_client():
    before = threading.active_count()
    loader, done = Loader(3), []
    loader.want("a", [Job(0, n, lambda n=n: done.append(n)) for n in range(20)])
    wait_for(lambda: len(done) == 20)
    assert before < threading.active_count() <= before + 3
    loader.leave("a")
    wait_for(lambda: threading.active_count() == before)
