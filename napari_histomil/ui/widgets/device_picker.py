"""Choose where a model runs, see what that is, and try whether it works."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QPaintEvent
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_histomil.errors import HistomilError
from napari_histomil.ui import jobs
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.preferences import preferred_device
from napari_histomil.ui.torch_shield import shield_torch
from napari_histomil.ui.widgets.panel import plain_label

DEVICES = {
    "auto": "the fastest that works here",
    "cuda": "a graphics card of NVIDIA, or of AMD with ROCm",
    "mps": "the graphics processor of a Mac",
    "cpu": "the processor, which every machine has",
}
"""Name of each device, in words; `inference.devices` resolves them."""


class DevicePicker(QWidget):
    """A list of devices, the name of the chosen one, and a button that tests it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._asked = 0  # answers to earlier questions are dropped
        self.device_box = QComboBox()
        self.device_box.setToolTip("Where the model runs; what it finds does not depend on it")
        for name, words in DEVICES.items():
            self.device_box.addItem(name)
            last = self.device_box.count() - 1
            self.device_box.setItemData(last, words, Qt.ItemDataRole.ToolTipRole)
        self.device_box.setCurrentText(preferred_device())
        self.device_box.currentTextChanged.connect(self._describe)
        self.test_button = QPushButton("Test")
        self.test_button.setToolTip("Compute something small on it and say how fast it was")
        self.test_button.clicked.connect(self.test)
        self.name_label = plain_label(tooltip="What this device is")
        row = QHBoxLayout()
        row.setSpacing(6)
        row.addWidget(self.device_box, 1)
        row.addWidget(self.test_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(row)
        column.addWidget(self.name_label)

    @property
    def device(self) -> str:
        """Name of the chosen device."""
        return self.device_box.currentText()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Ask for the device's name when the dock is first seen: only then is it needed.

        Docks behind another tab count as shown, but they are not painted.
        """
        super().paintEvent(event)
        if not self._asked:
            QTimer.singleShot(0, self._describe_once)

    def _describe_once(self) -> None:
        if not self._asked:
            self._describe()

    def test(self) -> None:
        """Test the chosen device."""

        def speed(device: str) -> str:
            from napari_histomil.inference.devices import test_device

            return test_device(device)

        self._ask(speed, "testing…")

    def _describe(self) -> None:
        def name(device: str) -> str:
            from napari_histomil.inference.devices import describe_device

            return describe_device(device)

        self._ask(name, "looking…")

    def _ask(self, question: Callable[[str], str], meanwhile: str) -> None:
        """Ask torch beside the window: importing it takes seconds."""
        self._asked += 1
        number, device = self._asked, self.device

        def answer(cancel: threading.Event) -> Iterator[str]:
            shield_torch()
            yield question(device)

        def show(answers: list[str]) -> None:
            if number == self._asked:
                self.name_label.setText(answers[-1])

        def failed(error: Exception) -> None:
            if number == self._asked:
                self.name_label.setText(str(error) if isinstance(error, HistomilError) else "")
            if not isinstance(error, HistomilError):
                show_error(error, self)

        def done(_: object) -> None:
            self.test_button.setEnabled(True)

        self.name_label.setText(meanwhile)
        self.test_button.setEnabled(False)
        jobs.start(
            answer,
            on_progress=show,
            on_done=done,
            on_error=lambda error: (done(None), failed(error)),
            title="the test of a device",
            owner=self,
        )
