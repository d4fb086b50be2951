"""The button that writes the report of a review: asked where, written beside the window."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog, QPushButton, QWidget

from napari_histomil.review.judging import judge_runs
from napari_histomil.review.project import Project
from napari_histomil.review.project_report import cases_of_project, reader_tables
from napari_histomil.review.report import ReportOptions, write_report
from napari_histomil.review.truth_files import Case
from napari_histomil.ui import jobs
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.reviewing import Reviewing
from napari_histomil.ui.widgets.panel import follow


class ReportButton(QPushButton):
    """Writes the report of the project under review, and opens it."""

    def __init__(self, state: Reviewing, parent: QWidget | None = None) -> None:
        super().__init__("Report…", parent)
        self._state = state
        self._job: jobs.JobHandle | None = None
        self.clicked.connect(self._ask)
        follow(self, state.project_changed, self._update)
        self._update()

    def _update(self) -> None:
        ready = self._state.project is not None and self._job is None
        self.setEnabled(ready)
        self.setToolTip(
            "Write scores, plots, maps and worst errors as one HTML, without names; JSON and CSV "
            "beside it"
            if ready
            else "It is being written"
            if self._job is not None
            else "Open a review first"
        )

    def _ask(self) -> None:
        project = self._state.project
        assert project is not None, "the button is enabled"
        dialog = QFileDialog(self, "Write the report", str(project.path.parent), "Report (*.html)")
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix("html")
        dialog.selectFile("report.html")
        dialog.fileSelected.connect(lambda path: self.write(project, Path(path)))
        dialog.open()

    def write(self, project: Project, path: Path, *, show: bool = True) -> None:
        """Write the report of a project beside the window, and show it in the browser."""

        def work(cancel: threading.Event) -> Iterator[str]:
            def counted(cases: list[Case]) -> Iterator[Case]:
                for case in cases:
                    if cancel.is_set():
                        raise _Stopped
                    yield case

            yield "…"
            try:
                cases, question, _ = cases_of_project(project)
                found = judge_runs(cases, question, watch=counted)
                options = ReportOptions(tables=reader_tables(project))
                write_report(path, found, cases, options, watch=counted)
            except _Stopped:
                return
            yield "done"

        def progress(values: list[str]) -> None:
            if values[-1] == "done" and show:
                QDesktopServices.openUrl(QUrl.fromLocalFile(str(path)))

        def over(_: object = None) -> None:
            self._job = None
            self._update()

        def failed(error: Exception) -> None:
            over()
            show_error(error, self)

        self._job = jobs.start(
            work,
            on_progress=progress,
            on_done=over,
            on_error=failed,
            title="the writing of a report",
            owner=self,
        )
        self._update()


class _Stopped(Exception):
    """Nobody waits for the report any more."""
