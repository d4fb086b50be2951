"""The folds *Gallery* and *Embedding* of the Review dock: they open the wide panels below.

What is listed there is of all cases under review whose model's answer may be seen: of a case that
is read blindly nothing is, before its own answer is locked.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QDockWidget,
    QFileDialog,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.errors import HistomilError
from napari_histomil.review import blind
from napari_histomil.review.drift import drift_of, read_reference, verdict_of
from napari_histomil.review.gallery import Patch
from napari_histomil.review.project import Case
from napari_histomil.review.sources import gather, look_at
from napari_histomil.review.tags import tag_table, write_tag_table
from napari_histomil.review.tile_scores import TileScores
from napari_histomil.ui import jobs
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.gallery import gallery
from napari_histomil.ui.reviewing import Reviewing
from napari_histomil.ui.widgets.embedding import EmbeddingPanel
from napari_histomil.ui.widgets.forms import choice_box, form
from napari_histomil.ui.widgets.gallery import GalleryPanel
from napari_histomil.ui.widgets.icon_button import row
from napari_histomil.ui.widgets.panel import follow, plain_label
from napari_histomil.ui.words import count

CENTRES = ("centre", "center", "site", "scanner", "stain", "lab")
"""Columns of a project's table that say where a slide is from, the first of them that is there."""


