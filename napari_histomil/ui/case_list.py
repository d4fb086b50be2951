"""The cases of a review as they are listed: looked up by a thread, filtered, put in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psygnal import Signal

from napari_histomil.review import cases
from napari_histomil.review.cases import Row
from napari_histomil.review.predictions import SlideFacts
from napari_histomil.review.project import Case, Project
from napari_histomil.review.verdicts import VerdictLog
from napari_histomil.slides.slide import Uint8Image
from napari_histomil.ui import jobs
from napari_histomil.ui.review_ahead import gather


class CaseList:
    """Rows of cases; `Reviewing` adds the case that is read."""

    rows_changed = Signal()
    """Rows were added, changed, filtered or put in another order."""
    row_changed = Signal(str)
    """The row of that case, in the order that it has."""

    def __init__(self) -> None:
        self.project: Project | None = None
        self.log: VerdictLog | None = None
        self.thumbnails: dict[str, Uint8Image] = {}
        self.expression = ""
        self.by, self.descending, self.by_patient = "case", False, False
        self.shown: list[Row] = []
        """Rows in the order in which they are listed, without those that the filter leaves out."""
        self._rows: dict[str, Row] = {}
        self._facts: dict[str, SlideFacts] = {}
        self._problems: dict[str, str] = {}
        self._gathering: jobs.JobHandle | None = None

    def _begin(self, project: Project, log: VerdictLog) -> None:
        """List the cases of a project; what is stored about them comes in by and by."""
        self.project, self.log = project, log
        if project.blind:
            self.by = "case"
        self._rows = {row.case.name: row for row in cases.rows_of(project, log)}
        self._list()

        def arrived(found: Sequence[Any]) -> None:
            if self.project is project:
                self._on_gathered(found)

        self._gathering = gather(self.reading_order(), project, arrived)

    def _end(self) -> None:
        """List nothing."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        if self.log is not None:
            self.log.close()
        self.project = self.log = None
        self._rows, self._facts, self._problems, self.shown = {}, {}, {}, []
        self.thumbnails = {}

    @property
    def rows(self) -> list[Row]:
        """The rows of all cases, in the project's order."""
        return list(self._rows.values())

    @property
    def facts(self) -> Mapping[str, SlideFacts]:
        """What the disk knows of the cases that were looked up by now, by their names."""
        return self._facts

    def row(self, case: Case) -> Row:
        """Return the row of a case."""
        return self._rows[case.name]

    def list_by(
        self, by: str | None = None, *, descending: bool = False, patients: bool | None = None
    ) -> None:
        """List the cases in the order of a column; see `cases.ordered`."""
        if by is not None:
            self.by, self.descending = by, descending
        if patients is not None:
            self.by_patient = patients
        self._list()

    def filter(self, expression: str) -> None:
        """List the cases that an expression is true of.

        Raises
        ------
        ReviewError
            If it is none; what is listed stays.
        """
        cases.filtered([], expression)
        self.expression = expression
        self._list()

    def _list(self) -> None:
        rows = cases.filtered(self.rows, self.expression)
        blindly = self.project is not None and self.project.blind
        if blindly and self.by == "case":
            places = {case.name: n for n, case in enumerate(self.reading_order())}
            rows.sort(key=lambda row: places[row.case.name], reverse=self.descending)
            self.shown = rows
        else:
            self.shown = cases.ordered(
                rows, self.by, descending=self.descending, patients=self.by_patient
            )
        self.rows_changed.emit()

    def _on_gathered(self, found: Sequence[Any]) -> None:
        for name, facts, problem, thumbnail in found:
            if facts is not None:
                self._facts[name] = facts
            if problem:
                self._problems[name] = problem
            if thumbnail is not None:
                self.thumbnails[name] = thumbnail
        self._renew({name for name, *_ in found})
        self._list()

    def _renew(self, names: set[str]) -> None:
        if self.project is None or self.log is None:
            return
        for row in cases.rows_of(self.project, self.log, self._facts, self._problems, only=names):
            self._rows[row.case.name] = row

    def _update_row(self, case: Case) -> None:
        self._renew({case.name})
        for n, row in enumerate(self.shown):
            if row.case.name == case.name:
                self.shown[n] = self._rows[case.name]
        self.row_changed.emit(case.name)

    def reading_order(self) -> list[Case]:
        """Return the cases in the order in which they are read: drawn, or as they are listed."""
        if self.project is None or self.log is None:
            return []
        if self.project.blind:
            return cases.blind_order(self.project, self.log.reader)
        return [row.case for row in self.shown]
