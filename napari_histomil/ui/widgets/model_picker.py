"""Choose a model: which there are, what each needs, its card, and models from elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QHBoxLayout,
    QPushButton,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.errors import ModelError
from napari_histomil.geometry import magnification
from napari_histomil.manifest import ModelManifest, list_models, load_manifest
from napari_histomil.ui import jobs
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.widgets.panel import plain_label

CARD = "README.md"
"""A model's card, in its folder."""


TASKS = {
    "classify": "classifies tiles",
    "segment": "segments",
    "chain": "segments in steps",
    "mil": "answers for the slide",
}
"""What models of a task do, in words."""


class ModelPicker(QWidget):
    """A list of models with what the chosen one needs."""

    changed = Signal()
    """Another model is chosen, or none."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.folders: list[Path] = []
        self._looking: jobs.JobHandle | None = None
        self._wanted: str | None = None  # name to choose when the list is there
        self.model_box = QComboBox()
        self.model_box.setToolTip("The model that looks at the tiles")
        self.model_box.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.model_box.currentIndexChanged.connect(self._update)
        self.add_button = QPushButton("Add…")
        self.add_button.setToolTip(
            "Add a folder with a model in it, or with several model folders: ours (model.json) "
            "or WSInfer's (config.json)"
        )
        self.add_button.clicked.connect(self._ask_folder)
        self.card_button = QPushButton("Card")
        self.card_button.setToolTip(
            "What this model was trained on, how well it did, and what it is not good for"
        )
        self.card_button.clicked.connect(self.show_card)
        self.needs_label = plain_label(tooltip="What the model does and looks at")
        row = QHBoxLayout()
        row.setSpacing(6)
        row.addWidget(self.model_box, 1)
        row.addWidget(self.card_button)
        row.addWidget(self.add_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(row)
        column.addWidget(self.needs_label)
        self.look()

    @property
    def model(self) -> ModelManifest | None:
        """The chosen model; None where there is none, or one that cannot be used."""
        return self.model_box.currentData()

    def look(self) -> None:
        """Look for models beside the window: weights without a stated hash are read whole."""
        folders = list(self.folders)

        def find(
            cancel: threading.Event,
        ) -> Iterator[tuple[list[ModelManifest], list[ModelError]]]:
            models, broken = list_models(folders)
            yield [model for model in models if _is_shown(model)], broken

        self._looking = jobs.start(
            find,
            on_progress=lambda found: self._fill(*found[-1]),
            on_done=lambda _: None,
            on_error=lambda error: show_error(error, self),
            title="the search for models",
            owner=self,
        )
        if not self.model_box.count():
            self.model_box.setPlaceholderText("looking for models…")
        self._update()

    def models_of(self, task: str) -> list[ModelManifest]:
        """Return the listed models of a task."""
        return [model for model in self._models() if model.task == task]

    def choose(self, name: str) -> None:
        """Look for models again, and choose the one of that name."""
        self._wanted = name
        self.look()

    def add_folder(self, folder: Path) -> None:
        """Look for models in this folder too, and choose the first one there."""
        before = {model.path for model in self._models()}
        try:
            model = load_manifest(folder)
            if not _is_shown(model):
                raise ModelError(
                    f"{model.name} does not answer for a slide by itself: it embeds tiles, or is "
                    f"one step of a chain. Add a model that tells classes apart, or the chain."
                )
            self._wanted = model.name
        except ModelError as error:
            found, broken = list_models([folder])
            new = [model for model in found if folder in model.path.parents]
            inside = [each for each in broken if str(folder) in str(each)]
            if not new:
                show_error(inside[0] if inside else error, self)
                return
            self._wanted = next((m.name for m in new if m.path not in before), new[0].name)
        self.folders.insert(0, folder)
        self.look()

    def _models(self) -> list[ModelManifest]:
        data = [self.model_box.itemData(i) for i in range(self.model_box.count())]
        return [each for each in data if each is not None]

    def _fill(self, models: list[ModelManifest], broken: list[ModelError]) -> None:
        wanted = self._wanted or (self.model.name if self.model is not None else None)
        self._wanted = None
        self.model_box.blockSignals(True)
        self.model_box.clear()
        for model in models:
            self.model_box.addItem(model.name, model)
            self._say(needs(model) + f"\n{model.path}")
        for error in broken:
            # It can be chosen, and says then why it cannot be used: Qt shows no tooltips for
            # entries that are disabled.
            self.model_box.addItem("a model that cannot be used")
            self._say(str(error))
        names = [model.name for model in models]
        self.model_box.setCurrentIndex(
            names.index(wanted) if wanted in names else 0 if names else -1
        )
        self.model_box.setPlaceholderText("no model found: add one")
        self.model_box.blockSignals(False)
        self._update()

    def _say(self, tooltip: str) -> None:
        last = self.model_box.count() - 1
        self.model_box.setItemData(last, tooltip, Qt.ItemDataRole.ToolTipRole)

    def _update(self) -> None:
        model = self.model
        self.card_button.setEnabled(model is not None)
        why_not = self.model_box.currentData(Qt.ItemDataRole.ToolTipRole)
        self.needs_label.setText(needs(model) if model is not None else why_not or "")
        self.changed.emit()

    def _ask_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "A model's folder, or a folder of models")
        if chosen:
            self.add_folder(Path(chosen))

    def show_card(self) -> QDialog | None:
        """Open the card of the chosen model."""
        if self.model is None:
            return None
        dialog = CardDialog(self.model, self)
        dialog.open()
        return dialog


class CardDialog(QDialog):
    """A model's card: its README, or what its manifest says."""

    def __init__(self, model: ModelManifest, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(model.name)
        self.text = QTextBrowser()
        self.text.setOpenExternalLinks(True)
        self.text.setSearchPaths([str(model.path)])
        self.text.setMarkdown(card(model))
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.reject)
        column = QVBoxLayout(self)
        column.setContentsMargins(12, 12, 12, 12)
        column.addWidget(self.text)
        column.addWidget(buttons)
        self.resize(640, 560)


