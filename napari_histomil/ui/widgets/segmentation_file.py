"""A segmentation in a file for other programs: what of it, in which format, where to."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QProgressBar,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.ui import jobs
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.segmentation_view import SegmentationView
from napari_histomil.ui.segmentation_work import stoppable, write
from napari_histomil.ui.session import RunView
from napari_histomil.ui.widgets.forms import form
from napari_histomil.ui.widgets.panel import plain_label
from napari_histomil.ui.widgets.rows import without_icons

_PICTURES = (("OME-TIFF", ".ome.tif"), ("OME-Zarr", ".zarr"))

WHAT: dict[str, tuple[str, tuple[tuple[str, str], ...], str]] = {
    "regions": (
        "Objects as regions",
        (("GeoJSON (QuPath)", ".geojson"),),
        "Outlines of the objects after the steps, with the model as author.",
    ),
    "labels": (
        "Classes as labels",
        (*_PICTURES, ("PNG", ".png")),
        "A picture whose values are the classes, after the steps.",
    ),
    "outlines": (
        "Outlines as labels",
        (*_PICTURES, ("PNG", ".png")),
        "The same, only the outermost pixels of each object.",
    ),
    "probability": (
        "Probabilities",
        _PICTURES,
        "The model's own values, a channel a class; the steps change nothing in them.",
    ),
}
"""Kind -> its title, formats with suffixes, and what it is in words."""


class SegmentationFileDialog(QDialog):
    """Asks for what shall be written, and writes it beside the window."""

    said = Signal(str)
    """A sentence about what was written."""

    def __init__(self, run: RunView, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("Save segmentation")
        assert run.segmentation is not None, "only a segmentation is saved so"
        self._view: SegmentationView = run.segmentation
        self._stem = run.slide.info.path.stem
        self._job: jobs.JobHandle | None = None
        self.what_box, self.format_box = QComboBox(), QComboBox()
        for kind, (title, _, _) in WHAT.items():
            self.what_box.addItem(title, kind)
        self.what_box.currentIndexChanged.connect(self._take_what)
        self.words = plain_label()
        self.words.setMinimumWidth(340)
        self.words.setMinimumHeight(3 * self.fontMetrics().lineSpacing())
        self.bar = QProgressBar()
        self.bar.setRange(0, 0)
        self.bar.hide()
        buttons = QDialogButtonBox()
        self.save_button = buttons.addButton("Save…", QDialogButtonBox.ButtonRole.AcceptRole)
        buttons.addButton(QDialogButtonBox.StandardButton.Cancel)
        without_icons(buttons)
        buttons.accepted.connect(self._ask_file)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 16, 16, 12)
        layout.setSpacing(10)
        layout.addLayout(form(("What", self.what_box), ("Format", self.format_box)))
        layout.addWidget(self.words)
        layout.addWidget(self.bar)
        layout.addWidget(buttons)
        self._take_what()

    def _take_what(self) -> None:
        _, formats, words = WHAT[self.what_box.currentData()]
        self.format_box.clear()
        for title, suffix in formats:
            self.format_box.addItem(title, suffix)
        classes = ", ".join(self._view.names_on)
        self.words.setText(f"{words} Classes: {classes}.")

    def _ask_file(self) -> None:
        suffix = self.format_box.currentData()
        dialog = QFileDialog(
            self, "Save segmentation", f"{self._stem}-{self.what_box.currentData()}{suffix}"
        )
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.fileSelected.connect(lambda file: self.write(Path(file)))
        dialog.open()

    def write(self, path: Path) -> None:
        """Write the file beside the window; the dialog closes when it is there."""
        suffix: str = self.format_box.currentData()
        if not path.name.lower().endswith(suffix):
            path = path.with_name(path.name + suffix)
        view, kind = self._view, self.what_box.currentData()
        steps, names = view.style.steps, view.names_on

        def done(sentence: str | None) -> None:
            self._ended()
            if sentence is not None:
                self.said.emit(sentence)
                self.accept()

        def failed(error: Exception) -> None:
            self._ended()
            show_error(error, self)

        self.save_button.setEnabled(False)
        self.bar.show()
        self._job = jobs.start(
            stoppable(lambda turn: write(view.store, path, kind, steps, names, turn)),
            on_progress=lambda _: None,
            on_done=done,
            on_error=failed,
            title=f"writing {path.name}",
            owner=self,
        )

    def _ended(self) -> None:
        self._job = None
        self.bar.hide()
        self.save_button.setEnabled(True)

    def reject(self) -> None:
        """Cancel what is being written; without that, close."""
        if self._job is not None:
            self._job.cancel()
        else:
            super().reject()
