"""The table of a slide's facts, with units, and with what can be copied or corrected."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QApplication,
    QGridLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QWidget,
)
from superqt import QElidingLabel

from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.dialogs import MPP_SOURCES
from napari_histomil.ui.widgets.panel import plain_label

_READERS = {
    "tiff": "TIFF reader",
    "ndpi": "NDPI reader",
    "openslide": "OpenSlide",
    "zarr": "OME-Zarr reader",
    "wsidicom": "wsidicom",
}

_TOOLTIPS = {
    "Name": "File name of the slide",
    "Size": "Width x height of the finest level",
    "Pixel": "Micrometres that one pixel of the finest level spans",
    "Objective": "What the file says of the scanner's objective; for your information only, "
    "magnifications here follow the µm/px",
    "Format": "Kind of file, and what reads it here",
    "Levels": "Stored resolutions, as how many finest pixels one of their pixels spans",
    "Colour": "Channels and number type, and how they become the colours you see",
    "Scanned": "Part of the slide that the scanner filled: its size, and where it begins",
    "Content": "Fingerprint of the content: the same whatever the file is called; runs and "
    "answers are kept under it",
}


class SlideFacts(QWidget):
    """Facts of one slide, top to bottom; `show_info` fills it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._fingerprint = ""
        self.mpp_button = QPushButton()
        self.copy_button = QPushButton("Copy")
        self.copy_button.setToolTip("Copy the whole fingerprint")
        self.copy_button.clicked.connect(self._copy_fingerprint)
        beside = {"Pixel": self.mpp_button, "Content": self.copy_button}
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(10)
        grid.setVerticalSpacing(0)
        grid.setColumnStretch(1, 1)
        self.names: dict[str, QLabel] = {}
        self.values: dict[str, QLabel] = {}
        for row, (name, tooltip) in enumerate(_TOOLTIPS.items()):
            self.names[name], self.values[name] = QLabel(name), _value_label(name)
            for column, label in enumerate((self.names[name], self.values[name])):
                label.setToolTip(tooltip)
                label.setAlignment(Qt.AlignmentFlag.AlignTop)
                grid.addWidget(label, row, column, 1, 1 if name in beside or column == 0 else 2)
            if name in beside:
                grid.addWidget(beside[name], row, 2, Qt.AlignmentFlag.AlignTop)

    def show_info(self, info: SlideInfo) -> None:
        """Fill the table."""
        self._fingerprint = info.fingerprint
        for name, text in fact_texts(info).items():
            self.values[name].setText(text)
            self.values[name].setVisible(bool(text))
            self.names[name].setVisible(bool(text))
        self.values["Name"].setToolTip(str(info.path))
        known = info.mpp_x is not None
        self.mpp_button.setText("Change…" if known else "Set µm/px…")
        self.mpp_button.setToolTip(
            "Correct the µm/px of this slide; heatmaps over it are taken off the window, because "
            "they were computed for other µm/px"
            if known
            else "Say how many µm one pixel spans; until then nothing can be measured and no "
            "model can run"
        )

    def _copy_fingerprint(self) -> None:
        QApplication.clipboard().setText(self._fingerprint)


def _value_label(name: str) -> QLabel:
    """Return the label of a value; a file name has no blanks to wrap at and is elided."""
    if name != "Name":
        return plain_label()
    label = QElidingLabel()
    label.setElideMode(Qt.TextElideMode.ElideMiddle)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
    return label


def fact_texts(info: SlideInfo) -> dict[str, str]:
    """Return the facts of a slide as people read them, with units."""
    size = f"{info.width_px0:,} x {info.height_px0:,} px".replace(",", " ")
    if info.mpp_x is None or info.mpp_y is None:
        pixel = "unknown µm/px"
        mm_per_px0 = None
    else:
        mm_per_px0 = (info.mpp_x / 1000, info.mpp_y / 1000)
        size += (
            f"\n{info.width_px0 * mm_per_px0[0]:.4g} x {info.height_px0 * mm_per_px0[1]:.4g} mm"
        )
        same = abs(info.mpp_x - info.mpp_y) < 1e-6 * info.mpp_x
        number = f"{info.mpp_x:.4g}" if same else f"{info.mpp_x:.4g} x {info.mpp_y:.4g}"
        pixel = f"{number} µm/px\n{MPP_SOURCES.get(info.mpp_source or '', info.mpp_source)}"
    return {
        "Name": info.path.name,
        "Size": size,
        "Pixel": pixel,
        "Objective": "" if info.objective_power is None else f"{info.objective_power:g}x",
        "Format": f"{info.vendor or 'unknown'}, {_READERS.get(info.reader, info.reader)}",
        "Levels": f"{len(info.levels)}: " + ", ".join(_factor(d) for d in info.downsamples),
        "Colour": _colour_text(info),
        "Scanned": _bounds_text(info, mm_per_px0),
        "Content": info.fingerprint[:12],
    }


def _colour_text(info: SlideInfo) -> str:
    names = ", ".join(info.channels)
    return f"{names}, {info.dtype}" + (f"\nshown as {info.composite}" if info.composite else "")


def _bounds_text(info: SlideInfo, mm_per_px0: tuple[float, float] | None) -> str:
    bounds = info.bounds_px0
    if bounds is None:
        return ""
    x, y, unit, digits = (
        (1.0, 1.0, "px", "{:.0f}") if mm_per_px0 is None else (*mm_per_px0, "mm", "{:.4g}")
    )
    numbers = [
        digits.format(value)
        for value in (
            bounds.width_px0 * x, bounds.height_px0 * y, bounds.x_px0 * x, bounds.y_px0 * y
        )
    ]  # fmt: skip
    return f"{numbers[0]} x {numbers[1]} {unit}, from ({numbers[2]}, {numbers[3]}) {unit}"


def _factor(downsample: float) -> str:
    """Return three digits, and large numbers without an exponent."""
    return f"{downsample:.3g}" if downsample < 1000 else f"{downsample:.0f}"
