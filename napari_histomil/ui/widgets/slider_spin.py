"""A slider with its number beside it."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QSlider, QWidget


class SliderSpin(QWidget):
    """A slider for the hand and a number for the head; both always say the same.

    Parameters
    ----------
    low, high
        Ends of the range.
    step
        What an arrow key changes.
    decimals
        Digits of the number after the point.
    suffix
        Unit behind the number.
    """

    value_changed = Signal(float)
    """The person changed the value."""

    def __init__(
        self,
        low: float,
        high: float,
        *,
        step: float,
        decimals: int = 0,
        suffix: str = "",
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._per_unit = 10**decimals
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(round(low * self._per_unit), round(high * self._per_unit))
        self.slider.setSingleStep(round(step * self._per_unit))
        self.slider.setPageStep(round(10 * step * self._per_unit))
        self.spin = QDoubleSpinBox()
        self.spin.setDecimals(decimals)
        self.spin.setRange(low, high)
        self.spin.setSingleStep(step)
        self.spin.setSuffix(suffix)
        self.spin.setAlignment(Qt.AlignmentFlag.AlignRight)
        # The slider is for stepping; napari's wide arrows would leave no room for digits.
        self.spin.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
        self.spin.setFixedWidth(64)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        row.addWidget(self.slider, 1)
        row.addWidget(self.spin)
        self.slider.valueChanged.connect(self._from_slider)
        self.spin.valueChanged.connect(self._from_spin)

    @property
    def value(self) -> float:
        """The number shown."""
        return self.spin.value()

    def set_value(self, value: float) -> None:
        """Show a value without telling anybody."""
        with QSignalBlocker(self.slider), QSignalBlocker(self.spin):
            self.slider.setValue(round(value * self._per_unit))
            self.spin.setValue(value)

    def _from_slider(self, value: int) -> None:
        with QSignalBlocker(self.spin):
            self.spin.setValue(value / self._per_unit)
        self.value_changed.emit(self.spin.value())

    def _from_spin(self, value: float) -> None:
        with QSignalBlocker(self.slider):
            self.slider.setValue(round(value * self._per_unit))
        self.value_changed.emit(value)
