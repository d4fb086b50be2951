from __future__ import annotations

import threading
import time

import pytest

from napari_histomil.inference.prefetch import Crew


def test_everything_that_is_put_is_taken() -> None:
    numbers = iter(range(100))
    lock = threading.Lock()

    def work(crew: Crew[int]) -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            crew.put(number)

    with Crew(4, work, limit=3, name="test") as crew:
        taken = []
        while (number := crew.take()) is not None:
            taken.append(number)
    assert sorted(taken) == list(range(100))


def test_nobody_runs_far_ahead() -> None:
    made = 0

    def work(crew: Crew[int]) -> None:
        nonlocal made
        while True:
            made += 1
            crew.put(made)

    with Crew(1, work, limit=3, name="test") as crew:
        time.sleep(0.2)
        assert made == 4, "three wait, one is in hand"
        assert crew.take() == 1
    assert not [t for t in threading.enumerate() if t.name.startswith("test ")], "joined"


def test_the_first_error_wins() -> None:
    barrier = threading.Barrier(2)

    def work(crew: Crew[int]) -> None:
        if barrier.wait() == 0:
            raise ValueError("first")
        time.sleep(0.1)
        raise KeyError("second, because of the first")

    with Crew(2, work, limit=1, name="test") as crew:
        for _ in range(2):
            with pytest.raises(ValueError, match="first"):
                crew.take()
            time.sleep(0.2)


def test_waiting_has_an_end() -> None:
    release = threading.Event()
    with Crew(1, lambda crew: release.wait() or None, limit=1, name="test") as crew:
        with pytest.raises(TimeoutError):
            crew.take(timeout=0.1)
        release.set()
        assert crew.take() is None


def test_closing_frees_who_waits_to_put() -> None:
    def work(crew: Crew[int]) -> None:
        while True:
            crew.put(1)

    crew = Crew(3, work, limit=1, name="test")
    crew.close()  # else it would wait for them without end
