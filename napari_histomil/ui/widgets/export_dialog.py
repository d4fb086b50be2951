"""Which regions are written, in which format, where to."""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.annotations.formats import FORMATS, write_annotations
from napari_histomil.annotations.model import Region, SlideFrame
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui import jobs
from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.widgets.forms import form
from napari_histomil.ui.widgets.panel import plain_label
from napari_histomil.ui.widgets.rows import without_icons
from napari_histomil.ui.words import count, regions_text

SUFFIXES = {
    "geojson": ".geojson", "asap": ".xml", "imagescope": ".xml", "halo": ".annotations",
    "dsa": ".json", "wsinfer": ".csv",
}  # fmt: skip
"""With which a file of each format is offered."""

_ALL, _LISTED, _CHOSEN = "all", "listed", "chosen"


class ExportDialog(QDialog):
    """Writes regions beside the window."""

    said = Signal(str)
    """Sentences about what was written."""

    def __init__(self, annotator: Annotator, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("Export annotations")
        self._annotator = annotator
        regions = annotator.regions
        listed = list(annotator.order()) if annotator.order else []
        self.which_box = QComboBox()
        total = 0 if regions is None else len(regions)
        for words, which, number in (
            ("all", _ALL, total),
            ("those in the list", _LISTED, len(listed)),
            ("the selected ones", _CHOSEN, len(annotator.selected)),
        ):
            if number:
                self.which_box.addItem(f"{words} ({count(number)})", which)
        self._listed = frozenset(listed)
        self.format_box = QComboBox()
        for name, each in FORMATS.items():
            self.format_box.addItem(each.title, name)
        self.format_box.setToolTip("GeoJSON holds all that there is to say; others less")
        buttons = QDialogButtonBox()
        self.export_button = buttons.addButton("Export…", QDialogButtonBox.ButtonRole.AcceptRole)
        buttons.addButton(QDialogButtonBox.StandardButton.Cancel)
        without_icons(buttons)
        buttons.accepted.connect(self._ask_file)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 16, 16, 12)
        layout.setSpacing(10)
        layout.addLayout(form(("Regions", self.which_box), ("Format", self.format_box)))
        layout.addWidget(
            plain_label("The annotations themselves are kept beside the slide all the time.")
        )
        layout.addWidget(buttons)

    def _ask_file(self) -> None:
        slide = self._annotator.slide
        if slide is None:
            return
        suffix = SUFFIXES[self.format_box.currentData()]
        dialog = QFileDialog(self, "Export annotations", f"{slide.info.path.stem}{suffix}")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix(suffix.lstrip("."))
        dialog.fileSelected.connect(lambda file: self.write(Path(file)))
        dialog.open()

    def chosen_regions(self) -> list[Region]:
        """Return the regions that are to be written, in drawing order."""
        regions = self._annotator.regions
        if regions is None:
            return []
        which = self.which_box.currentData()
        wanted = self._annotator.selected if which == _CHOSEN else self._listed
        return [each for each in regions if which == _ALL or each.id in wanted]

    def write(self, path: Path) -> None:
        """Write the regions beside the window, and close."""
        slide, parent = self._annotator.slide, self.parentWidget()
        if slide is None:
            return
        regions, to, info = self.chosen_regions(), self.format_box.currentData(), slide.info
        kept = self._annotator.regions
        extra = {} if kept is None else kept.extra

        def work(_cancel: threading.Event) -> Generator[None, None, Sequence[str]]:
            yield from ()
            return write_regions(path, regions, to, info, extra)

        said = self.said

        def done(notes: Sequence[str] | None) -> None:
            sentences = [f"{regions_text(len(regions))} written to {path.name}.", *(notes or ())]
            said.emit("\n".join(sentences))
            self.accept()

        self.export_button.setEnabled(False)
        jobs.start(
            work,
            on_progress=lambda _: None,
            on_done=done,
            on_error=self._failed,
            title=f"writing {path.name}",
            owner=parent,
        )

    def _failed(self, error: Exception) -> None:
        self.export_button.setEnabled(True)
        show_error(error, self)


def write_regions(
    path: Path, regions: Sequence[Region], to: str, info: SlideInfo, extra: Mapping[str, Any]
) -> Sequence[str]:
    """Write regions of a slide; see `write_annotations`."""
    mpp = None if info.mpp_x is None else info.mpp
    frame = SlideFrame.of(info)
    return write_annotations(path, regions, to=to, frame=frame, extra=extra, mpp=mpp)
