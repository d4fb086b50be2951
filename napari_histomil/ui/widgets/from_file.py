"""The Run dock's way to a map from features that are there: a button, what is going on, cancel."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import Any

from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_histomil.errors import HistomilError
from napari_histomil.results.mil import MilRun
from napari_histomil.ui import jobs
from napari_histomil.ui.dialogs import ask_mpp, show_error
from napari_histomil.ui.mil_job import FromFile, answer_from_file, warm_up
from napari_histomil.ui.overlays import Overlays
from napari_histomil.ui.widgets.device_picker import DevicePicker
from napari_histomil.ui.widgets.features_dialog import FeaturesDialog
from napari_histomil.ui.widgets.model_picker import ModelPicker
from napari_histomil.ui.widgets.panel import follow, plain_label


class FromFileButton(QWidget):
    """Asks for the files, asks the model beside the window, lays its map over the slide."""

    def __init__(
        self,
        overlays: Overlays,
        models: ModelPicker,
        devices: DevicePicker,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._overlays, self._models, self._devices = overlays, models, devices
        self._job: jobs.JobHandle | None = None
        self.button = QPushButton("Features from a file…")
        self.button.clicked.connect(self.ask)
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.clicked.connect(self._cancel)
        self.words = plain_label()
        row = QHBoxLayout()
        row.setSpacing(6)
        row.addWidget(self.button, 2)
        row.addWidget(self.cancel_button, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(row)
        column.addWidget(self.words)
        follow(self, overlays.session.active_changed, self._update)
        self._update()

    def _update(self, _: Any = None) -> None:
        slide = self._overlays.session.active
        self.button.setEnabled(slide is not None and self._job is None)
        self.button.setToolTip(
            "Open a slide first"
            if slide is None
            else "Ask a MIL model, or a checkpoint of another program, about features of this "
            "slide that are there already (CLAM, TRIDENT, ...); takes seconds"
        )
        self.cancel_button.setVisible(self._job is not None)
        self.words.setVisible(bool(self.words.text()))

    def ask(self) -> FeaturesDialog | None:
        """Open the dialog; asks for the slide's µm/px first where they are unknown."""
        slide = self._overlays.session.active
        if slide is None:
            return None
        if not slide.has_mpp:

            def take(mpp: float) -> None:
                try:
                    self._overlays.session.set_mpp(slide, mpp)
                except HistomilError as error:
                    show_error(error, self, info=slide.info)
                else:
                    self.ask()

            ask_mpp(slide.info, take, self)
            return None
        jobs.start(
            warm_up,
            on_progress=lambda _: None,
            on_done=lambda _: None,
            on_error=lambda error: show_error(error, self),
            title="getting ready to ask a model",
            owner=self,
        )
        dialog = FeaturesDialog(self._models.models_of("mil"), slide.name, self)
        dialog.chosen.connect(self.start)
        dialog.open()
        return dialog

    def start(self, asked: FromFile) -> None:
        """Ask the model beside the window."""
        slide = self._overlays.session.active
        if slide is None or self._job is not None:
            return
        info, device = slide.info, self._devices.device

        def work(cancel: threading.Event) -> Generator[str, None, MilRun | None]:
            return answer_from_file(asked, info, device, cancel)

        def done(run: MilRun | None) -> None:
            self._end("" if run is not None else "Cancelled.")
            if run is not None:
                try:
                    self._overlays.add(run)
                except HistomilError as error:  # the slide was closed meanwhile
                    show_error(error, self, info=info)

        def failed(error: Exception) -> None:
            self._end("")
            show_error(error, self, info=info)

        self._job = jobs.start(
            work,
            on_progress=lambda told: self._say(told[-1]),
            on_done=done,
            on_error=failed,
            title=f"asking about {asked.features.name}",
            owner=self,
        )
        self._say("Beginning…")

    def _cancel(self) -> None:
        if self._job is not None:
            self._job.cancel()
            self._say("Cancelling…")

    def _end(self, text: str) -> None:
        self._job = None
        self._say(text)

    def _say(self, text: str) -> None:
        self.words.setText(text)
        self._update()
