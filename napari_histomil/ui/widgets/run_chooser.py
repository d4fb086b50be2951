"""Which result lies over the slide: the shown runs, those found on disk, one from elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QPushButton, QWidget

from napari_histomil.errors import RunError
from napari_histomil.results import MilRun, find_results, open_result
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui import jobs
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.overlays import Overlays
from napari_histomil.ui.run_facts import AnyStore, made_by, title
from napari_histomil.ui.widgets.panel import follow

_LISTED = 30
"""Stored runs that are listed, the one worked on last first."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """One entry of the list."""

    path: Path
    title: str
    tooltip: str


class RunChooser(QWidget):
    """A list of the active slide's results, and a button for one from elsewhere."""

    def __init__(self, overlays: Overlays, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._overlays = overlays
        self._looking: jobs.JobHandle | None = None
        self.run_box = QComboBox()
        self.run_box.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.run_box.activated.connect(self._choose)
        self.open_button = QPushButton("Open…")
        self.open_button.setToolTip("Open the folder of a run (<id>.zarr) that lies elsewhere")
        self.open_button.clicked.connect(self._ask_path)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        row.addWidget(self.run_box, 1)
        row.addWidget(self.open_button)
        follow(self, overlays.session.active_changed, self.look)
        follow(self, overlays.session.runs_changed, self.look)
        follow(self, overlays.current_changed, self._select_current)
        self.look()

    def look(self) -> None:
        """List the runs of the active slide; the disk is read beside the window."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        slide = self._overlays.session.active
        self.open_button.setEnabled(slide is not None)
        self._fill([])  # what is shown is known at once; what is stored comes when it is found
        if slide is None:
            return
        info = slide.info

        def find(cancel: threading.Event) -> Iterator[list[_Stored]]:
            yield _stored_runs(info, cancel)

        def found(lists: list[list[_Stored]]) -> None:
            if self._looking is job:  # else the person has gone on to another slide
                self._fill(lists[-1])

        job = jobs.start(
            find,
            on_progress=found,
            on_done=lambda _: None,
            on_error=lambda error: show_error(error, self, info=info),
            title="the search for stored runs",
            owner=self,
        )
        self._looking = job

    def open(self, path: Path) -> None:
        """Lay a stored run over its slide; it is read beside the window."""

        def read(cancel: threading.Event) -> Iterator[AnyStore]:
            yield open_result(path)

        jobs.start(
            read,
            on_progress=lambda stores: self._add(stores[0]),
            on_done=lambda _: None,
            on_error=self._failed,
            title="the opening of a run",
            owner=self,
        )

    def _add(self, store: AnyStore) -> None:
        try:
            run = self._overlays.add(store)
        except RunError as error:
            self._failed(error)
            return
        if run.slide is not self._overlays.session.active:
            self._overlays.session.show_only(run.slide)

    def _failed(self, error: Exception) -> None:
        self._select_current()
        show_error(error, self)

    def _fill(self, stored: list[_Stored]) -> None:
        slide = self._overlays.session.active
        shown = self._overlays.session.runs_of(slide) if slide is not None else []
        entries = [_Stored(run.store.path, title(run.store), made_by(run.store)) for run in shown]
        known = {entry.path.resolve() for entry in entries}
        entries += [entry for entry in stored if entry.path.resolve() not in known]
        self.run_box.clear()
        for entry in entries:
            self.run_box.addItem(entry.title, entry.path)
            index = self.run_box.count() - 1
            self.run_box.setItemData(index, entry.tooltip, Qt.ItemDataRole.ToolTipRole)
        self.run_box.setEnabled(bool(entries))
        if slide is None:
            words, why = "no slide is open", "Open a slide first"
        elif not entries:
            words, why = "no results yet", "This slide has no stored results: see the Run dock"
        else:
            words, why = f"choose one of {len(entries)}…", "Results of this slide, newest first"
        self.run_box.setPlaceholderText(words)
        self.run_box.setToolTip(why)
        self._select_current()

    def _select_current(self, _: Any = None) -> None:
        current = self._overlays.current
        index = -1 if current is None else self.run_box.findText(title(current.store))
        if current is not None:
            paths = [self.run_box.itemData(i) for i in range(self.run_box.count())]
            index = paths.index(current.store.path) if current.store.path in paths else -1
        self.run_box.setCurrentIndex(index)

    def _choose(self, index: int) -> None:
        path: Path = self.run_box.itemData(index)
        for run in self._overlays.session.runs:
            if run.store.path == path:
                self._overlays.choose(run)
                return
        self.open(path)

    def _ask_path(self) -> None:
        slide = self._overlays.session.active
        start = str(slide.info.path.parent) if slide is not None else ""
        chosen = QFileDialog.getExistingDirectory(self, "Open a run (a folder <id>.zarr)", start)
        if chosen:
            self.open(Path(chosen))


def _stored_runs(info: SlideInfo, cancel: threading.Event) -> list[_Stored]:
    entries = []
    for path in find_results(info)[:_LISTED]:
        if cancel.is_set():
            break
        try:
            store = open_result(path)
        except RunError as error:
            # It can be chosen, and a dialog says then why it cannot be read: Qt shows no tooltips
            # for entries that are disabled.
            entries.append(_Stored(path, f"{path.name}: cannot be read", str(error)))
            continue
        if isinstance(store, MilRun):
            entries.append(_Stored(path, title(store), made_by(store)))
            continue
        done, total = int(store.done_tiles.sum()), len(store.grid)
        part = "" if done == total else f" ({done} of {total} tiles)"
        entries.append(_Stored(path, title(store) + part, made_by(store)))
    return entries
