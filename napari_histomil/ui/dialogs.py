"""Dialogs: errors in plain words with diagnostics to copy, and the question for µm/px.

Dialogs open without a nested event loop and answer by a function, so that work in the
background goes on and tests can click.
"""

from __future__ import annotations

import platform
import traceback
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from qtpy.QtCore import QLocale, Qt
from qtpy.QtGui import QDoubleValidator, QFontDatabase
from qtpy.QtWidgets import (
    QApplication,
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QStyle,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.errors import HistomilError
from napari_histomil.slides.resolution import PLAUSIBLE_MPP
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.widgets.rows import without_icons

_PACKAGES = (
    "napari-histomil", "napari", "qtpy", "PyQt6", "PySide6", "numpy", "torch", "timm",
    "tifffile", "imagecodecs", "openslide-python", "openslide-bin", "zarr",
)  # fmt: skip


MPP_SOURCES = {
    "file": "stated by the file",
    "given": "given by you",
    "remembered": "given by you earlier",
}
"""Where a slide's µm/px come from, in words."""


def diagnostics(error: BaseException | None = None, info: SlideInfo | None = None) -> str:
    """Return what a developer needs to understand a problem, as text.

    File names are included, folders of the person are not.

    Parameters
    ----------
    error
        What went wrong; its traceback is included.
    info
        The slide concerned.
    """
    lines = [f"system: {platform.platform()}, Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package}: not installed")
    if info is not None:
        lines += [
            f"slide: {info.path.name}, reader {info.reader}, vendor {info.vendor}",
            f"size: {info.width_px0} x {info.height_px0} px, {info.dtype} {info.channels}",
            f"µm/px: {info.mpp_x} x {info.mpp_y} ({info.mpp_source})",
            f"levels: {', '.join(f'{level.width} x {level.height}' for level in info.levels)}",
            f"fingerprint: {info.fingerprint}",
        ]
    if error is not None:
        lines += ["", "".join(traceback.format_exception(error)).rstrip()]
    return "\n".join(lines).replace(str(Path.home()), "~")


class ErrorDialog(QDialog):
    """One sentence for the person; details and diagnostics on demand."""

    def __init__(
        self, error: BaseException, info: SlideInfo | None = None, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        expected = isinstance(error, HistomilError)
        self.setWindowTitle("This did not work" if expected else "An unexpected error")
        self.report = diagnostics(error, info)
        self.sentence = (
            str(error)
            if expected
            else f"Something went wrong that should not have: {type(error).__name__}: {error}. "
            f"Please copy the diagnostics and report it."
        )
        icon = QLabel()
        style, size = self.style(), 40
        icon.setPixmap(
            style.standardIcon(QStyle.StandardPixmap.SP_MessageBoxWarning).pixmap(size, size)
        )
        text = QLabel(self.sentence)
        text.setWordWrap(True)
        text.setMinimumWidth(360)
        text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)

        self.details = QPlainTextEdit(self.report)
        self.details.setReadOnly(True)
        self.details.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.details.setMinimumSize(520, 200)
        self.details.hide()

        self.copy_button = QPushButton("Copy diagnostics")
        self.copy_button.setToolTip(
            "Copy versions, the slide's facts and the technical message, to paste into a report"
        )
        self.copy_button.clicked.connect(self._copy)
        self.details_button = QPushButton("Show details")
        self.details_button.setToolTip("Show the text that 'Copy diagnostics' copies")
        self.details_button.clicked.connect(self._toggle_details)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        without_icons(buttons)
        buttons.addButton(self.copy_button, QDialogButtonBox.ButtonRole.ActionRole)
        buttons.addButton(self.details_button, QDialogButtonBox.ButtonRole.ActionRole)
        buttons.rejected.connect(self.reject)

        top = QHBoxLayout()
        top.setSpacing(16)
        top.addWidget(icon, 0, Qt.AlignmentFlag.AlignTop)
        top.addWidget(text, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 16, 16, 12)
        layout.setSpacing(12)
        layout.addLayout(top)
        layout.addWidget(self.details)
        layout.addWidget(buttons)

    def _copy(self) -> None:
        QApplication.clipboard().setText(f"{self.sentence}\n\n{self.report}")
        self.copy_button.setText("Copied")

    def _toggle_details(self) -> None:
        hidden = self.details.isHidden()
        self.details.setVisible(hidden)
        self.details_button.setText("Hide details" if hidden else "Show details")
        self.adjustSize()


def show_error(
    error: BaseException, parent: QWidget | None = None, *, info: SlideInfo | None = None
) -> ErrorDialog:
    """Show an error in a dialog and return at once.

    Parameters
    ----------
    error
        A `HistomilError` is shown as its sentence; anything else as a bug to report.
    parent
        Widget that the dialog belongs to; its theme applies.
    info
        The slide concerned, for the diagnostics.
    """
    dialog = ErrorDialog(error, info, parent)
    dialog.open()
    return dialog


class MppDialog(QDialog):
    """Asks how many µm one pixel of a slide spans."""

    def __init__(self, info: SlideInfo, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("How large is a pixel?")
        power = info.objective_power
        known = info.mpp_x
        said = (
            f"{info.path.name} does not say how many micrometres (µm) one pixel spans. Without it "
            f"nothing can be measured and no model can run."
            if known is None
            else f"{info.path.name} is taken to have {known:.4g} µm/px, "
            f"{MPP_SOURCES.get(info.mpp_source or '', info.mpp_source)}."
        )
        hint = (
            f"Its objective is given as {power:g}x, which suggests {10 / power:.4g} µm/px. "
            f"Please check."
            if power
            else "Common values are 0.25 µm/px for a scan at 40x and 0.5 µm/px at 20x; the "
            "scanner's software or its export settings know."
        )
        text = QLabel(f"{said}\n\n{hint}\n\nThe answer is remembered for this slide.")
        text.setWordWrap(True)
        text.setMinimumWidth(380)

        self.edit = QLineEdit()
        validator = QDoubleValidator(*PLAUSIBLE_MPP, 5, self)
        validator.setLocale(QLocale.c())
        validator.setNotation(QDoubleValidator.Notation.StandardNotation)
        self.edit.setValidator(validator)
        self.edit.setPlaceholderText("for example 0.25")
        self.edit.setToolTip(
            f"Micrometres that one pixel of the finest level spans, "
            f"{PLAUSIBLE_MPP[0]:g} to {PLAUSIBLE_MPP[1]:g}"
        )
        suggestion = known if known is not None else (10 / power if power else None)
        if suggestion is not None:
            self.edit.setText(f"{suggestion:.5g}")
        self.edit.selectAll()
        self.means = QLabel()
        form = QFormLayout()
        form.addRow("µm per pixel", self.edit)
        form.addRow("that is", self.means)
        self._info = info

        buttons = QDialogButtonBox()
        self.accept_button = buttons.addButton("Use this", QDialogButtonBox.ButtonRole.AcceptRole)
        self.skip_button = buttons.addButton(
            "Cancel" if known is not None else "Without scale",
            QDialogButtonBox.ButtonRole.RejectRole,
        )
        if known is None:
            self.skip_button.setToolTip(
                "Look at the slide in pixels; measuring and running models stay disabled"
            )
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        self.edit.textChanged.connect(self._update)

        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 16, 16, 12)
        layout.setSpacing(12)
        layout.addWidget(text)
        layout.addLayout(form)
        layout.addWidget(buttons)
        self._update()

    @property
    def mpp(self) -> float | None:
        """The µm/px that stand in the field; None while they make no sense."""
        return float(self.edit.text()) if self.edit.hasAcceptableInput() else None

    def _update(self) -> None:
        mpp = self.mpp
        self.accept_button.setEnabled(mpp is not None)
        if mpp is None:
            self.means.setText(f"(a number from {PLAUSIBLE_MPP[0]:g} to {PLAUSIBLE_MPP[1]:g})")
            return
        width, height = (
            side * mpp / 1000 for side in (self._info.width_px0, self._info.height_px0)
        )
        self.means.setText(f"about {10 / mpp:.3g}x, a slide of {width:.3g} x {height:.3g} mm")


def ask_mpp(
    info: SlideInfo, on_answer: Callable[[float], None], parent: QWidget | None = None
) -> MppDialog:
    """Ask for a slide's µm/px and return at once.

    Parameters
    ----------
    info
        The slide's facts; the objective power makes a suggestion.
    on_answer
        Called with the µm/px; not called where the person goes on without a scale.
    parent
        Widget that the dialog belongs to; its theme applies.
    """
    dialog = MppDialog(info, parent)

    def accepted() -> None:
        if dialog.mpp is not None:
            on_answer(dialog.mpp)

    dialog.accepted.connect(accepted)
    dialog.open()
    return dialog
