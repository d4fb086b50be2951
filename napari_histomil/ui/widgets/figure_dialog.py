"""The question what a figure of the view shall hold, and where it goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QLineEdit,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.errors import HistomilError
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.figure import save_figure
from napari_histomil.ui.figure_paint import FigureOptions
from napari_histomil.ui.legend import entries_in_view
from napari_histomil.ui.session import SlideSession
from napari_histomil.ui.widgets.forms import form
from napari_histomil.ui.widgets.panel import plain_label

FILTERS = "PNG picture (*.png);;TIFF picture with its scale (*.tif);;PDF page (*.pdf)"


class FigureDialog(QDialog):
    """Options of a figure; 'Save…' asks for the file and writes it."""

    def __init__(
        self, viewer: Any, slide: SlideSession, *, heatmap: bool, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("Save view as figure")
        self._viewer, self._slide = viewer, slide
        self.scale_box = QComboBox()
        for words, scale in (("as on the screen", 1), ("twice that of the screen", 2)):
            self.scale_box.addItem(words, scale)
        self.scale_bar_box = _tick("Scale bar", slide.has_mpp, "Needs the slide's µm/px")
        self.magnification_box = _tick("Magnification", slide.has_mpp, "Needs the slide's µm/px")
        self.colour_bar_box = _tick("Colours of the heatmap", heatmap, "No heatmap is shown")
        regions = bool(entries_in_view(viewer, slide))
        self.classes_box = _tick("Classes of the regions", regions, "No regions are in view")
        self.name_box = QCheckBox("Name of the slide")
        self.name_box.setToolTip("File names of slides often hold the name or number of a patient")
        self.title_edit = QLineEdit()
        self.title_edit.setPlaceholderText("none")
        self.title_edit.setToolTip("A line above the picture")
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.save_button = self.buttons.addButton("Save…", QDialogButtonBox.ButtonRole.AcceptRole)
        self.buttons.accepted.connect(self._ask_file)
        self.buttons.rejected.connect(self.reject)
        column = QVBoxLayout(self)
        column.setContentsMargins(16, 16, 16, 12)
        column.setSpacing(8)
        column.addWidget(
            plain_label("The view as it is now, with what lies over the slide, once it is loaded.")
        )
        column.addLayout(form(("Resolution", self.scale_box), ("Title", self.title_edit)))
        for box in (
            self.scale_bar_box, self.magnification_box, self.colour_bar_box, self.classes_box,
            self.name_box,
        ):  # fmt: skip
            column.addWidget(box)
        column.addSpacing(8)
        column.addWidget(self.buttons)
        self.setMinimumWidth(340)

    def options(self) -> FigureOptions:
        """Return what is chosen."""
        words = [self.title_edit.text().strip()]
        if self.name_box.isChecked():
            words.append(self._slide.name)
        return FigureOptions(
            scale=self.scale_box.currentData(),
            scale_bar=self.scale_bar_box.isChecked(),
            magnification=self.magnification_box.isChecked(),
            colour_bar=self.colour_bar_box.isChecked(),
            classes=self.classes_box.isChecked(),
            title=" - ".join(word for word in words if word),
        )

    def save(self, path: Path) -> bool:
        """Write the figure; says in a dialog why it cannot be written."""
        QApplication.setOverrideCursor(Qt.CursorShape.WaitCursor)
        try:
            save_figure(self._viewer, self._slide, path, self.options())
        except (HistomilError, OSError) as error:
            show_error(error, self.parentWidget(), info=self._slide.info)
            return False
        finally:
            QApplication.restoreOverrideCursor()
        return True

    def _ask_file(self) -> None:
        start = str(self._slide.info.path.parent / "figure.png")
        name, chosen = QFileDialog.getSaveFileName(self, "Save view as figure", start, FILTERS)
        if not name:
            return
        path = Path(name)
        if not path.suffix:
            path = path.with_suffix(chosen.split("*")[-1].rstrip(")"))
        self.hide()  # the canvas is seen through nothing
        if self.save(path):
            self.accept()
        else:
            self.reject()


def _tick(text: str, possible: bool, why_not: str) -> QCheckBox:
    box = QCheckBox(text)
    box.setChecked(possible)
    box.setEnabled(possible)
    box.setToolTip("" if possible else why_not)
    return box
