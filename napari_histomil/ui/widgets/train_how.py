"""How the Train dock trains: resolution, tile, network, steps, seed, device, and TOML files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QLineEdit,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.training.config import Network, TrainingConfig
from napari_histomil.ui.training_choices import CELL_STEP_PX, PRESETS, TILES_PX, Preset, Task
from napari_histomil.ui.widgets.device_picker import DevicePicker
from napari_histomil.ui.widgets.forms import fold, form

TUMOUR_MPP, NUCLEI_MPP = 1.0, 0.5
"""Resolutions at which areas of tumour, and nuclei, are told well."""

_TOOLTIP = Qt.ItemDataRole.ToolTipRole

OWN = "As named below"


class TrainHow(QWidget):
    """A form of what decides the training besides its data."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._task: Task = "segment"
        self._arguments: Mapping[str, Any] = {}  # of the network, but what the lines name
        self._own_mpp = self._own_tile = False  # set by the person
        self.mpp_spin = QDoubleSpinBox()
        self.mpp_spin.setRange(0.05, 32)
        self.mpp_spin.setDecimals(3)
        self.mpp_spin.setSingleStep(0.25)
        self.mpp_spin.setToolTip(
            "µm that a pixel of the model's tiles spans: 1.0 is right for areas of tumour, 0.5 "
            "for nuclei; finer takes longer"
        )
        self.tile_spin = QSpinBox()
        self.tile_spin.setRange(CELL_STEP_PX, 1024)
        self.tile_spin.setSingleStep(CELL_STEP_PX)
        self.tile_spin.setToolTip("Side of a tile at that resolution, a multiple of 32")
        self.network_box = QComboBox()
        self.network_box.activated.connect(self._take_preset)
        self.steps_spin = _spin(1, 10_000_000, 1000)
        self.steps_spin.setSingleStep(100)
        self.steps_spin.setToolTip(
            "Batches that are learnt from: some hundred for a first try, some thousand for a "
            "model to be used"
        )
        self.devices = DevicePicker()
        self.architecture_edit = QLineEdit()
        self.architecture_edit.setToolTip(
            "smp/<name> of segmentation-models-pytorch segments (unet, unetplusplus, fpn, …); "
            "timm/<name> and histomil/centre-patch classify"
        )
        self.encoder_edit = QLineEdit()
        self.encoder_edit.setToolTip(
            "The part that looks: an encoder of segmentation-models-pytorch, or tu-<name> for one "
            "of timm; of histomil/centre-patch a network of timm"
        )
        self.pretrained_box = QCheckBox("Start from ImageNet's weights")
        self.pretrained_box.setToolTip(
            "Fetched once over the network; thin networks have none. Without, from random weights"
        )
        self.batch_spin = _spin(1, 1024, 12)
        self.batch_spin.setToolTip("Tiles that are learnt from together")
        self.seed_spin = _spin(0, 2**31 - 1, 0)
        self.seed_spin.setToolTip("The same seed gives the same model on the same machine")
        more = QWidget()
        column = QVBoxLayout(more)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        self.more_form = form(
            ("Architecture", self.architecture_edit),
            ("Encoder", self.encoder_edit),
            ("", self.pretrained_box),
            ("Tiles in a batch", self.batch_spin),
            ("Seed", self.seed_spin),
        )
        column.addLayout(self.more_form)
        self.more = fold("More", more, tooltip="Full names of the network, batch and seed")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        self.form = form(
            ("Resolution, µm/px", self.mpp_spin),
            ("Tile, px", self.tile_spin),
            ("Network", self.network_box),
            ("Steps", self.steps_spin),
            ("Device", self.devices),
        )
        layout.addLayout(self.form)
        layout.addWidget(self.more)
        self.mpp_spin.valueChanged.connect(self._on_mpp)
        self.tile_spin.valueChanged.connect(self._on_tile)
        for spin in (self.steps_spin, self.batch_spin, self.seed_spin):
            spin.valueChanged.connect(self.changed)
        for edit in (self.architecture_edit, self.encoder_edit):
            edit.textEdited.connect(self._on_names)
        self.pretrained_box.toggled.connect(self._on_names)
        self.set_task("segment", force=True)
        self.suggest_mpp(())

    # --- what is chosen -----------------------------------------------------------------------

    @property
    def mpp(self) -> float:
        """Resolution in µm/px."""
        return round(self.mpp_spin.value(), 3)

    @property
    def tile_px(self) -> int:
        """Side of a tile in px at `mpp`."""
        return self.tile_spin.value()

    @property
    def network(self) -> Network:
        """The net by its full names."""
        name, encoder = self.architecture_edit.text().strip(), self.encoder_edit.text().strip()
        arguments = dict(self._arguments)
        pretrained = self.pretrained_box.isChecked()
        if name.startswith("smp/"):
            arguments["encoder_name"] = encoder
            arguments |= {"encoder_weights": "imagenet"} if pretrained else {}
        elif name == "histomil/centre-patch":
            arguments["backbone"] = encoder
            inner = {**arguments.get("backbone_arguments", {})}
            inner |= {"pretrained": True} if pretrained else {}
            arguments |= {"backbone_arguments": inner} if inner else {}
        elif pretrained:
            arguments["pretrained"] = True
        return Network(name, arguments)

    def set_task(self, task: Task, *, force: bool = False) -> None:
        """Offer the networks of a task."""
        if task == self._task and not force:
            return
        self._task = task
        self.network_box.clear()
        for preset in PRESETS[task]:
            self.network_box.addItem(preset.title, preset)
            self.network_box.setItemData(self.network_box.count() - 1, preset.tooltip, _TOOLTIP)
        if not self._own_tile:
            with QSignalBlocker(self.tile_spin):
                self.tile_spin.setValue(TILES_PX[task])
        self._take_preset()

    def suggest_mpp(self, classes: tuple[str, ...], finest: float = 0.0) -> None:
        """Set the resolution that suits the classes, never finer than the slides are."""
        if self._own_mpp:
            return
        nuclei = any("nucle" in name.casefold() for name in classes)
        with QSignalBlocker(self.mpp_spin):
            self.mpp_spin.setValue(max(NUCLEI_MPP if nuclei else TUMOUR_MPP, finest))

    def take_from(self, config: TrainingConfig) -> None:
        """Show the settings of a training."""
        self.set_task(config.task)
        with QSignalBlocker(self.mpp_spin), QSignalBlocker(self.tile_spin):
            self.mpp_spin.setValue(config.grid.mpp)
            self.tile_spin.setValue(config.grid.tile_px)
        self._own_mpp = self._own_tile = True
        with QSignalBlocker(self.steps_spin), QSignalBlocker(self.batch_spin):
            self.steps_spin.setValue(config.schedule.steps)
            self.batch_spin.setValue(config.schedule.batch)
        network = config.network
        for index, preset in enumerate(PRESETS[config.task]):
            own = dict(network.arguments)
            own.pop("cell_px", None)
            if (preset.architecture, preset.arguments) == (network.architecture, own):
                self.network_box.setCurrentIndex(index)
                self._take_preset()
                return
        self._show_network(network)
        self._mark_own()

    # --- what the person does -----------------------------------------------------------------

    def _take_preset(self, _: int = 0) -> None:
        preset: Preset | None = self.network_box.currentData()
        if preset is None:
            return
        self._forget_own()
        self._show_network(Network(preset.architecture, dict(preset.arguments)))
        self.network_box.setToolTip(preset.tooltip)
        self.changed.emit()

    def _show_network(self, network: Network) -> None:
        arguments = dict(network.arguments)
        encoder = arguments.pop("encoder_name", None) or arguments.pop("backbone", "")
        pretrained = bool(arguments.pop("encoder_weights", None) or arguments.pop("pretrained", 0))
        inner = dict(arguments.pop("backbone_arguments", {}))
        pretrained = bool(inner.pop("pretrained", pretrained))
        self._arguments = arguments | ({"backbone_arguments": inner} if inner else {})
        with QSignalBlocker(self.pretrained_box):
            self.pretrained_box.setChecked(pretrained)
        self.architecture_edit.setText(network.architecture)
        self.encoder_edit.setText(encoder)
        self._update_lines()

    def _update_lines(self) -> None:
        """Say what the lines of names are good for with this architecture."""
        timm = self.architecture_edit.text().startswith("timm/")
        self.encoder_edit.setEnabled(not timm)
        thin = "channels" in self._arguments.get("backbone_arguments", self._arguments)
        self.pretrained_box.setEnabled(not thin)
        if thin:
            with QSignalBlocker(self.pretrained_box):
                self.pretrained_box.setChecked(False)

    def _on_names(self, *_: Any) -> None:
        """Another network than the preset: what belongs to the preset's own is dropped."""
        if self.sender() is not self.pretrained_box:
            keep = {"level", "dropout", "cell_px"}
            centre = self.architecture_edit.text() == "histomil/centre-patch"
            self._arguments = {k: v for k, v in self._arguments.items() if centre and k in keep}
            if centre:
                self._arguments = {"level": 3, **self._arguments}
        self._update_lines()
        self._mark_own()
        self.changed.emit()

    def _mark_own(self) -> None:
        """Show that the network is none of the presets."""
        if self.network_box.findText(OWN) < 0:
            self.network_box.addItem(OWN, None)
        self.network_box.setCurrentText(OWN)
        self.network_box.setToolTip("The network that is named under More")

    def _forget_own(self) -> None:
        index = self.network_box.findText(OWN)
        if index >= 0:
            self.network_box.removeItem(index)

    def _on_mpp(self) -> None:
        self._own_mpp = True
        self.changed.emit()

    def _on_tile(self) -> None:
        self._own_tile = True
        self.changed.emit()


def _spin(least: int, most: int, value: int) -> QSpinBox:
    spin = QSpinBox()
    spin.setRange(least, most)
    spin.setValue(value)
    return spin
