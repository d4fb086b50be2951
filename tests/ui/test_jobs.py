"""Jobs: what comes, in which thread, and that they end cleanly however they are stopped."""

from __future__ import annotations

import logging
import threading
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import pytest
from qtpy.QtCore import QThread, QThreadPool
from qtpy.QtWidgets import QApplication, QWidget

from napari_histomil.errors import RunError
from napari_histomil.ui import jobs


@dataclass
class Heard:
    """Everything a job said, and whether it said it on the GUI thread."""

    values: list[int] = field(default_factory=list)
    calls: int = 0
    done: list[Any] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    on_gui_thread: set[bool] = field(default_factory=set)

    def _note(self) -> None:
        self.on_gui_thread.add(QThread.currentThread() is QApplication.instance().thread())

    def progress(self, values: list[int]) -> None:
        self._note()
        self.calls += 1
        self.values += values

    def finished(self, value: Any) -> None:
        self._note()
        self.done.append(value)

    def failed(self, error: Exception) -> None:
        self._note()
        self.errors.append(error)

    def start(self, generate: jobs.Generate, **options: Any) -> jobs.JobHandle:
        return jobs.start(
            generate,
            on_progress=self.progress,
            on_done=self.finished,
            on_error=self.failed,
            **options,
        )


def test_all_values_arrive_on_the_gui_thread_but_seldom(qtbot):
    heard = Heard()
    worked_in = []

    def count(cancel):
        worked_in.append(threading.current_thread())
        for i in range(600):
            time.sleep(0.001)
            yield i
        return "the end"

    began = time.perf_counter()
    job = heard.start(count)
    assert job.running
    qtbot.waitUntil(lambda: bool(heard.done), timeout=5000)
    seconds = time.perf_counter() - began

    assert heard.values == list(range(600))
    assert heard.done == ["the end"]
    assert heard.errors == []
    assert not job.running
    assert not job.cancelled
    assert heard.on_gui_thread == {True}
    assert worked_in[0] is not threading.main_thread()
    assert heard.calls <= seconds * 1000 / jobs.REFRESH_MS + 1  # + 1: the rest at the end


@pytest.mark.parametrize("listens", [True, False])
def test_cancel_runs_the_finally_in_the_jobs_own_thread(qtbot, listens):
    heard, closed_in = Heard(), []

    def endless(cancel):
        try:
            i = 0
            while not (listens and cancel.is_set()):
                time.sleep(0.01)
                yield i
                i += 1
        finally:
            closed_in.append(threading.current_thread())

    job = heard.start(endless)
    qtbot.waitUntil(lambda: bool(heard.values), timeout=5000)
    job.cancel()
    qtbot.waitUntil(lambda: bool(heard.done), timeout=5000)

    assert heard.done == [None]
    assert heard.errors == []
    assert job.cancelled
    assert len(closed_in) == 1
    assert closed_in[0] is not threading.main_thread()


@pytest.mark.parametrize("error", [RunError("The disk is full."), RuntimeError("CUDA is gone")])
@pytest.mark.parametrize("when", ["at once", "later"])
def test_an_error_is_heard_once_after_what_came_before(qtbot, error, when):
    heard = Heard()

    def fail(cancel):
        if when == "later":
            yield 1
        raise error

    job = heard.start(fail)
    qtbot.waitUntil(lambda: bool(heard.errors), timeout=5000)
    assert heard.errors == [error]
    assert heard.values == ([1] if when == "later" else [])
    assert heard.done == []
    assert heard.on_gui_thread == {True}
    assert not job.running


def test_a_warning_goes_to_the_log_and_nowhere_else(qtbot, caplog):
    heard = Heard()

    def warn(cancel):
        warnings.warn("half of the model is missing", UserWarning, stacklevel=1)
        yield 1

    with caplog.at_level(logging.WARNING, logger="napari_histomil.ui.jobs"):
        heard.start(warn)
        qtbot.waitUntil(lambda: bool(heard.done and caplog.records), timeout=5000)
    assert "half of the model is missing" in caplog.text
    assert heard.errors == []


def test_a_job_whose_widget_is_gone_stops_in_silence(qtbot):
    heard, closed, owner = Heard(), threading.Event(), QWidget()

    def endless(cancel):
        try:
            while True:
                time.sleep(0.01)
                yield 1
        finally:
            closed.set()

    job = heard.start(endless, owner=owner)
    qtbot.waitUntil(lambda: bool(heard.values), timeout=5000)
    said = len(heard.values)
    owner.deleteLater()
    qtbot.waitUntil(lambda: not job.running, timeout=5000)
    assert closed.is_set()
    assert heard.done == []
    assert heard.errors == []
    assert len(heard.values) - said <= 2 * jobs.REFRESH_MS / 10  # at most one more delivery


def test_closing_napari_stops_the_job(qtbot, make_napari_viewer):
    viewer, heard, closed = make_napari_viewer(), Heard(), threading.Event()

    def endless(cancel):
        try:
            while not cancel.is_set():
                time.sleep(0.01)
                yield 1
        finally:
            closed.set()

    job = heard.start(endless, title="the run of a model")
    qtbot.waitUntil(lambda: bool(heard.values), timeout=5000)
    states = viewer.window._task_status_manager.get_status()
    assert any("Executing the run of a model" in state for state in states)
    viewer.close()
    assert job.cancelled
    assert closed.wait(1)
    assert QThreadPool.globalInstance().waitForDone(1000)
    qtbot.waitUntil(lambda: not job.running, timeout=5000)