def _is_shown(model: ModelManifest) -> bool:
    """Whether a run of it has something to show: an encoder has not, nor a chain's refiner."""
    return bool(model.classes) and not model.inputs


def needs(model: ModelManifest) -> str:
    """Return what a model does, tells apart and looks at, in two lines."""
    grid = model.grid
    megabytes = model.weights.stat().st_size / 1e6 if model.weights.is_file() else 0.0
    stain = "" if model.stain == "none" else f", stain {model.stain}"
    if model.mil is not None:
        grids = [f"{g.mpp:.3g} µm/px ({magnification(g.mpp):.3g}x)" for g in model.mil.grids]
        return (
            f"{TASKS[model.task]}: {', '.join(model.class_names)}\n"
            f"{', '.join(grids)}, features of {model.mil.encoder.name}, {megabytes:.1f} MB{stain}"
        )
    return (
        f"{TASKS.get(model.task, model.task)}: {', '.join(model.class_names)}\n"
        f"{grid.mpp:.3g} µm/px ({magnification(grid.mpp):.3g}x), tile {grid.tile_px} px, "
        f"stride {grid.stride_px} px, {megabytes:.1f} MB{stain}"
    )


def card(model: ModelManifest) -> str:
    """Return a model's card as Markdown."""
    file = model.path / CARD
    facts = [
        f"**Licence:** {model.licence or 'not stated'}",
        f"**Weights:** `{model.weights.name}`, sha256 `{model.weights_sha256}`",
        f"**Folder:** `{model.path}`",
    ]
    if file.is_file():
        return file.read_text(encoding="utf-8") + "\n\n---\n\n" + "\n\n".join(facts)
    lines = [f"# {model.name}", model.description, *facts]
    for name, values in (("Training", model.training), ("Held-out scores", model.scores)):
        lines += [f"## {name}", *(f"* {key}: {value}" for key, value in values.items())]
        if not values:
            lines.append("Not stated: try it on slides whose answer you know before you trust it.")
    return "\n\n".join(lines)
