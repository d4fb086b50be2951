"""The pictures that come with a slide: overview, thumbnail, and the label, which stays hidden."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QPushButton, QWidget

from napari_histomil.errors import SlideError
from napari_histomil.slides.slide import Slide, Uint8Image
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.widgets.panel import plain_label

LABEL_WORDS = ("label", "barcode")
"""Pictures with these words in their name may show a name, a number or a date of birth."""


def may_name_patient(name: str) -> bool:
    """Return whether an associated image may identify the patient, to judge by its name."""
    return any(word in name.lower() for word in LABEL_WORDS)


class AssociatedImages(QWidget):
    """One row a picture, shown on demand; nothing is read before."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setColumnStretch(0, 1)
        self.buttons: dict[str, QPushButton] = {}
        self.pictures: dict[str, QLabel] = {}
        self._slide: Slide | None = None

    def show_slide(self, slide: Slide | None) -> None:
        """List the pictures of a slide, all hidden."""
        self._slide = slide
        while (item := self._grid.takeAt(0)) is not None:
            item.widget().deleteLater()
        self.buttons, self.pictures = {}, {}
        names = slide.info.associated_images if slide is not None else ()
        for row, name in enumerate(names):
            self._add_row(2 * row, name)
        if not names:
            self._grid.addWidget(plain_label("This slide comes without further pictures."), 0, 0)

    def _add_row(self, row: int, name: str) -> None:
        hidden = may_name_patient(name)
        text = f"{name} (may name the patient)" if hidden else name
        button = QPushButton("Show")
        button.setCheckable(True)
        button.setToolTip(
            "Hidden because slide labels often carry a name, a number or a date of birth: show "
            "it only where nobody else is looking"
            if hidden
            else f"Show the {name} picture below"
        )
        button.toggled.connect(lambda on, name=name: self._toggle(name, on))
        picture = QLabel()
        picture.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        picture.hide()
        self._grid.addWidget(plain_label(text), row, 0)
        self._grid.addWidget(button, row, 1)
        self._grid.addWidget(picture, row + 1, 0, 1, 2)
        self.buttons[name], self.pictures[name] = button, picture

    def _toggle(self, name: str, on: bool) -> None:
        button, picture = self.buttons[name], self.pictures[name]
        button.setText("Hide" if on else "Show")
        if on and picture.pixmap().isNull() and self._slide is not None:
            try:
                pixels = self._slide.read_associated(name)
            except SlideError as error:
                button.setChecked(False)
                button.setEnabled(False)
                button.setToolTip(str(error))
                show_error(error, self, info=self._slide.info)
                return
            picture.setPixmap(self._scaled(pixels))
        picture.setVisible(on)

    def _scaled(self, pixels: Uint8Image) -> QPixmap:
        """Return the picture as wide as the dock, with the screen's own pixels."""
        ratio = self.devicePixelRatioF()
        height, width, _ = pixels.shape
        # QImage does not copy: the bytes must stay until the pixmap is made.
        rows = pixels.tobytes()
        image = QImage(rows, width, height, 3 * width, QImage.Format.Format_RGB888)
        pixmap = QPixmap.fromImage(image).scaled(
            round(min(self.width() * ratio, 2 * width)),
            round(400 * ratio),
            Qt.AspectRatioMode.KeepAspectRatio,
            Qt.TransformationMode.SmoothTransformation,
        )
        pixmap.setDevicePixelRatio(ratio)
        return pixmap
