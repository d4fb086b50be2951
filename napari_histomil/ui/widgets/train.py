"""The Train dock: what, from what, how; then a training that goes on beside the window."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import QSignalBlocker, QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QComboBox,
    QDockWidget,
    QFileDialog,
    QHBoxLayout,
    QPushButton,
    QWidget,
)

from napari_histomil.errors import HistomilError
from napari_histomil.files import whole_file
from napari_histomil.manifest import ModelManifest
from napari_histomil.training.config import TrainingConfig, read_config
from napari_histomil.ui import jobs
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.preferences import PLUGIN
from napari_histomil.ui.session import session
from napari_histomil.ui.training_choices import Choices, Kept, Task
from napari_histomil.ui.training_data import classes_of, renamed
from napari_histomil.ui.training_job import (
    Plan,
    all_unfinished,
    earlier_rows,
    toml_of,
    train_steps,
    unfinished,
)
from napari_histomil.ui.training_plan import config_of, model_folder
from napari_histomil.ui.training_sides import sides_of, split_text
from napari_histomil.ui.widgets.forms import align, form
from napari_histomil.ui.widgets.panel import Panel, follow, plain_label
from napari_histomil.ui.widgets.train_classes import TrainClasses
from napari_histomil.ui.widgets.train_data import FILE, SLIDES, TILES, TrainData
from napari_histomil.ui.widgets.train_how import TrainHow
from napari_histomil.ui.widgets.train_progress import TrainProgress

DATA_VARIABLE = "HISTOMIL_DATA"
"""Folder that paths in a TOML file are relative to, as for ``histomil train``."""

_TASKS: dict[str, Task] = {"Segment (U-Net)": "segment", "Classify patches": "classify"}
_NAMES: dict[Task, str] = {"segment": "my-unet", "classify": "my-classifier"}
_KEPT: dict[str, Kept] = {
    "Validation": "validation",
    "Validation and test": "test",
    "Nothing": "none",
}
_REST_MS = 150
"""Rest after the last change before the choices are looked at as a whole."""


class TrainWidget(Panel):
    """Dock that trains models on what is annotated."""

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session(napari_viewer)
        self._job: jobs.JobHandle | None = None
        self._plan: Plan | None = None  # what is being run
        self._unfinished: Plan | None = None  # of the name that stands in the field
        self._data_root = Path("/")  # of a configuration from a file
        self._make_what(napari_viewer)
        self._make_data()
        self._make_how()
        self._make_run()
        self._asker = QTimer(self)
        self._asker.setSingleShot(True)
        self._asker.setInterval(_REST_MS)
        self._asker.timeout.connect(self._look)
        for part in (self.data, self.classes, self.how):
            part.changed.connect(self._later)
        follow(self, self._session.models_changed, self._later)
        self._list_unfinished()
        self._look()

    def showEvent(self, event: QShowEvent) -> None:
        """Give all fields one left edge, now that labels have the theme's font."""
        super().showEvent(event)
        own = self._what_form, self._kept_form, self.data.tiles_form, self.classes.form
        align(*own, self.how.form, self.how.more_form)

    def _later(self) -> None:
        """Look at the choices as a whole when they have come to rest."""
        self._asker.start()

    # --- the form -----------------------------------------------------------------------------

    def _make_what(self, viewer: Any) -> None:
        self.task_box = QComboBox()
        self.task_box.addItems(list(_TASKS))
        self.task_box.setToolTip(
            "A U-Net draws the outline of each class; a patch classifier says for each tile which "
            "class it is, and needs no exact outlines"
        )
        self.task_box.activated.connect(self._take_task)
        self.name_box = QComboBox()
        self.name_box.setEditable(True)
        self.name_box.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.name_box.setToolTip(
            "Name of the model and of its folder; the list holds trainings that can be resumed"
        )
        self.name_box.setEditText(_NAMES["segment"])
        self.name_box.editTextChanged.connect(lambda _: self._later())
        self._what_form = form(("Task", self.task_box), ("Name", self.name_box))
        self.section("What to train").addLayout(self._what_form)
        self.data = TrainData(viewer)

    def _make_data(self) -> None:
        column = self.section("From what")
        column.addWidget(self.data)
        self.classes = TrainClasses()
        self.classes.renamed.connect(self._rename)
        column.addWidget(self.classes)
        self.kept_box = QComboBox()
        self.kept_box.addItems(list(_KEPT))
        self.kept_box.setToolTip(
            "Slides (or pictures) that are not learnt from: on the validation the best weights "
            "are chosen, about the test the finished model is asked once. Slides of one patient "
            "stay together"
        )
        self.kept_box.activated.connect(lambda _: self._later())
        self._kept_form = form(("Keep apart", self.kept_box))
        column.addLayout(self._kept_form)
        self.split_label = plain_label()
        column.addWidget(self.split_label)

    def _make_how(self) -> None:
        column = self.section("How")
        self.how = TrainHow()
        column.addWidget(self.how)
        self.load_button = QPushButton("Load from TOML…")
        self.load_button.setToolTip("Take data and settings from a file of 'histomil train'")
        self.load_button.clicked.connect(self._ask_load)
        self.save_button = QPushButton("Save as TOML…")
        self.save_button.clicked.connect(self._ask_save)
        row = QHBoxLayout()
        row.setSpacing(6)
        row.addWidget(self.load_button)
        row.addWidget(self.save_button)
        column.addLayout(row)

    def _make_run(self) -> None:
        self.start_button = QPushButton("Start")
        self.start_button.clicked.connect(self.start)
        self.resume_button = QPushButton("Resume")
        self.resume_button.clicked.connect(self.resume)
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.clicked.connect(self.cancel)
        holder = QWidget()
        row = QHBoxLayout(holder)
        row.setContentsMargins(0, 8, 0, 0)
        row.setSpacing(6)
        row.addWidget(self.start_button, 2)
        row.addWidget(self.resume_button, 1)
        row.addWidget(self.cancel_button, 1)
        self.earlier_label = plain_label()
        self.progress = TrainProgress()
        self.progress.use_wanted.connect(self.use_in_run)
        self.add(holder)
        self.add(self.earlier_label)
        self.add(self.progress)

    # --- what is chosen -----------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether a training is running."""
        return self._job is not None

    @property
    def task(self) -> Task:
        """What the model is to do."""
        return _TASKS[self.task_box.currentText()]

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.name_box.currentText().strip()

    def choices(self) -> Choices:
        """Return all that is chosen."""
        data, classes, how = self.data, self.classes, self.how
        return Choices(
            self.name,
            self.task,
            data.chosen if data.kind == SLIDES else (),
            dict(data.groups),
            data.tiles if data.kind == TILES else None,
            classes.classes,
            classes.positive,
            classes.background,
            _KEPT[self.kept_box.currentText()],
            mpp=how.mpp,
            tiles_mpp=data.mpp_spin.value(),
            tile_px=how.tile_px,
            network=how.network,
            steps=how.steps_spin.value(),
            batch=how.batch_spin.value(),
            base=data.base if data.kind == FILE else None,
        )

    def plan(self) -> Plan:
        """Return the training that the choices describe.

        Raises
        ------
        HistomilError
            If they describe none, in one sentence.
        """
        root = self._data_root if self.data.kind == FILE else Path("/")
        seed, device = self.how.seed_spin.value(), self.how.devices.device
        return Plan(config_of(self.choices()), root, seed, device)

    def _take_task(self) -> None:
        if self.name in _NAMES.values():
            self.name_box.setEditText(_NAMES[self.task])
        self.how.set_task(self.task)
        self._later()

    def _rename(self, before: str, name: str) -> None:
        if self.data.tiles is not None:
            self.data.tiles = renamed(self.data.tiles, before, name)
            self._later()

    def _look(self) -> None:
        """Show what the choices come to: classes, split, and what is possible."""
        data = self.data
        if data.kind == SLIDES:
            bounded = any(slide.bounded for slide in data.chosen)
            self.classes.show_found(classes_of(data.chosen), bounded=bounded, task=self.task)
        elif data.kind == TILES and data.tiles is not None:
            first = data.tiles.classes[0].name if data.tiles.has_background else ""
            self.classes.show_given(data.tiles.classes, first, editable=True)
        elif data.base is not None:
            base = data.base
            self.classes.show_given(base.classes, base.background_class, base.positive_class)
        if data.kind != FILE:
            names = tuple(each.name for each in self.classes.classes)
            slides = data.chosen if data.kind == SLIDES else ()
            self.how.suggest_mpp(names, min((s.mpp or 0.0 for s in slides), default=0.0))
        self._show_split()
        self._find_unfinished()
        self._update()

    def _show_split(self) -> None:
        data, choices = self.data, self.choices()
        sides: dict[Path, str] = {}
        if data.kind == FILE:
            text = "The split is that of the file."
        elif data.problem:
            text = ""
        else:
            try:
                text = split_text(choices)
                sides = {} if choices.tiles is not None else sides_of(choices)
            except HistomilError as error:
                text = str(error)
        data.show_sides(sides)
        self.split_label.setText(text)
        self.split_label.setVisible(bool(text))

    def _find_unfinished(self) -> None:
        """See whether a training of this name was left."""
        self._unfinished, text = None, ""
        if self._job is None and self.name:
            try:
                self._unfinished = unfinished(self.name)
            except HistomilError as error:
                text = str(error)
        if self._unfinished is not None:
            text = (
                f"A training of {self.name} is not finished: Resume goes on with it as it was "
                f"started, Start begins anew with what is chosen above."
            )
        self.earlier_label.setText(text)
        self.earlier_label.setVisible(bool(text))

    def _list_unfinished(self) -> None:
        with QSignalBlocker(self.name_box):
            name = self.name
            self.name_box.clear()
            self.name_box.addItems(all_unfinished())
            self.name_box.setEditText(name)

    def _update(self) -> None:
        """Enable what is possible now; what is not says why."""
        running = self._job is not None
        nothing_to_save = self._why_no_plan()
        why_not = self._why_not() or nothing_to_save
        self.start_button.setEnabled(not why_not)
        self.start_button.setToolTip(why_not or "Train beside the window; you can go on meanwhile")
        resumable = not running and self._unfinished is not None
        self.resume_button.setEnabled(resumable)
        self.resume_button.setToolTip(
            "Go on where the training was cancelled or killed; it ends with the same model"
            if resumable
            else "A training is running"
            if running
            else "No training of this name was left unfinished"
        )
        cancellable = running and not self._job.cancelled
        self.cancel_button.setEnabled(cancellable)
        self.cancel_button.setToolTip(
            "Stop after the next step; what is learnt is kept, and Resume goes on from there"
            if cancellable
            else "No training is running"
        )
        self.save_button.setEnabled(not nothing_to_save)
        self.save_button.setToolTip(
            nothing_to_save or "So that 'histomil train' does the same, here or elsewhere"
        )
        parts = (self.task_box, self.name_box, self.data, self.classes, self.kept_box, self.how)
        for widget in (*parts, self.load_button):
            widget.setEnabled(not running)
        if self.data.kind == FILE:
            for widget in (self.task_box, self.kept_box):
                widget.setEnabled(False)

    def _why_not(self) -> str:
        if self._job is not None:
            return "A training is running: cancel it, or wait until it is done"
        if model_folder(self.name).is_dir() and self.name:
            return f"There is a model {self.name} already: give this one another name"
        return ""

    def _why_no_plan(self) -> str:
        if self.data.problem:
            return self.data.problem
        try:
            self.plan()
        except HistomilError as error:
            return str(error)
        return ""

    # --- running it ---------------------------------------------------------------------------

    def start(self) -> None:
        """Train what is chosen, from the beginning."""
        try:
            plan = self.plan()
        except HistomilError as error:
            show_error(error, self)
            return
        self._run(plan, resume=False)

    def resume(self) -> None:
        """Go on with the unfinished training of this name."""
        if self._unfinished is not None:
            self._run(self._unfinished, resume=True)

    def _run(self, plan: Plan, *, resume: bool) -> None:
        if self._job is not None:
            return
        try:
            rows = earlier_rows(plan) if resume else []
        except HistomilError as error:
            show_error(error, self)
            return
        self._plan = plan
        self.progress.prepare(plan.config, rows)
        self._job = jobs.start(
            partial(train_steps, plan, resume=resume),
            on_progress=self._show_steps,
            on_done=self._end,
            on_error=self._fail,
            title=f"the training of {plan.config.name}",
            owner=self,
        )
        self.earlier_label.hide()
        self._update()
        QTimer.singleShot(0, self._show_progress)

    def _show_progress(self) -> None:
        """Scroll to what is going on."""
        self._scroll.ensureWidgetVisible(self.progress)

    def cancel(self) -> None:
        """Stop the training after its next step."""
        if self._job is not None:
            self._job.cancel()
            self.progress.cancelling()
            self._update()

    def _show_steps(self, found: list[Any]) -> None:
        steps = [each for each in found if not isinstance(each, ModelManifest)]
        if steps:
            self.progress.show_steps(steps)
        if self._job is not None and self._job.cancelled:
            self.progress.cancelling()
        models = [each for each in found if isinstance(each, ModelManifest)]
        if models:
            self.progress.finished(models[-1])

    def _end(self, _: Any) -> None:
        if self.progress.model is None:
            self.progress.cancelled()
        self._stop()
        if self.progress.model is not None:
            self._session.models_changed.emit()

    def _fail(self, error: Exception) -> None:
        self.progress.failed()
        self._stop()
        show_error(error, self)

    def _stop(self) -> None:
        """Leave the running state, whatever the reason."""
        self._job = self._plan = None
        self._list_unfinished()
        self._look()

    def use_in_run(self, name: str) -> None:
        """Choose a model in the Run dock, and bring the dock to the front."""
        window = getattr(self._session.viewer, "window", None)
        if window is not None:
            dock: QDockWidget = window.add_plugin_dock_widget(PLUGIN, "Run", tabify=True)[0]
            dock.show()
            dock.raise_()
        self._session.model_wanted.emit(name)

    # --- TOML ---------------------------------------------------------------------------------

    def load(self, path: Path) -> None:
        """Take data and settings from a TOML file."""
        try:
            config = read_config(path)
        except HistomilError as error:
            show_error(error, self)
            return
        self._show_config(config)
        self._data_root = Path(os.environ.get(DATA_VARIABLE) or path.absolute().parent)
        self.data.show_file(config, path.name)

    def _show_config(self, config: TrainingConfig) -> None:
        words = {task: text for text, task in _TASKS.items()}
        self.task_box.setCurrentText(words[config.task])
        self.name_box.setEditText(config.name)
        self.how.take_from(config)

    def save(self, path: Path) -> None:
        """Write what is chosen as a TOML file."""
        try:
            with whole_file(path) as part:
                part.write_text(toml_of(self.plan(), path.name), encoding="utf-8")
        except HistomilError as error:
            show_error(error, self)

    def _ask_load(self) -> None:
        dialog = self._dialog("A training", QFileDialog.AcceptMode.AcceptOpen)
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.fileSelected.connect(lambda file: self.load(Path(file)))
        dialog.open()

    def _ask_save(self) -> None:
        dialog = self._dialog("Save the training", QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix("toml")
        dialog.selectFile(f"{self.name}.toml")
        dialog.fileSelected.connect(lambda file: self.save(Path(file)))
        dialog.open()

    def _dialog(self, title: str, mode: QFileDialog.AcceptMode) -> QFileDialog:
        dialog = QFileDialog(self, title, "", "Trainings (*.toml);;All files (*)")
        dialog.setAcceptMode(mode)
        return dialog
