"""How the slide is displayed: brightness, gamma, and its colour profile; models see none of it."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_histomil.errors import HistomilError
from napari_histomil.ui.brightness import AS_STORED, BRIGHTNESS_RANGE, GAMMA_RANGE, Tone, tones
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.session import SlideSession, session
from napari_histomil.ui.widgets.forms import form
from napari_histomil.ui.widgets.panel import follow
from napari_histomil.ui.widgets.slider_spin import SliderSpin

_ONLY_SHOWN = "Only what you see changes: models and exports read the slide's own pixels"


class Display(QWidget):
    """Sliders for the slide that `show_slide` names."""

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session(viewer)
        self._tones = tones(viewer)
        self._slide: SlideSession | None = None
        self.brightness = SliderSpin(*BRIGHTNESS_RANGE, step=5, suffix=" %")
        self.brightness.setToolTip(f"100 % is the slide as it is stored. {_ONLY_SHOWN}")
        self.gamma = SliderSpin(*GAMMA_RANGE, step=0.05, decimals=2)
        self.gamma.setToolTip(
            f"1 is the slide as it is stored; below it dark tissue gets lighter, above it darker. "
            f"{_ONLY_SHOWN}"
        )
        for slider in (self.brightness, self.gamma):
            slider.value_changed.connect(self._set)
        self.profile_box = QCheckBox("Colours by ICC profile")
        self.profile_box.clicked.connect(self._set_profile)
        self.reset_button = QPushButton("Reset")
        self.reset_button.setToolTip("Show the slide's own brightness again")
        self.reset_button.clicked.connect(self._reset)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(form(("Brightness", self.brightness), ("Gamma", self.gamma)))
        row = QHBoxLayout()
        row.setSpacing(6)
        row.addWidget(self.profile_box)
        row.addStretch(1)
        row.addWidget(self.reset_button)
        column.addLayout(row)
        follow(self, self._tones.changed, self._update)

    def show_slide(self, slide: SlideSession | None) -> None:
        """Steer this slide from now on."""
        self._slide = slide
        self._update()

    def _update(self, _changed: Any = None) -> None:
        if self._slide is None:
            return
        tone = self._tones.of(self._slide)
        self.brightness.set_value(tone.brightness)
        self.gamma.set_value(tone.gamma)
        self.reset_button.setEnabled(tone != AS_STORED)
        info = self._slide.info
        self.profile_box.setVisible(bool(info.icc_profile))
        self.profile_box.setChecked(info.icc_applied)
        self.profile_box.setToolTip(
            f"Show the colours of the profile '{info.icc_profile}', which the scanner wrote into "
            f"the file, as the screen's (sRGB). {_ONLY_SHOWN}"
        )

    def _set_profile(self, on: bool) -> None:
        slide = self._slide
        if slide is None:
            return
        try:
            self._session.set_icc(slide, on)
        except HistomilError as error:
            self._update()
            show_error(error, self, info=slide.info)

    def _set(self, _value: float) -> None:
        if self._slide is not None:
            tone = Tone.within_range(self.brightness.value, self.gamma.value)
            self._tones.set(self._slide, tone)

    def _reset(self) -> None:
        if self._slide is not None:
            self._tones.set(self._slide, AS_STORED)
