"""Options of MIL models: how sure they are, and a map between their patches."""

from __future__ import annotations

from qtpy.QtCore import QObject, QSignalBlocker, Signal
from qtpy.QtWidgets import QComboBox

from napari_histomil.inference.job import REFINABLE, MilSpec
from napari_histomil.manifest import ModelManifest
from napari_histomil.ui.widgets.forms import choice_box

_PASSES = {"one answer": 0, "10 passes with dropout": 10, "30 passes with dropout": 30}
_FINER = {"as the model looks": 1, "steps of half a patch": 2, "steps of a quarter": 4}


class MilOptions(QObject):
    """What can be asked of a MIL model beyond its answer: fields for a form."""

    changed = Signal()
    """The person changed a field."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.passes_box = choice_box(
            "Ask again with dropout, and say how far the probabilities spread; for models that "
            "have dropout"
        )
        self._finer_tip = (
            "Look at further patches between those of the model: the map gets finer, the answer "
            "stays; takes as many times longer as there are more patches"
        )
        self.finer_box = choice_box(self._finer_tip)
        self.passes_box.addItems(_PASSES)
        self.finer_box.addItems(_FINER)
        self.fields: dict[str, QComboBox] = {
            "Uncertainty": self.passes_box,
            "Map": self.finer_box,
        }
        for box in self.fields.values():
            box.currentIndexChanged.connect(lambda _: self.changed.emit())

    @property
    def spec(self) -> MilSpec:
        """What is asked."""
        return MilSpec(
            passes=_PASSES[self.passes_box.currentText()],
            finer=_FINER[self.finer_box.currentText()],
        )

    def take_from(self, model: ModelManifest) -> None:
        """Offer what a model can do; ask for nothing beyond its answer."""
        refinable = model.architecture in REFINABLE
        with QSignalBlocker(self.passes_box), QSignalBlocker(self.finer_box):
            self.passes_box.setCurrentIndex(0)
            self.finer_box.setCurrentIndex(0)
        self.finer_box.setEnabled(refinable)
        self.finer_box.setToolTip(
            self._finer_tip
            if refinable
            else "The attention of this model depends on all patches, not on each by itself"
        )
