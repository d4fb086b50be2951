"""Asks which features in a file, and which MIL model or checkpoint: no slide is embedded anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.manifest import ModelManifest
from napari_histomil.ui.mil_job import FromFile
from napari_histomil.ui.widgets.forms import choice_box, form
from napari_histomil.ui.widgets.panel import plain_label
from napari_histomil.ui.widgets.rows import without_icons

_CHECKPOINT = "A checkpoint of another program"
_FEATURES = "Features (*.h5 *.hdf5 *.pt)"
_CHECKPOINTS = "Checkpoints (*.pt *.pth *.ckpt *.safetensors)"
_UNSAID = "as the file says"


class FeaturesDialog(QDialog):
    """A form of what is asked; answers by a signal.

    Parameters
    ----------
    models
        MIL models that can be asked.
    name
        Of the slide.
    """

    chosen = Signal(object)
    """A `FromFile`."""

    def __init__(
        self, models: Sequence[ModelManifest], name: str, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("Features from a file")
        self.features_edit, features_row = self._path_row(
            "A file of features of this slide, as CLAM, TRIDENT or we write it", _FEATURES
        )
        self.model_box = choice_box("What is asked about the features")
        for model in models:
            self.model_box.addItem(model.name, model)
        self.model_box.addItem(_CHECKPOINT, None)
        self.checkpoint_edit, self._checkpoint_row = self._path_row(
            "CLAM, MIL-Lab, TransMIL, DSMIL, ZoomMIL, torchmil, ...", _CHECKPOINTS
        )
        self.classes_edit = QLineEdit()
        self.classes_edit.setPlaceholderText("normal, tumor")
        self.classes_edit.setToolTip(
            "Names of the classes in the order of the model's outputs; numbers without them"
        )
        self.k_box = QSpinBox()
        self.k_box.setRange(0, 100_000)
        self.k_box.setSpecialValueText("not a ZoomMIL")
        self.k_box.setToolTip("How many patches ZoomMIL zooms into; its checkpoints do not say it")
        self.side_box = _size_box(" px", "Side of a patch in pixels of level 0")
        self.mpp_box = _size_box(" µm/px", "Resolution at which the encoder was given the patches")
        self.mpp_box.setDecimals(3)
        self._form = form(
            ("Features", features_row),
            ("Model", self.model_box),
            ("Checkpoint", self._checkpoint_row),
            ("Classes", self.classes_edit),
            ("Zoom into", self.k_box),
            ("Patch side", self.side_box),
            ("Resolution", self.mpp_box),
        )
        words = plain_label(
            f"The model is asked about features of {name} that are there already; no pixels are "
            f"read again."
        )
        words.setMinimumWidth(440)
        buttons = QDialogButtonBox()
        self.show_button = buttons.addButton("Show map", QDialogButtonBox.ButtonRole.AcceptRole)
        buttons.addButton(QDialogButtonBox.StandardButton.Cancel)
        without_icons(buttons)
        buttons.accepted.connect(self._answer)
        buttons.rejected.connect(self.reject)
        column = QVBoxLayout(self)
        column.setContentsMargins(16, 16, 16, 12)
        column.setSpacing(10)
        column.addWidget(words)
        column.addLayout(self._form)
        column.addWidget(buttons)
        self.model_box.currentIndexChanged.connect(self._update)
        for edit in (self.features_edit, self.checkpoint_edit):
            edit.textChanged.connect(self._update)
        self._update()

    def _path_row(self, tooltip: str, kinds: str) -> tuple[QLineEdit, QWidget]:
        edit, button = QLineEdit(), QPushButton("Choose…")
        edit.setToolTip(tooltip)

        def ask() -> None:
            dialog = QFileDialog(self, tooltip, str(Path(edit.text()).parent), kinds)
            dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
            dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
            dialog.fileSelected.connect(edit.setText)
            dialog.open()

        button.clicked.connect(ask)
        holder = QWidget()
        row = QHBoxLayout(holder)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        row.addWidget(edit, 1)
        row.addWidget(button)
        return edit, holder

    @property
    def _of_checkpoint(self) -> bool:
        return self.model_box.currentData() is None

    def _update(self) -> None:
        """Show what the choice needs, and say what is missing."""
        for widget in (self._checkpoint_row, self.classes_edit, self.k_box):
            self._form.setRowVisible(widget, self._of_checkpoint)
        missing = ""
        if not self.features_edit.text().strip():
            missing = "Choose a file of features first"
        elif self._of_checkpoint and not self.checkpoint_edit.text().strip():
            missing = "Choose a checkpoint first"
        self.show_button.setEnabled(not missing)
        self.show_button.setToolTip(missing or "Ask the model, and lay its map over the slide")

    def _answer(self) -> None:
        names = [name.strip() for name in self.classes_edit.text().split(",")]
        of = self._of_checkpoint
        asked = FromFile(
            Path(self.features_edit.text().strip()).expanduser(),
            model=self.model_box.currentData(),
            checkpoint=Path(self.checkpoint_edit.text().strip()).expanduser() if of else None,
            class_names=tuple(name for name in names if name) if of else (),
            k=(self.k_box.value() or None) if of else None,
            side_px0=self.side_box.value() or None,
            mpp=self.mpp_box.value() or None,
        )
        self.accept()
        self.chosen.emit(asked)


def _size_box(suffix: str, tooltip: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(0, 100_000)
    box.setDecimals(1)
    box.setSuffix(suffix)
    box.setSpecialValueText(_UNSAID)  # at 0
    box.setToolTip(f"{tooltip}; needed only where the file does not say it")
    return box
