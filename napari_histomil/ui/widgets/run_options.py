"""Options of a run that are right by default: stain, resolution, stride, batch."""

from __future__ import annotations

from magicgui.widgets import ComboBox, FloatSpinBox, SpinBox
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QWidget

from napari_histomil.inference.job import StainMethod
from napari_histomil.manifest import ModelManifest
from napari_histomil.ui.widgets.forms import form
from napari_histomil.ui.widgets.mil_options import MilOptions

_STAINS: dict[str, StainMethod | None] = {
    "as the model says": None,
    "none": "none",
    "Macenko": "macenko",
    "Reinhard": "reinhard",
}


_ANY_MPP = 1.0  # until a model says its own


class RunOptions(QWidget):
    """A form of what may differ from the model's own settings."""

    changed = Signal()
    """The person changed a field."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.stain_box = ComboBox(
            choices=list(_STAINS),
            tooltip="Bring the slide's colours to a common reference before the model sees them; "
            "fitted once on the slide's tissue",
        )
        self.mpp_spin = FloatSpinBox(
            min=0.05,
            max=32,
            step=0.05,
            value=_ANY_MPP,
            tooltip="What the model looks at; it was trained at its own resolution and is less "
            "sure of itself at another",
        )
        self.stride_spin = SpinBox(
            min=1,
            max=8192,
            value=1,
            tooltip="Distance between tiles, in pixels at that resolution: smaller gives a finer "
            "heatmap, or more overlap where a model segments, and takes longer",
        )
        self.batch_box = ComboBox(
            choices=["auto", *(str(2**n) for n in range(10))],
            tooltip="Tiles that the model looks at together; auto finds the fastest number",
        )
        self.mpp_spin.native.setDecimals(3)
        self._own_mpp = self._own_mpp_shown = _ANY_MPP
        fields = {
            "Stain": self.stain_box,
            "µm/px": self.mpp_spin,
            "Stride, px": self.stride_spin,
            "Batch": self.batch_box,
        }
        # magicgui makes the fields; Qt's form gives them one left edge
        self.mil = MilOptions(self)
        self._form = form(
            *((label, field.native) for label, field in fields.items()), *self.mil.fields.items()
        )
        self.setLayout(self._form)
        for box in self.mil.fields.values():
            self._form.setRowVisible(box, False)  # until a MIL model is chosen
        self.mil.changed.connect(self._tell)
        for field in fields.values():
            field.changed.connect(self._tell)

    @property
    def stain(self) -> StainMethod | None:
        """Stain normalisation; None for the model's own."""
        return _STAINS[self.stain_box.value]

    @property
    def mpp(self) -> float:
        """Resolution of the tiles in µm/px: the model's own to the last digit until changed."""
        shown = float(self.mpp_spin.value)
        return self._own_mpp if shown == self._own_mpp_shown else shown

    @property
    def stride_px(self) -> int:
        """Distance between tiles in px at `mpp`."""
        return int(self.stride_spin.value)

    @property
    def batch(self) -> int | None:
        """Tiles in a batch; None for the engine's choice."""
        return None if self.batch_box.value == "auto" else int(self.batch_box.value)

    def take_from(self, model: ModelManifest) -> None:
        """Take a model's own settings; a MIL model is given tiles as it was trained on."""
        for field in (self.mpp_spin, self.stride_spin):
            self._form.setRowVisible(field.native, model.mil is None)
        for box in self.mil.fields.values():
            self._form.setRowVisible(box, model.mil is not None)
        self.mil.take_from(model)
        with QSignalBlocker(self):
            self.stain_box.value = next(iter(_STAINS))
            self.mpp_spin.value = self._own_mpp = model.grid.mpp
            self._own_mpp_shown = float(self.mpp_spin.value)  # rounded to the field's digits
            self.stride_spin.max = model.grid.tile_px
            self.stride_spin.value = model.grid.stride_px

    def _tell(self) -> None:
        self.changed.emit()
