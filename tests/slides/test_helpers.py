"""Idle cores that help: everything is done once, errors come through, readers never wait."""

from __future__ import annotations

import threading

import pytest

from napari_histomil.slides.helpers import Helpers


@pytest.mark.parametrize("cores", [1, 2, 4])
def test_everything_is_done_once(cores: int):
    helpers = Helpers(cores)
    for count in (0, 1, 2, 100):
        done: list[int] = []
        helpers.share(done.append, range(count))
        assert sorted(done) == list(range(count))


def test_two_items_are_worked_on_at_once():
    meeting = threading.Barrier(2, timeout=10)
    helpers = Helpers(2)
    helpers.share(lambda item: meeting.wait() and None, [1, 2])


def test_a_second_reader_gets_no_helper_and_does_not_wait():
    helpers = Helpers(2)
    started, go_on = threading.Event(), threading.Event()

    def slow(item: int) -> None:
        started.set()
        assert go_on.wait(10)

    first = threading.Thread(target=helpers.share, args=(slow, [1]))
    first.start()
    assert started.wait(10)
    by: set[int] = set()
    helpers.share(lambda item: by.add(threading.get_ident()), range(50))
    assert by == {threading.get_ident()}
    go_on.set()
    first.join()


@pytest.mark.parametrize("bad", range(4))
def test_an_error_comes_through(bad: int):
    helpers = Helpers(3)

    def work(item: int) -> None:
        if item == bad:
            raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match=f"item {bad}"):
        helpers.share(work, range(4))
    done: list[int] = []
    helpers.share(done.append, range(8))
    assert sorted(done) == list(range(8))