class GalleryPart(QWidget):
    """From the cases under review to their tiles.

    Attributes
    ----------
    panels
        The panels that are open below, by name.
    """

    def __init__(self, state: Reviewing, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self._gallery = gallery(state.session.viewer)
        self._docks: dict[str, QDockWidget] = {}
        self._names: dict[str, str] = {}
        self.panels: dict[str, QWidget] = {}
        self.model_box = choice_box("Whose tiles are listed")
        self.truth_box = QCheckBox("annotations are the truth")
        self.truth_box.setToolTip("Inside Region* and without Ignore*: elsewhere nothing is known")
        self.full_box = QCheckBox("slides annotated whole")
        self.full_box.setToolTip("Somebody has annotated everything on all of these slides")
        self.full_box.setEnabled(False)
        self.truth_box.toggled.connect(self.full_box.setEnabled)
        self.gallery_button = QPushButton("Gallery…")
        self.gallery_button.setToolTip("List tiles worth a look as thumbnails, below the slide")
        self.gallery_button.clicked.connect(self.open_gallery)
        self.embedding_button = QPushButton("Embedding…")
        self.embedding_button.setToolTip("Lay the same tiles out by their features, beside this")
        self.embedding_button.clicked.connect(self.open_embedding)
        self.group_box = choice_box("What the tags are counted by")
        self.tags_button = QPushButton("Tags as a table…")
        self.tags_button.setToolTip("Count the tags of all readers and write them as CSV")
        self.tags_button.clicked.connect(self._ask_table)
        self.drift_button = QPushButton("Drift of this slide…")
        self.drift_button.setToolTip(
            "Hold stain, brightness, focus and features of the slide shown against a reference "
            "(made by histomil drift --make)"
        )
        self.drift_button.clicked.connect(self._ask_reference)
        self.words = plain_label()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(form(("Model", self.model_box)))
        column.addWidget(self.truth_box)
        column.addWidget(self.full_box)
        column.addWidget(row(self.gallery_button, self.embedding_button, spacing=6))
        column.addWidget(row(self.tags_button, self.group_box, stretch=1, spacing=6))
        column.addWidget(row(self.drift_button))
        column.addWidget(self.words)
        follow(self, state.project_changed, self._on_project)
        follow(self, state.rows_changed, self._on_rows)
        follow(self, state.case_changed, self._on_rows)
        self._on_project()

    # --- what is under review -----------------------------------------------------------------

    def _on_project(self) -> None:
        project, log = self._state.project, self._state.log
        if project is None:
            self._gallery.review(None)
        else:
            self._gallery.review(log, project.form, self._case_name)
        self.group_box.clear()
        self.group_box.addItem("by slide", "")
        for name in self._columns():
            self.group_box.addItem(f"by {name}", name)
        self._on_rows()

    def _columns(self) -> list[str]:
        project = self._state.project
        cases = () if project is None else project.cases
        return list(dict.fromkeys(name for case in cases for name in case.facts))

    def _case_name(self, patch: Patch) -> str:
        return self._names.get(patch.fingerprint, patch.slide.name)

    def _seen(self) -> list[Case]:
        """Return the cases whose model's answer may be seen."""
        project, log = self._state.project, self._state.log
        if project is None or log is None:
            return []
        if not project.blind:
            return list(project.cases)
        locked = blind.own_answers(log)
        return [case for case in project.cases if case.name in locked]

    def _on_rows(self) -> None:
        self._names = {facts.fingerprint: name for name, facts in self._state.facts.items()}
        names = dict.fromkeys(
            prediction.model
            for facts in self._state.facts.values()
            for prediction in facts.predictions
        )
        if list(names) != [self.model_box.itemText(n) for n in range(self.model_box.count())]:
            before = self.model_box.currentText()
            self.model_box.clear()
            self.model_box.addItems(list(names))
            self.model_box.setCurrentIndex(max(self.model_box.findText(before), 0))
        runs = self.runs()
        for button in (self.gallery_button, self.embedding_button):
            button.setEnabled(bool(runs))
        self.tags_button.setEnabled(self._state.log is not None)
        project = self._state.project
        if project is None:
            words = "Open a review first; or take the tiles of any result in the panel itself."
        elif not runs:
            words = "No case has a stored result that may be seen yet."
        else:
            words = f"{count(len(runs))} of {count(len(project.cases))} cases have a result."
        self.words.setText(words)

    def runs(self) -> list[Path]:
        """Return the runs of the chosen model over all cases that may be seen."""
        model = self.model_box.currentText()
        return [
            prediction.run
            for case in self._seen()
            if case.name in self._state.facts
            for prediction in self._state.facts[case.name].predictions
            if prediction.model == model
        ]

    # --- the panels ---------------------------------------------------------------------------

    def open_gallery(self) -> None:
        """Show the gallery below the slide, and take the tiles of the cases."""
        panel = self._open("Gallery", GalleryPanel, "bottom")
        assert isinstance(panel, GalleryPanel)
        project = self._state.project
        runs, truth = self.runs(), self.truth_box.isChecked()
        full = self.full_box.isChecked()
        target = None if project is None or not project.target else project.target
        if project is not None:
            panel.threshold_box.setValue(project.threshold)
        panel.truth_box.setChecked(truth)
        panel.full_box.setChecked(full)
        if not truth:
            panel.kind_box.setCurrentText("highest")

        def read(cancel: Any) -> Iterator[TileScores]:
            for each in gather(runs, target, annotated=truth, fully_annotated=full):
                if cancel.is_set():
                    return
                yield each

        if runs:
            panel.read(read)

    def open_embedding(self) -> None:
        """Show the embedding below the slide; the gallery's tiles are taken where none are."""
        panel = self._open("Embedding", EmbeddingPanel, "right")
        assert isinstance(panel, EmbeddingPanel)
        project = self._state.project
        if project is not None:
            panel.threshold = project.threshold
            panel.set_groups(self._groups())
        if not self._gallery.tiles:
            self.open_gallery()

    def _groups(self) -> dict[str, str]:
        """Return where each slide is from, by its file name."""
        columns = {name.casefold(): name for name in self._columns()}
        found = next((columns[name] for name in CENTRES if name in columns), None)
        project = self._state.project
        if found is None or project is None:
            return {}
        return {case.slide.name: case.facts.get(found, "") for case in project.cases}

    def _open(self, name: str, kind: type[QWidget], area: str) -> QWidget:
        window = getattr(self._state.session.viewer, "window", None)
        if name not in self._docks and window is not None:
            panel = kind(self._state.session.viewer)
            dock = window.add_dock_widget(panel, name=name, area=area, tabify=True)
            dock.destroyed.connect(lambda: self._forget(name))
            self.panels[name], self._docks[name] = panel, dock
        self._docks[name].show()
        self._docks[name].raise_()
        return self.panels[name]

    def _forget(self, name: str) -> None:
        self._docks.pop(name, None)
        self.panels.pop(name, None)

    # --- drift --------------------------------------------------------------------------------

    def _ask_reference(self) -> None:
        dialog = QFileDialog(self, "A reference of slides", "", "Reference (*.json)")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.fileSelected.connect(lambda file: self.say_drift(Path(file)))
        dialog.open()

    def say_drift(self, reference: Path) -> None:
        """Say whether the slide that is shown looks like those of a reference."""
        slide = self._state.session.active
        if slide is None:
            self.words.setText("Open a slide first.")
            return
        path = slide.info.path

        def work(_cancel: threading.Event) -> Iterator[str]:
            known = read_reference(reference)
            look = look_at(path)
            yield verdict_of(look, drift_of(look, known))

        self.words.setText(f"Looking at {path.name}…")
        jobs.start(
            work,
            on_progress=lambda said: self.words.setText(said[-1]),
            on_done=lambda _: None,
            on_error=self._on_drift_failed,
            title="looking at a slide's tissue",
            owner=self,
        )

    def _on_drift_failed(self, error: Exception) -> None:
        self._on_rows()
        show_error(error, self)

    # --- tags ---------------------------------------------------------------------------------

    def _ask_table(self) -> None:
        dialog = QFileDialog(self, "Tags as a table", "tags.csv", "Table (*.csv)")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix("csv")
        dialog.fileSelected.connect(lambda file: self.write_tags(Path(file)))
        dialog.open()

    def write_tags(self, path: Path) -> None:
        """Write how often each tag was given, by what is chosen."""
        project, log = self._state.project, self._state.log
        if project is None or log is None:
            return
        column = self.group_box.currentData()
        groups = {
            case.name: case.facts.get(column, "") if column else case.slide.name
            for case in project.cases
        }
        tags = next((q.name for q in project.form.about("place") if q.kind == "tags"), "tags")
        try:
            table = tag_table(log.latest(), groups, tags)
            write_tag_table(table, path)
        except HistomilError as error:
            show_error(error, self)
            return
        self.words.setText(
            f"{count(int(table.judged.sum()))} places with {count(len(table.answers))} tags are "
            f"in {path.name}."
        )
